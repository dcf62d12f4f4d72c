"""Autoregressive head: each action dimension of the chunk is drawn from bins, then placed inside its bin.

The chunk is read as a sequence of L = Tp * A numbers, step by step and dimension by dimension:

    p(a) = prod_i p(bin_i | a_<i) p(offset_i | bin_i, a_<i) / width(bin_i)

An offset follows a logistic density truncated to its bin, so that the whole is an exact, normalised density over
continuous actions and nothing is lost to the bins' width. The two outermost bins reach to infinity: demonstrations
that saturate at exactly -1 or 1 lie inside them, and an action beyond the data still has a likelihood.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import AutoregressiveHeadConfig
from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.heads.head import Head
from robolearn.policies.networks.transformer import KeyValueCache, TransformerBlock, check_heads
from robolearn.policies.noise import Noise

MAX_SCALE = 3.0
"""Largest scale, in bin widths: a logistic that wide is uniform inside the bin to better than 1%."""


class AutoregressiveHead(Head):
    """A causal transformer over the chunk's numbers, conditioned on the features at every position."""

    exact_likelihood = True
    edges: Tensor

    def __init__(
        self, config: AutoregressiveHeadConfig, *, feature_size: int, pred_steps: int, action_size: int
    ) -> None:
        super().__init__()
        check_heads(config.width, config.num_heads)
        self.config, self.pred_steps, self.action_size = config, pred_steps, action_size
        self.length = pred_steps * action_size
        n, width = config.num_bins, config.width
        self.register_buffer("edges", uniform_edges(n).expand(action_size, -1).clone())
        self.context = nn.Linear(feature_size, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.length, width))
        self.bin_embedding = nn.Embedding(action_size * n, width)
        self.offset_embedding = nn.Linear(1, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, dropout=config.dropout) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 3 * n)

    def fit(self, actions: Tensor) -> None:
        """Place the bins by the data's quantiles, where the configuration asks for it; actions (M, A), normalised."""
        if self.config.spacing == "quantile":
            edges = [quantile_edges(column, self.config.num_bins) for column in actions.detach().float().cpu().T]
            self.edges.copy_(torch.stack(edges))

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        noise = self.config.context_noise if self.training else 0.0
        context = actions + noise * torch.randn_like(actions) if noise else actions
        log_prob = self.distribution(features).log_prob(actions, valid, context=context)
        losses = -log_prob / valid.sum(-1).clamp_min(1)
        return losses, {"log_prob_per_step": -losses.mean().detach()}

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        distribution = self.distribution(features)
        return distribution.mode() if deterministic else distribution.sample_likely(noise, self.config.min_p)

    def distribution(self, features: Tensor) -> AutoregressiveDistribution:
        return AutoregressiveDistribution(self, features)

    def encode(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return bins and offsets inside them (0 to 1; beyond in the outermost), (B, L) each, of actions (B, Tp, A)."""
        bins = (actions.unsqueeze(-1) >= self.edges[:, 1:-1]).sum(-1)
        low, width = self._bin(bins)
        return bins.flatten(1), ((actions - low) / width).flatten(1)

    def decode(self, bins: Tensor, offsets: Tensor) -> Tensor:
        """Undo `encode`: (B, L), (B, L) -> (B, Tp, A)."""
        bins, offsets = (x.unflatten(1, (self.pred_steps, self.action_size)) for x in (bins, offsets))
        low, width = self._bin(bins)
        return low + offsets * width

    def widths(self) -> Tensor:
        """Return the nominal width of every bin at every position, (L, n)."""
        return self.edges.diff(dim=-1).repeat(self.pred_steps, 1)

    def embed(self, bins: Tensor, offsets: Tensor, positions: slice) -> Tensor:
        """Return embeddings (B, l, width) of the numbers at `positions`, as inputs of the positions that follow."""
        dims = torch.arange(self.length, device=bins.device)[positions] % self.action_size
        # Offsets in the outermost bins are unbounded; far outliers must not blow the activations up.
        value = 2.0 * offsets.clamp(-1.0, 2.0) - 1.0
        return self.bin_embedding(bins + dims * self.config.num_bins) + self.offset_embedding(value.unsqueeze(-1))

    def teacher_forced(self, features: Tensor, bins: Tensor, offsets: Tensor) -> Tensor:
        """Return parameters (B, L, 3n) of every position given the numbers before it, all positions at once."""
        context = self.context(features).unsqueeze(1)
        previous = self.embed(bins[:, :-1], offsets[:, :-1], slice(0, self.length - 1))
        x = self.position + context + F.pad(previous, (0, 0, 1, 0))
        for block in self.blocks:
            x = block(x, causal=True)
        return self.out(self.norm(x)).float()  # densities need float32, also under autocast

    def step(self, context: Tensor, previous: Tensor | None, i: int, caches: list[KeyValueCache]) -> Tensor:
        """Return parameters (B, 3n) of position i; `caches` hold the positions before it."""
        x = context.unsqueeze(1) + self.position[i : i + 1]
        if previous is not None:
            x = x + previous
        for block, cache in zip(self.blocks, caches):
            x = block(x, causal=True, cache=cache)
        return self.out(self.norm(x)).squeeze(1)

    def _bin(self, bins: Tensor) -> tuple[Tensor, Tensor]:
        """Return lower edge and nominal width of bins (B, Tp, A)."""
        dims = torch.arange(self.action_size, device=bins.device)
        low = self.edges[dims, bins]
        return low, self.edges[dims, bins + 1] - low


class AutoregressiveDistribution(ActionDistribution):
    """The density over chunks (B, Tp, A) given features (B, D).

    Leaving out the end of a chunk is exact marginalisation. A step left out in the middle is conditioned on instead:
    the value given there is read as context, and only its own likelihood is left out.
    """

    def __init__(self, head: AutoregressiveHead, features: Tensor) -> None:
        self.head, self.features = head, features

    def log_prob(self, actions: Tensor, valid: Tensor | None = None, *, context: Tensor | None = None) -> Tensor:
        """Return log-densities (B,) of actions (B, Tp, A).

        Args:
            context: (B, Tp, A), conditions each number in place of the actions before it (for training).
        """
        head = self.head
        context = actions if context is None else context
        if valid is not None:  # padding may hold anything, and 0 * NaN is NaN in a gradient
            keep = valid.unsqueeze(-1)
            actions, context = (torch.where(keep | x.isfinite(), x, 0.0) for x in (actions, context))
        terms = self._terms(*head.encode(actions), *self._parameters(*head.encode(context)))
        if valid is not None:
            terms = terms * valid.repeat_interleave(head.action_size, dim=1)
        return terms.sum(-1)

    def sample(self, noise: Noise) -> Tensor:
        return self._generate(noise.uniform(self.head.length, 2))

    def sample_likely(self, noise: Noise, min_p: float) -> Tensor:
        """Draw bins with at least `min_p` of the likeliest one's share (Nguyen et al. 2024), and take their peaks."""
        return self._generate(noise.uniform(self.head.length, 1), min_p)

    def mode(self) -> Tensor:
        """Take at each position the bin of highest average density, and in it the density's peak (greedy)."""
        return self._generate(None)

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        """Average over samples the exact entropy (B,) of every position given the sampled ones before it."""
        values, scores = [], []
        every_bin = torch.arange(self.head.config.num_bins, device=self.features.device)
        for _ in range(samples):
            bins, offsets = self.head.encode(self.sample(noise))
            logits, location, scale = parameters = self._parameters(bins, offsets)
            log_mass = logits.log_softmax(-1)
            inside = _offset_entropy(location, scale, *self._ends(every_bin, location, scale))
            values.append((log_mass.exp() * (inside + self.head.widths().log() - log_mass)).sum((-2, -1)))
            scores.append(self._terms(bins, offsets, *parameters).sum(-1))
        value, score = torch.stack(values), torch.stack(scores)
        # What was sampled depends on the parameters too: its score times the entropy, less the other samples' mean.
        fixed = value.detach()
        baseline = (fixed.sum(0) - fixed) / max(samples - 1, 1)
        return (value + (fixed - baseline) * (score - score.detach())).mean(0)

    def _parameters(self, bins: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, locations in (0, 1) and scales in bin widths, (B, L, n) each."""
        logits, location, scale = self.head.teacher_forced(self.features, bins, offsets).chunk(3, -1)
        return logits, *self._place(location, scale, self.head.widths())

    def _terms(self, bins: Tensor, offsets: Tensor, logits: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """Return the log-density (B, L) of every number given those before it."""
        index = bins.unsqueeze(-1)
        log_mass = logits.log_softmax(-1).gather(-1, index).squeeze(-1)
        location, scale = (x.gather(-1, index).squeeze(-1) for x in (location, scale))
        width = self.head.widths().expand(len(bins), -1, -1).gather(-1, index).squeeze(-1)
        ends = self._ends(bins, location, scale)
        return log_mass + _offset_log_density(offsets, location, scale, *ends) - width.log()

    def _place(self, location: Tensor, scale: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return location.sigmoid(), MAX_SCALE * scale.sigmoid() + self.head.config.min_scale / widths

    def _ends(self, bins: Tensor, location: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bins' ends in the logistic's standard coordinate; infinite at the two outermost."""
        lower = torch.where(bins == 0, -torch.inf, -location / scale)
        upper = torch.where(bins == self.head.config.num_bins - 1, torch.inf, (1 - location) / scale)
        return lower, upper

    def _generate(self, uniform: Tensor | None, min_p: float = 0.0) -> Tensor:
        """Return chunks (B, Tp, A), number by number, by inverting cumulative shares at `uniform`.

        Args:
            uniform: (B, L, 2) draws bins and offsets, (B, L, 1) bins alone, None nothing; the rest is the likeliest.
        """
        with torch.no_grad():  # a block, since compilers of whole updates cannot read a decorator here
            head, previous = self.head, None
            context = head.context(self.features)
            caches = [KeyValueCache() for _ in head.blocks]
            widths = head.widths()
            bins, offsets = [], []
            for i in range(head.length):
                logits, location, scale = head.step(context, previous, i, caches).chunk(3, -1)
                location, scale = self._place(location, scale, widths[i])
                if uniform is None:
                    chosen = (logits - widths[i].log()).argmax(-1)
                else:
                    shares = logits.softmax(-1)
                    shares = torch.where(shares < min_p * shares.amax(-1, keepdim=True), 0.0, shares).cumsum(-1)
                    chosen = (shares <= uniform[:, i, :1] * shares[:, -1:]).sum(-1).clamp_max(logits.shape[-1] - 1)
                location, scale = (x.gather(-1, chosen.unsqueeze(-1)).squeeze(-1) for x in (location, scale))
                offset = location
                if uniform is not None and uniform.shape[-1] == 2:
                    lower, upper = self._ends(chosen, location, scale)
                    offset = location + scale * _truncated_quantile(uniform[:, i, 1], lower, upper)
                bins.append(chosen)
                offsets.append(offset)
                previous = head.embed(chosen.unsqueeze(1), offset.unsqueeze(1), slice(i, i + 1))
            return head.decode(torch.stack(bins, 1), torch.stack(offsets, 1))


def uniform_edges(num_bins: int) -> Tensor:
    """Return edges (n + 1,) of bins whose centres divide [-1, 1] evenly, so that -1 and 1 are centres too."""
    half = 1.0 / (num_bins - 1)
    return torch.linspace(-1.0 - half, 1.0 + half, num_bins + 1)


def quantile_edges(values: Tensor, num_bins: int) -> Tensor:
    """Return increasing edges (n + 1,) that hold equal shares of `values` (M,).

    Values that occur very often (saturation, a gripper at rest) swallow several quantiles; the bins they set free
    split the widest of the others. A dimension that never varies falls back to uniform bins.
    """
    low, high = values.min(), values.max()
    least = 1e-3 * (high - low)
    if least < 1e-6:
        return uniform_edges(num_bins)
    edges = [float(low)]
    for edge in torch.quantile(values, torch.linspace(0, 1, num_bins + 1)).tolist()[1:]:
        if edge - edges[-1] >= least:
            edges.append(edge)
    while len(edges) < num_bins + 1:
        widest = max(range(len(edges) - 1), key=lambda i: edges[i + 1] - edges[i])
        edges.insert(widest + 1, (edges[widest] + edges[widest + 1]) / 2)
    return torch.tensor(edges)


def _offset_log_density(offset: Tensor, location: Tensor, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    z = (offset - location) / scale
    return -z - 2 * F.softplus(-z) - scale.log() - _log_mass(lower, upper)


def _log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """Return log(F(upper) - F(lower)) of the standard logistic, without cancellation."""
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))


def _truncated_quantile(u: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the u-quantile of the standard logistic truncated to [lower, upper]."""
    low, high = lower.sigmoid(), upper.sigmoid()
    return torch.logit((low + u * (high - low)).clamp(1e-7, 1 - 1e-7)).clamp(lower, upper)


def _offset_entropy(location: Tensor, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the truncated logistic's entropy: w = F(z) is uniform on [F(lower), F(upper)], f(z) = w (1 - w)."""
    low, high = (end.sigmoid().clamp(1e-7, 1 - 1e-7) for end in (lower, upper))
    integral = _antiderivative(high) - _antiderivative(low)
    return scale.log() + _log_mass(lower, upper) - integral / (high - low)


def _antiderivative(w: Tensor) -> Tensor:
    """Return the antiderivative of log(w) + log(1 - w)."""
    return torch.xlogy(w, w) - torch.xlogy(1 - w, 1 - w) - 2 * w
