"""The 1-D U-Net for acting: the same function as `UNet1d`, arranged for a small batch on a CPU.

With one chunk of 16 steps every weight is used for 4 to 16 rows, so that reading the weights is the work. They are
kept in bfloat16 (half the bytes) as plain matrices; activations, norms and FiLM stay in float32. Convolutions become
products of those matrices with windows of steps, laid out so that a window is one contiguous piece:

    x (L, C) padded    |x0 x1 x2 x3 x4|x5 ...     row l of the windows begins at step l: stride C, length k * C
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.policies.networks.unet1d import ConvBlock, ResidualBlock, UNet1d, UNetLevels


class WindowLinear(nn.Module):
    """A convolution over steps: (B, L, C) -> (B, L', C')."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype) -> None:
        super().__init__()
        assert conv.bias is not None
        self.size, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        self.register_buffer("weight", conv.weight.detach().transpose(1, 2).flatten(1).to(dtype))
        self.register_buffer("bias", conv.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        windows = _windows(x.to(self.weight.dtype), self.size, self.stride, self.padding)
        return F.linear(windows, self.weight, self.bias).float()


class UpsampleLinear(nn.Module):
    """The transposed convolution with 4 taps and stride 2: (B, L, C) -> (B, 2L, C').

    Output steps 2i and 2i + 1 see the input steps i - 1, i and i, i + 1, so both come from pairs of neighbours.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.ConvTranspose1d, dtype: torch.dtype) -> None:
        super().__init__()
        assert conv.bias is not None
        assert (conv.kernel_size, conv.stride, conv.padding) == ((4,), (2,), (1,))
        taps = conv.weight.detach().permute(2, 1, 0)  # (4, C', C)
        even, odd = torch.cat([taps[3], taps[1]], 1), torch.cat([taps[2], taps[0]], 1)
        self.register_buffer("weight", torch.cat([even, odd]).to(dtype))
        self.register_buffer("bias", conv.bias.detach().repeat(2).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        pairs = _windows(x.to(self.weight.dtype), 2, 1, 1)
        even, odd = F.linear(pairs, self.weight, self.bias).float().chunk(2, -1)
        return torch.stack([even[:, :-1], odd[:, 1:]], 2).flatten(1, 2)


class _Block(nn.Module):
    """`ConvBlock` on (B, L, C)."""

    def __init__(self, block: ConvBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv, self.norm = WindowLinear(block.conv, dtype), block.norm

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.norm(self.conv(x).transpose(1, 2)).transpose(1, 2))


class _Residual(nn.Module):
    """`ResidualBlock` on (B, L, C)."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.second = _Block(block.first, dtype), _Block(block.second, dtype)
        self.skip = WindowLinear(block.skip, dtype) if isinstance(block.skip, nn.Conv1d) else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        scale, shift = film.unsqueeze(1).chunk(2, -1)
        return self.second(torch.addcmul(shift, scale, self.first(x))) + self.skip(x)


class UNetInference(UNetLevels):
    """Drop-in for a trained `UNet1d`, for acting only."""

    channels_dim = 2

    def __init__(self, network: UNet1d, dtype: torch.dtype) -> None:
        super().__init__()
        self.time, self.film = network.time, network.film
        self.multiple, self.film_sizes = network.multiple, network.film_sizes
        self.down = nn.ModuleList(_residuals(pair, dtype) for pair in network.down)
        self.shrink = nn.ModuleList(WindowLinear(conv, dtype) for conv in network.shrink)  # type: ignore[arg-type]
        self.middle = _residuals(network.middle, dtype)
        self.up = nn.ModuleList(_residuals(pair, dtype) for pair in network.up)
        self.grow = nn.ModuleList(UpsampleLinear(conv, dtype) for conv in network.grow)  # type: ignore[arg-type]
        self.last = _Block(network.last, dtype)  # type: ignore[arg-type]
        self.out = WindowLinear(network.out, torch.float32)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        steps = x.shape[1]
        padded = F.pad(x, (0, 0, 0, -steps % self.multiple))
        return self.through_levels(padded, condition)[:, :steps]


def _windows(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Return what each output step sees, (B, L, C) -> (B, L', size * C)."""
    if size == 1 and stride == 1:
        return x
    x = F.pad(x, (0, 0, padding, padding))
    B, L, C = x.shape
    count = (L - size) // stride + 1
    return x.as_strided((B, count, size * C), (L * C, stride * C, 1)).contiguous()


def _residuals(pair: nn.Module, dtype: torch.dtype) -> nn.ModuleList:
    return nn.ModuleList(_Residual(block, dtype) for block in pair)  # type: ignore[not-iterable]
