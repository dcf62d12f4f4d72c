"""Images to features: ResNet-18 with group normalisation and spatial softmax, augmented on the device.

Uint8 images come in as they are stored, (M, H, W, C). While training they are cropped and recoloured at random, each
image for itself; when acting the crop is central and colours stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import VisionConfig
from robolearn.errors import PolicyError
from robolearn.specs import ArraySpec

CHANNELS = (64, 128, 256, 512)
CHANNELS_PER_GROUP = 16
STRIDE = 32
"""Pixels per cell of the last feature map."""


class ImageEncoder(nn.Module):
    """(M, H, W, C) uint8 -> (M, output_size) float32, one camera."""

    def __init__(self, trunk: nn.Module, config: VisionConfig, spec: ArraySpec, *, owns_trunk: bool = True) -> None:
        """
        Args:
            owns_trunk: whether the trunk's weights are saved with this camera; of cameras that share one, only the
                first owns it.
        """
        super().__init__()
        height, width, _ = spec.shape
        self.crop = (round(height * config.crop), round(width * config.crop))
        self.jitter = config.jitter
        self.output_size = config.features
        if owns_trunk:
            self.trunk = trunk
        self._trunk = [trunk]  # in a list, so that it is not registered a second time

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2)  # the memory stays as it is: channels last, which convolutions prefer
        x = random_crop(x, self.crop) if self.training else center_crop(x, self.crop)
        x = x.float() / 255.0
        if self.training and self.jitter:
            x = color_jitter(x, self.jitter)
        return self._trunk[0](2.0 * x - 1.0)


class ResNet18(nn.Module):
    """He et al. 2016, group instead of batch normalisation, keypoints instead of pooling: (M, C, H, W) -> (M, D)."""

    def __init__(self, config: VisionConfig, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, CHANNELS[0], 7, stride=2, padding=3, bias=False)
        self.stem_norm = _norm(CHANNELS[0])
        sizes = (CHANNELS[0], *CHANNELS)
        blocks = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            blocks += [BasicBlock(inputs, outputs, stride=1 if i == 0 else 2), BasicBlock(outputs, outputs, stride=1)]
        self.blocks = nn.Sequential(*blocks)
        self.keypoints = SpatialSoftmax(CHANNELS[-1], config.keypoints)
        self.out = nn.Linear(2 * config.keypoints, config.features)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(x))), 3, stride=2, padding=1)
        return self.out(self.keypoints(self.blocks(x)).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = _norm(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = _norm(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), _norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(out)) + self.skip(x))


class SpatialSoftmax(nn.Module):
    """Mean position of each of K maps' attention (Finn et al. 2016): (M, C, H, W) -> (M, K, 2), x and y in [-1, 1]."""

    def __init__(self, channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, num_keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        height, width = maps.shape[-2:]
        attention = maps.flatten(2).float().softmax(-1).unflatten(-1, (height, width))
        xs, ys = (torch.linspace(-1, 1, n, device=x.device) for n in (width, height))
        return torch.stack([(attention.sum(2) * xs).sum(-1), (attention.sum(3) * ys).sum(-1)], -1)


def build_image_encoders(specs: Mapping[str, ArraySpec], config: VisionConfig) -> dict[str, nn.Module]:
    """Return one encoder per camera; with `config.share`, all run one network.

    Raises PolicyError where an image is too small, or where cameras that are to share differ in their channels.
    """
    for key, spec in specs.items():
        if min(spec.shape[:2]) * config.crop <= STRIDE:
            raise PolicyError(
                f"image {key!r} of {spec.shape[0]} x {spec.shape[1]} pixels is too small: after the crop by "
                f"{config.crop} it must exceed {STRIDE} pixels; record larger images"
            )
    channels = {key: spec.shape[2] for key, spec in specs.items()}
    if config.share and len(set(channels.values())) > 1:
        raise PolicyError(f"cameras that share a network need the same channels, received {channels}; set share false")
    encoders: dict[str, nn.Module] = {}
    trunk: nn.Module | None = None
    for key, spec in specs.items():
        owns = trunk is None or not config.share
        if owns:
            trunk = ResNet18(config, channels[key])
        assert trunk is not None
        encoders[key] = ImageEncoder(trunk, config, spec, owns_trunk=owns)
    return encoders


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the middle out: (M, C, H, W) -> (M, C, h, w)."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size))
    return x[..., top : top + size[0], left : left + size[1]]


def random_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut each image at a random place of its own: (M, C, H, W) -> (M, C, h, w)."""
    M, _, height, width = x.shape
    rows = _random_starts(M, height - size[0], x.device) + torch.arange(size[0], device=x.device)
    columns = _random_starts(M, width - size[1], x.device) + torch.arange(size[1], device=x.device)
    last = x.permute(0, 2, 3, 1)  # indexing channels-last memory keeps it so
    index = torch.arange(M, device=x.device).view(-1, 1, 1)
    return last[index, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def color_jitter(x: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast and (for three channels) saturation at random, by factors of 1 +- strength.

    (M, C, H, W) in [0, 1] -> the same, clipped.
    """

    def factor() -> Tensor:
        return 1.0 + strength * (2.0 * torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) - 1.0)

    x = x * factor()
    x = torch.lerp(x.mean((1, 2, 3), keepdim=True).expand_as(x), x, factor())
    if x.shape[1] == 3:
        x = torch.lerp(x.mean(1, keepdim=True).expand_as(x), x, factor())
    return x.clamp(0.0, 1.0)


def _random_starts(count: int, slack: int, device: torch.device) -> Tensor:
    return torch.randint(slack + 1, (count, 1), device=device)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)
