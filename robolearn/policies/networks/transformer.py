"""Pre-norm transformer blocks: self-attention with an optional key-value cache, cross-attention and adaptive norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.errors import ConfigError


def check_heads(width: int, num_heads: int) -> None:
    """Raises ConfigError unless `width` splits evenly into heads."""
    if width < 1 or num_heads < 1 or width % num_heads:
        raise ConfigError(f"width must be a positive multiple of num_heads, received {width} and {num_heads}")


class KeyValueCache:
    """Keys and values of the steps seen so far, so that a causal block computes each step once."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, L, d) along L; returns everything so far."""
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], 2)
        self.values = values if self.values is None else torch.cat([self.values, values], 2)
        return self.keys, self.values


class Attention(nn.Module):
    """Multi-head attention from x (B, L, width) to itself or to a memory (B, M, width)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        check_heads(width, num_heads)
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        causal: bool = False,
        together: int = 1,
        cache: KeyValueCache | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            causal: position i sees positions up to i only.
            together: with `causal`, that many positions in a row are one step and see each other.
            cache: with `causal`, x holds the positions that follow those in the cache.
            keep: (B, M) bool, memory (or x) positions that may be looked at.
        """
        query = self._split(self.query(x))
        keys, values = map(self._split, self.key_value(x if memory is None else memory).chunk(2, -1))
        if cache is not None:
            keys, values = cache.extend(keys, values)
        mask = None if keep is None else keep[:, None, None, :]
        L, M = query.shape[2], keys.shape[2]
        if causal and together < L:  # one step sees all there is
            steps = torch.arange(M, device=x.device) // together
            mask = steps <= steps[M - L :, None]
        attend = _attend_from_one if L == 1 else F.scaled_dot_product_attention
        out = attend(query, keys, values, attn_mask=mask)
        return self.out(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) -> (B, H, L, width / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _attend_from_one(query: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
    """Attend as `scaled_dot_product_attention` does, from a single position: (B, H, 1, d) -> (B, H, 1, d).

    On processors a product of a matrix and one vector rounds by where its memory lies, so that a row's bits would
    depend on its place in the batch; these sums do not.
    """
    scores = (query * keys).sum(-1) * query.shape[-1] ** -0.5  # (B, H, M)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask[..., 0, :], -torch.inf)
    return (scores.softmax(-1).unsqueeze(-1) * values).sum(-2, keepdim=True)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then (with a memory) x + cross-attention, then x + MLP(norm(x))."""

    def __init__(self, width: int, num_heads: int, *, dropout: float = 0.0, cross_attention: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.cross_norm = nn.LayerNorm(width) if cross_attention else None
        self.cross = Attention(width, num_heads) if cross_attention else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        together: int = 1,
        cache: KeyValueCache | None = None,
        memory: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """(B, L, width) -> (B, L, width); `memory` (B, M, width) where the block has cross-attention."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, causal=causal, together=together, cache=cache, keep=keep))
        if self.cross is not None and self.cross_norm is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), memory))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class ModulatedBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition.

    The gates start at zero, so that the block starts as the identity (adaLN-Zero, Peebles and Xie 2023).
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (B, L, width), modulation (B, 6 * width), from `self.modulation` of an activated condition."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unsqueeze(1).chunk(6, -1)
        x = x + gate1 * self.dropout(self.attention(self.attention_norm(x) * (1 + scale1) + shift1))
        return x + gate2 * self.dropout(self.mlp(self.mlp_norm(x) * (1 + scale2) + shift2))
