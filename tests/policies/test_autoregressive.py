"""The autoregressive head's density is exact: it integrates to one, its samples match it, and caches change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch.nn import functional as F

from robolearn.configuration.parts.policy import AutoregressiveHeadConfig, PolicyConfig
from robolearn.errors import ConfigError
from robolearn.policies.heads.autoregressive import AutoregressiveHead, quantile_edges, uniform_edges
from robolearn.policies.noise import BatchNoise, RowNoise


def make_head(
    seed: int = 0, *, pred_steps: int = 1, action_size: int = 1, sharp: float = 3.0, **config
) -> AutoregressiveHead:
    """A small head with weights blown up so far that its density is far from uniform."""
    torch.manual_seed(seed)
    defaults = {"num_bins": 5, "width": 16, "num_layers": 2, "num_heads": 2}
    head = AutoregressiveHead(
        AutoregressiveHeadConfig(**defaults | config), feature_size=3, pred_steps=pred_steps, action_size=action_size
    )
    with torch.no_grad():
        head.out.weight *= sharp
    return head.eval()


def density_1d(head: AutoregressiveHead, features: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    distribution = head.distribution(features.expand(len(grid), -1))
    return distribution.log_prob(grid.view(-1, 1, 1)).exp()


@pytest.mark.parametrize("spacing", ["uniform", "quantile"])
def test_density_integrates_to_one(spacing: str) -> None:
    head = make_head(spacing=spacing, min_scale=0.02)
    head.fit(torch.randn(500, 1, generator=torch.Generator().manual_seed(1)) ** 3)
    grid = torch.linspace(-60, 60, 400_001)
    with torch.no_grad():
        density = density_1d(head, torch.ones(1, 3), grid)
    assert float(torch.trapezoid(density.double(), grid.double())) == pytest.approx(1, abs=2e-3)
    assert density.max() > 2 * density[(grid > -1) & (grid < 1)].mean()  # not flat: the test sees the parameters


def test_joint_density_integrates_to_one_and_marginalises_the_end_of_the_chunk() -> None:
    head = make_head(pred_steps=2, action_size=1, min_scale=0.1)
    axis = -12.5 + 0.05 * (torch.arange(500) + 0.5)  # cells that end at the bins' edges, where the density jumps
    first, second = torch.meshgrid(axis, axis, indexing="ij")
    chunks = torch.stack([first, second], -1).reshape(-1, 2, 1)
    features = torch.ones(1, 3)
    with torch.no_grad():
        pieces = [head.distribution(features.expand(len(c), -1)).log_prob(c) for c in chunks.split(100_000)]
        joint = torch.cat(pieces).exp().view(500, 500).double()
        only_first = torch.tensor([[True, False]]).expand(500, 2)
        ends = torch.full((500, 1), torch.nan)  # what is left out may hold anything
        marginal = head.distribution(features.expand(500, -1)).log_prob(
            torch.stack([axis[:, None], ends], 1), only_first
        )
    integrated = joint.sum(1) * 0.05
    np.testing.assert_allclose(integrated, marginal.exp(), atol=2e-3)
    assert float(integrated.sum() * 0.05) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("spacing", ["uniform", "quantile"])
def test_samples_match_the_density(spacing: str) -> None:
    head = make_head(3, spacing=spacing, min_scale=0.02)
    head.fit(torch.randn(500, 1, generator=torch.Generator().manual_seed(1)))
    count = 20_000
    noise = BatchNoise(count, "cpu", torch.Generator().manual_seed(0))
    samples = head.distribution(torch.ones(count, 3)).sample(noise).flatten()
    grid = torch.linspace(-40, 40, 400_001)
    with torch.no_grad():
        cdf = torch.cumulative_trapezoid(density_1d(head, torch.ones(1, 3), grid).double(), grid.double())
    uniform = np.interp(samples.numpy(), grid[1:].numpy(), cdf.numpy())
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("deterministic", [False, True])
def test_cached_generation_equals_the_parallel_pass(deterministic: bool) -> None:
    """Generate by asking the parallel network for one position at a time, and compare with the cached path."""
    head = make_head(5, pred_steps=3, action_size=2, num_bins=6)
    features = torch.randn(7, 3)
    uniform = torch.rand(7, head.length, 2, generator=torch.Generator().manual_seed(2))
    cached = head.distribution(features)._generate(None if deterministic else uniform)

    bins = torch.zeros(7, head.length, dtype=torch.long)
    offsets = torch.full((7, head.length), 0.5)
    with torch.no_grad():
        for i in range(head.length):
            logits, location, scale = head.teacher_forced(features, bins, offsets)[:, i].chunk(3, -1)
            location, scale = location.sigmoid(), 3 * scale.sigmoid() + head.config.min_scale / head.widths()[i]
            if deterministic:
                k = (logits.softmax(-1) / head.widths()[i]).argmax(-1)
                u = location[torch.arange(7), k]
            else:
                k = torch.searchsorted(
                    logits.softmax(-1).cumsum(-1), uniform[:, i, :1].contiguous(), right=True
                ).squeeze(-1)
                mu, s = location[torch.arange(7), k], scale[torch.arange(7), k]
                low = torch.where(k == 0, 0.0, torch.sigmoid(-mu / s))
                high = torch.where(k == 5, 1.0, torch.sigmoid((1 - mu) / s))
                u = mu + s * torch.logit(low + uniform[:, i, 1] * (high - low))
            bins[:, i], offsets[:, i] = k, u
    torch.testing.assert_close(cached, head.decode(bins, offsets), rtol=1e-5, atol=1e-5)


def test_likely_samples_are_peaks_in_the_proportions_of_the_likely_bins() -> None:
    head, count, min_p = make_head(21, sharp=1.0, min_scale=0.02), 20_000, 0.5
    logits, location, _ = head.distribution(torch.ones(1, 3))._parameters(*head.encode(torch.zeros(1, 1, 1)))
    shares = logits.detach()[0, 0].softmax(-1)
    kept = torch.where(shares < min_p * shares.max(), 0.0, shares)
    assert 2 <= int((kept > 0).sum()) < head.config.num_bins, "the test needs bins that are kept and bins that are not"
    noise = BatchNoise(count, "cpu", torch.Generator().manual_seed(0))
    bins, offsets = head.encode(head.distribution(torch.ones(count, 3)).sample_likely(noise, min_p))
    observed = bins.flatten().bincount(minlength=head.config.num_bins)
    assert (observed[kept == 0] == 0).all()
    expected = kept[kept > 0].double() / kept.double().sum() * count
    assert stats.chisquare(observed[kept > 0].numpy(), expected.numpy()).pvalue > 1e-3
    torch.testing.assert_close(offsets.flatten(), location.detach()[0, 0][bins.flatten()], rtol=1e-4, atol=1e-4)


def test_each_number_depends_on_all_before_it_and_on_none_after() -> None:
    head = make_head(pred_steps=2, action_size=3)
    bins, offsets = head.encode(torch.rand(1, 2, 3) * 2 - 1)
    offsets.requires_grad_()
    parameters = head.teacher_forced(torch.randn(1, 3), bins, offsets)
    for i in range(6):
        (grad,) = torch.autograd.grad(parameters[0, i].square().sum(), offsets, retain_graph=True)
        assert (grad[0, :i] != 0).all()
        assert (grad[0, i:] == 0).all()


@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4), st.integers(0, 3))
@settings(max_examples=60)
def test_encode_decode_keeps_every_value(values: list[float], seed: int) -> None:
    head = make_head(seed, pred_steps=2, action_size=2)
    actions = torch.tensor(values).view(1, 2, 2)
    bins, offsets = head.encode(actions)
    assert ((bins >= 0) & (bins < 5)).all()
    torch.testing.assert_close(head.decode(bins, offsets), actions, rtol=1e-5, atol=1e-5)


def test_saturated_actions_lie_inside_bins_and_are_learned() -> None:
    """Demonstrations by keyboard are exactly -1, 0 or 1: the density must find all three, and samples reach them."""
    head = make_head(sharp=1.0, num_bins=9, num_heads=2).train()
    actions = torch.tensor([-1.0, 0.0, 1.0]).repeat(40).view(-1, 1, 1)
    features, valid = torch.zeros(len(actions), 3), torch.ones(len(actions), 1, dtype=torch.bool)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(300):
        loss = head.loss(features, actions, valid)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    samples = head.act(torch.zeros(3000, 3), deterministic=False, noise=BatchNoise(3000, "cpu")).flatten()
    assert torch.isfinite(samples).all()
    nearest = samples.round().clamp(-1, 1)
    assert (samples - nearest).abs().quantile(0.9) < 0.05
    shares = torch.stack([(nearest == v).float().mean() for v in (-1.0, 0.0, 1.0)])
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.06, rtol=0)


def test_correlated_modes_are_kept_apart() -> None:
    """Two modes at (a, a) and (-a, -a): a factorised density would mix their dimensions."""
    torch.manual_seed(0)
    head = make_head(sharp=1.0, action_size=2, num_bins=8).train()
    sign = torch.randint(0, 2, (512, 1, 1)).float() * 2 - 1
    actions = 0.6 * sign.expand(-1, 1, 2) + 0.02 * torch.randn(512, 1, 2)
    features, valid = torch.zeros(512, 3), torch.ones(512, 1, dtype=torch.bool)
    optimiser = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(200):
        loss = head.loss(features, actions, valid)[0].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    samples = head.act(torch.zeros(1000, 3), deterministic=False, noise=BatchNoise(1000, "cpu"))[:, 0]
    assert (samples.prod(-1) > 0).float().mean() > 0.98
    assert 0.4 < (samples[:, 0] > 0).float().mean() < 0.6


def test_entropy_matches_a_monte_carlo_estimate() -> None:
    head = make_head(2, pred_steps=2, action_size=1, min_scale=0.05)
    distribution = head.distribution(torch.ones(4000, 3))
    noise = BatchNoise(4000, "cpu", torch.Generator().manual_seed(0))
    exact_terms = distribution.entropy(noise, samples=1)
    monte_carlo = -distribution.log_prob(distribution.sample(noise))
    tolerance = 4 * float(monte_carlo.detach().std()) / 60
    assert float(exact_terms.detach().mean()) == pytest.approx(float(monte_carlo.detach().mean()), abs=tolerance)


def test_entropy_gradient_matches_the_change_of_the_entropy() -> None:
    """Against finite differences of the entropy by quadrature, along one random direction of the output weights."""
    head = make_head(2, pred_steps=2, action_size=1, num_bins=3, min_scale=0.3, sharp=8.0)
    axis = -12.5 + 0.05 * (torch.arange(500) + 0.5)
    chunks = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2, 1)
    direction = torch.randn_like(head.out.bias)

    def entropy_at(shift: float) -> float:
        with torch.no_grad():
            head.out.bias += shift * direction
            log_prob = head.distribution(torch.ones(len(chunks), 3)).log_prob(chunks).double()
            head.out.bias -= shift * direction
        return float(-(log_prob.exp() * log_prob).sum() * 0.05**2)

    expected = (entropy_at(0.05) - entropy_at(-0.05)) / 0.1
    noise = BatchNoise(20_000, "cpu", torch.Generator().manual_seed(0))
    head.distribution(torch.ones(20_000, 3)).entropy(noise, samples=2).mean().backward()
    assert head.out.bias.grad is not None
    assert float(head.out.bias.grad @ direction) == pytest.approx(expected, rel=0.05, abs=0.01)


def test_padding_changes_nothing_even_when_it_is_not_a_number() -> None:
    head = make_head(pred_steps=3, action_size=2)
    features, valid = torch.randn(4, 3), torch.tensor([[True, True, False]]).expand(4, 3)
    actions = torch.rand(4, 3, 2)
    poisoned = actions.masked_fill(~valid.unsqueeze(-1), torch.nan)
    losses, _ = head.loss(features, actions, valid)
    poisoned_losses, _ = head.loss(features, poisoned, valid)
    torch.testing.assert_close(losses, poisoned_losses, rtol=0, atol=0)
    poisoned_losses.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


def test_a_learned_action_that_is_not_a_number_shows() -> None:
    head = make_head()
    actions = torch.tensor([[[0.3]], [[torch.nan]]])
    valid = torch.ones(2, 1, dtype=torch.bool)
    log_prob = head.distribution(torch.randn(2, 3)).log_prob(actions, valid)
    assert log_prob.isfinite().tolist() == [True, False]


def test_a_step_left_out_in_the_middle_is_conditioned_on() -> None:
    """log p(a0, a2 | a1) = log p(a0) + log p(a2 | a0, a1): the terms of the others, with a1 read as context."""
    head = make_head(pred_steps=3, action_size=1)
    actions, features = torch.rand(5, 3, 1) * 2 - 1, torch.randn(5, 3)

    def log_prob(chunk: torch.Tensor, *kept: bool) -> torch.Tensor:
        return head.distribution(features).log_prob(chunk, torch.tensor([kept]).expand(5, 3))

    whole, two, one = (log_prob(actions, *mask) for mask in ((True,) * 3, (True, True, False), (True, False, False)))
    torch.testing.assert_close(log_prob(actions, True, False, True), whole - two + one)
    other = actions.clone()
    other[:, 1] = -other[:, 1]
    assert (log_prob(other, True, False, True) - (whole - two + one)).abs().max() > 1e-3


def test_a_row_draws_the_same_whoever_shares_its_batch() -> None:
    head = make_head(pred_steps=2, action_size=2)
    features = torch.randn(3, 3)
    generators = lambda: [torch.Generator().manual_seed(i) for i in range(3)]  # noqa: E731
    together = head.act(features, deterministic=False, noise=RowNoise(generators(), "cpu"))
    alone = head.act(features[1:2], deterministic=False, noise=RowNoise(generators()[1:2], "cpu"))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


def test_quantile_edges_hold_equal_shares_and_survive_atoms() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    shares = torch.histogram(values, quantile_edges(values, 10)).hist / len(values)
    torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=5e-3, rtol=0)
    atoms = torch.cat([torch.full((900,), 1.0), torch.full((900,), -1.0), torch.linspace(-0.5, 0.5, 200)])
    edges = quantile_edges(atoms, 12)
    assert len(edges) == 13
    assert (edges.diff() > 0).all()
    torch.testing.assert_close(quantile_edges(torch.zeros(50), 8), uniform_edges(8))


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ConfigError, match="num_bins must be at least 2"):
        AutoregressiveHeadConfig(num_bins=1)
    with pytest.raises(ConfigError, match=r"use head.spacing quantile, or action_normalisation min_max"):
        PolicyConfig(head=AutoregressiveHeadConfig(), action_normalisation="mean_std")
    PolicyConfig(head=AutoregressiveHeadConfig(spacing="quantile"), action_normalisation="mean_std")
    with pytest.raises(ConfigError, match="multiple of num_heads, received 10 and 4"):
        make_head(width=10, num_heads=4)


def test_log_prob_against_scipy_on_one_bin() -> None:
    """The density inside an inner bin is scipy's logistic, truncated by its distribution function."""
    head = make_head(num_bins=4)
    logits, location, scale = (
        head.teacher_forced(torch.ones(1, 3), torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1))[0, 0]
        .detach()
        .double()
        .chunk(3)
    )
    k, u = 2, 0.3
    low, width = float(head.edges[0, k]), float(head.edges[0, k + 1] - head.edges[0, k])
    frozen = stats.logistic(float(location[k].sigmoid()), 3 * float(scale[k].sigmoid()) + 1e-3 / width)
    expected = F.log_softmax(logits, -1)[k] + np.log(frozen.pdf(u) / (frozen.cdf(1) - frozen.cdf(0)) / width)
    with torch.no_grad():
        received = head.distribution(torch.ones(1, 3)).log_prob(torch.tensor([[[low + u * width]]]))
    assert float(received) == pytest.approx(float(expected), abs=1e-4)


