"""From raw observations to features: one encoder per key, concatenated, or tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robolearn.policies.normaliser import Normaliser


class LowDimEncoder(nn.Module):
    """Normalises a state vector: (M, ...) of any numeric dtype -> (M, output_size) float32."""

    def __init__(
        self, normaliser: Normaliser, *, seen: slice = slice(None), clip: float = 0.0, fine: float = 0.0
    ) -> None:
        """
        Args:
            seen: dimensions that the policy looks at.
            clip: bound on the normalised values; 0 for none.
            fine: where not 0, values are shown a second time, logarithmically around their zero, from this share of
                the data's scale on: sign(x) log(1 + |x| / fine) / log(1 + 1 / fine), with x in units of that scale
                (as DreamerV3's symlog, Hafner et al. 2023). That tells millimetres apart in what spans a metre.
        """
        super().__init__()
        self.normaliser, self.seen, self.clip, self.fine = normaliser, seen, clip, fine
        self.output_size = len(range(normaliser.offset.numel())[seen]) * (2 if fine else 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1).flatten(1).float()  # a single number is a vector of one
        values = self.normaliser.normalise(x)[:, self.seen]
        if self.fine:
            from_zero = (x / self.normaliser.scale)[:, self.seen]
            logarithms = from_zero.sign() * (from_zero.abs() / self.fine).log1p() / math.log1p(1.0 / self.fine)
            values = torch.cat((values, logarithms), -1)
        return values.clamp(-self.clip, self.clip) if self.clip else values


class ObservationEncoder(nn.Module):
    """Dictionary of (B, To, ...) observations -> (B, To, E), the keys' features side by side in the policy's order."""

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        """
        Args:
            encoders: one module per key, raw (M, ...) -> (M, output_size), which it has as an attribute.
        """
        super().__init__()
        self.keys = tuple(encoders)
        self.encoders = nn.ModuleDict({module_name(key): encoder for key, encoder in encoders.items()})
        self.output_size = sum(int(encoder.output_size) for encoder in encoders.values())  # type: ignore[arg-type]

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        B, To = obs[self.keys[0]].shape[:2]
        parts = [encoder(obs[key].flatten(0, 1)) for key, encoder in zip(self.keys, self.encoders.values())]
        features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return features.view(B, To, -1)


class TokenEncoder(ObservationEncoder):
    """Dictionary of (B, To, ...) observations -> (B, To, N, E): a camera's tokens, and one token of any other key."""

    def __init__(self, encoders: Mapping[str, nn.Module], size: int) -> None:
        """
        Args:
            encoders: as above; cameras' map to (M, n, size).
            size: E.
        """
        super().__init__(encoders)
        self.output_size = size
        vectors = {key: module for key, module in encoders.items() if isinstance(module, LowDimEncoder)}
        self.embed = nn.ModuleDict({module_name(k): nn.Linear(m.output_size, size) for k, m in vectors.items()})
        self.kinds = nn.Parameter(0.02 * torch.randn(len(encoders), size))
        """Which key a token is of."""

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        B, To = obs[self.keys[0]].shape[:2]
        tokens = []
        for key, kind, (name, encoder) in zip(self.keys, self.kinds, self.encoders.items()):
            x = encoder(obs[key].flatten(0, 1))
            tokens.append((self.embed[name](x).unsqueeze(1) if name in self.embed else x) + kind)
        return torch.cat(tokens, 1).unflatten(0, (B, To))


def module_name(key: str) -> str:
    """Return an observation key as the name of a sub-module: unique, without dots, no attribute of `nn.Module`."""
    return "obs:" + key.replace("%", "%25").replace(".", "%2E")
