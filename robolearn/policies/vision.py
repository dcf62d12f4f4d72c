"""Images to features: convolutions with group normalisation and spatial softmax, augmented on the device.

Uint8 images come in as they are stored, (M, H, W, C). While training they are cropped and recoloured at random, each
image for itself; when acting the crop is central and colours stay. Keypoints are told in coordinates of the whole
image, so that where a thing is seen does not depend on the crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import VisionConfig
from robolearn.errors import PolicyError
from robolearn.specs import ArraySpec

CHANNELS = (64, 128, 256, 512)
"""Of ResNet-18's four stages."""
SHALLOW_CHANNELS = (32, 32, 32, 32)
CHANNELS_PER_GROUP = 16


@dataclass(frozen=True)
class Convolutions:
    """How a network's convolutions are made, and what comes out."""

    build: Callable[[int], nn.Module]
    channels: int
    stride: int
    """Pixels per cell of the last feature map."""


class ImageEncoder(nn.Module):
    """(M, H, W, C) uint8 -> (M, output_size) float32, or tokens (M, N, output_size); one camera."""

    size: Tensor
    """(2,) rows and columns of the image."""
    middle: Tensor
    """(1, 2) first row and column of the central crop."""

    def __init__(self, trunk: Trunk, config: VisionConfig, spec: ArraySpec, *, owns_trunk: bool = True) -> None:
        """
        Args:
            owns_trunk: whether the trunk's weights are saved with this camera; of cameras that share one, only the
                first owns it.
        """
        super().__init__()
        height, width, _ = spec.shape
        self.crop = (round(height * config.crop), round(width * config.crop))
        # On the device from the start, so that no image waits for numbers from the host.
        self.register_buffer("size", torch.tensor([height, width], dtype=torch.float32), persistent=False)
        middle = [[(height - self.crop[0]) // 2, (width - self.crop[1]) // 2]]
        self.register_buffer("middle", torch.tensor(middle), persistent=False)
        self.jitter = config.jitter
        self.output_size = config.features
        if owns_trunk:
            self.trunk = trunk
        self._trunk = [trunk]  # in a list, so that it is not registered a second time

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2)  # the memory stays as it is: channels last, which convolutions prefer
        x, corners = random_crop(x, self.crop) if self.training else (center_crop(x, self.crop), self.middle)
        x = x.float() / 255.0
        if self.training and self.jitter:
            x = color_jitter(x, self.jitter)

        def in_image(rows_columns: Tensor) -> Tensor:
            """Pixels of the crop (M, K, 2) -> coordinates of the whole image, in [-1, 1]."""
            return 2.0 * (rows_columns + corners.unsqueeze(1)) / self.size - 1.0

        return self._trunk[0](2.0 * x - 1.0, in_image)


InImage = Callable[[Tensor], Tensor]
"""Pixels of crops to coordinates of the whole images."""


class Trunk(nn.Module):
    """Convolutions, and what is made of their maps."""

    def __init__(self, network: Convolutions, channels: int) -> None:
        """
        Args:
            channels: of the image.
        """
        super().__init__()
        self.stride, self.maps = network.stride, network.build(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def centres(self, maps: Tensor) -> Tensor:
        """Return rows and columns in pixels (h * w, 2) of the maps' cells: cell i is centred on pixel i * stride."""
        rows, columns = (self.stride * torch.arange(n, device=maps.device) for n in maps.shape[-2:])
        return torch.cartesian_prod(rows, columns).to(maps.dtype)


class KeypointTrunk(Trunk):
    """Says where K things are: images (M, C, H, W) in [-1, 1] -> features (M, D) of their places."""

    def __init__(self, network: Convolutions, channels: int, config: VisionConfig) -> None:
        super().__init__(network, channels)
        self.softmax = SpatialSoftmax(network.channels, config.keypoints)
        self.out = nn.Linear(2 * config.keypoints, config.features)

    def forward(self, x: Tensor, in_image: InImage) -> Tensor:
        maps = self.maps(x)
        last = self.centres(maps)[-1]
        return self.out(in_image(0.5 * (self.softmax(maps).flip(2) + 1.0) * last).flatten(1))


class TokenTrunk(Trunk):
    """Makes tokens of the maps' cells, averaged to n x n: images (M, C, H, W) in [-1, 1] -> (M, n * n, D).

    A token's position is where its cell lies in the whole image, so that random crops do not move what it means.
    """

    def __init__(self, network: Convolutions, channels: int, config: VisionConfig) -> None:
        super().__init__(network, channels)
        self.side = config.tokens
        self.content = nn.Linear(network.channels, config.features)
        self.place = nn.Sequential(
            nn.Linear(2, config.features), nn.GELU(), nn.Linear(config.features, config.features)
        )

    def forward(self, x: Tensor, in_image: InImage) -> Tensor:
        maps = self.maps(x)
        centres = self.centres(maps).T.view(1, 2, *maps.shape[-2:])
        cells, centres = (F.adaptive_avg_pool2d(m, self.side).flatten(2).transpose(1, 2) for m in (maps, centres))
        return self.content(cells) + self.place(in_image(centres))


def resnet18(channels: int) -> nn.Sequential:
    """Return He et al.'s of 2016, with group instead of batch normalisation: (M, C, H, W) -> (M, 512, h, w)."""
    stem = nn.Conv2d(channels, CHANNELS[0], 7, stride=2, padding=3, bias=False)
    blocks: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise((CHANNELS[0], *CHANNELS))):
        blocks += [BasicBlock(inputs, outputs, stride=1 if i == 0 else 2), BasicBlock(outputs, outputs, stride=1)]
    return nn.Sequential(stem, _norm(CHANNELS[0]), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1), *blocks)