def test_context_noise_blurs_what_earlier_numbers_say_and_only_while_training() -> None:
    """The second number copies the first: a noisy context makes that copy less sharp, and acting keeps none of it."""
    actions, valid = torch.rand(64, 2, 1) * 0.5, torch.ones(64, 2, dtype=torch.bool)
    losses = {}
    for noise in (0.0, 0.5):
        head = make_head(pred_steps=2, context_noise=noise).train()
        torch.manual_seed(0)
        losses[noise] = head.loss(torch.zeros(64, 3), actions, valid)[0]
        torch.testing.assert_close(
            head.eval().loss(torch.zeros(64, 3), actions, valid)[0],
            -head.distribution(torch.zeros(64, 3)).log_prob(actions) / 2,
        )
    assert (losses[0.0] - losses[0.5]).abs().max() > 1e-3


@pytest.mark.parametrize("grad", [True, False])
def test_samples_and_densities_can_be_traced_as_one_graph(grad: bool) -> None:
    """What `compile true` of PPO asks for; without a compiler behind it, which would change the numbers' last bits."""
    head, features = make_head(pred_steps=1, action_size=2, min_scale=0.1), torch.randn(4, 3)

    def decide(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distribution = head.distribution(features)
        actions = distribution.sample(BatchNoise(len(features), "cpu"))
        return actions, distribution.log_prob(actions)

    found = []
    for run in (decide, torch.compile(decide, fullgraph=True, backend="eager")):
        torch.manual_seed(0)
        with torch.set_grad_enabled(grad):
            found.append(run(features))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.isfinite().all()
    assert [tensor.requires_grad for tensor in found[1]] == [False, grad]