def shallow(channels: int) -> nn.Sequential:
    """Return four convolutions, (M, C, H, W) -> (M, 32, h, w), in the manner of Levine et al. 2016 (End-to-end training
    of deep visuomotor policies): the map stays fine enough to say where things are.

    The first convolution is coarse (7x7, stride 4), because large maps cost most.
    """
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise((channels, *SHALLOW_CHANNELS))):
        size, stride = (7, 4) if i == 0 else (3, 1)
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        layers += [convolution, _norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


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


NETWORKS = {
    "resnet18": Convolutions(resnet18, CHANNELS[-1], stride=32),
    "shallow": Convolutions(shallow, SHALLOW_CHANNELS[-1], stride=4),
}


def build_image_encoders(specs: Mapping[str, ArraySpec], config: VisionConfig) -> dict[str, nn.Module]:
    """Return one encoder per camera; with `config.share`, all run one network.

    Raises PolicyError where an image is too small, or where cameras that are to share differ in their channels.
    """
    network = NETWORKS[config.network]
    for key, spec in specs.items():
        if min(spec.shape[:2]) * config.crop <= network.stride:
            raise PolicyError(
                f"image {key!r} of {spec.shape[0]} x {spec.shape[1]} pixels is too small: after the crop by "
                f"{config.crop} it must exceed {network.stride} pixels; record larger images"
            )
        cells = math.ceil(min(spec.shape[:2]) * config.crop / network.stride)
        if config.tokens > cells:
            raise PolicyError(
                f"vision.tokens asks for {config.tokens} tokens along a side, but {config.network} makes {cells} of "
                f"image {key!r}"
            )
    channels = {key: spec.shape[2] for key, spec in specs.items()}
    if config.share and len(set(channels.values())) > 1:
        raise PolicyError(f"cameras that share a network need the same channels, received {channels}; set share false")
    encoders: dict[str, nn.Module] = {}
    trunk: Trunk | None = None
    for key, spec in specs.items():
        owns = trunk is None or not config.share
        if owns:
            trunk = (TokenTrunk if config.tokens else KeypointTrunk)(network, channels[key], config)
        assert trunk is not None
        encoders[key] = ImageEncoder(trunk, config, spec, owns_trunk=owns)
    return encoders


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the middle out: (M, C, H, W) -> (M, C, h, w)."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size))
    return x[..., top : top + size[0], left : left + size[1]]


def random_crop(x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cut each image at a random place of its own: (M, C, H, W) -> (M, C, h, w), and first rows and columns, (M, 2)."""
    M, _, height, width = x.shape
    top, left = (_random_starts(M, have - want, x.device) for have, want in zip((height, width), size))
    rows, columns = top + torch.arange(size[0], device=x.device), left + torch.arange(size[1], device=x.device)
    last = x.permute(0, 2, 3, 1)  # indexing channels-last memory keeps it so
    index = torch.arange(M, device=x.device).view(-1, 1, 1)
    return last[index, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2), torch.cat((top, left), 1)


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
