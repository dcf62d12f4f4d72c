"""A policy made ready to act with low latency on a CPU, one robot at a time.

At batch one the time goes into reading weights. Large matrices are kept in bfloat16 where this machine multiplies it
faster than float32, and the U-Net is rearranged (`unet_inference`). Activations stay in float32, so that
actions move by about the rounding of the weights (a few thousandths); training, evaluation and PPO keep the exact
policy.
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.deploy.unet_inference import UNetInference
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.networks.unet1d import UNet1d
from robolearn.policies.policy import Policy
from robolearn.policies.residual import ResidualPolicy
from robolearn.policies.steered import SteeredPolicy

LARGE = 2**16
"""Weights from which on a matrix is worth reading in half the bytes."""


class CompactLinear(nn.Module):
    """`nn.Linear` with weights in bfloat16; float32 in and out."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.bfloat16(), self.weight, self.bias).float()


def accelerate(policy: Policy, *, dtype: torch.dtype | None = None) -> Policy:
    """Return a copy of the policy for acting only; it can be neither trained nor saved.

    Args:
        dtype: of large weights; None takes the faster of float32 and bfloat16, measured here and now.
    """
    dtype = dtype or faster_dtype()
    if isinstance(policy, ResidualPolicy | SteeredPolicy):
        beside = copy.deepcopy(policy.learning_part).eval().requires_grad_(False)  # small, and exact
        return type(policy)(accelerate(policy.base, dtype=dtype), beside)  # pyright: ignore[reportArgumentType]
    fast = copy.deepcopy(policy).eval().requires_grad_(False)
    if dtype != torch.bfloat16:
        return fast
    if isinstance(fast.head, ChainHead):
        for name in ("network", "early_network"):
            if isinstance(network := getattr(fast.head, name), UNet1d):
                setattr(fast.head, name, UNetInference(network, dtype))
    _compact(fast)
    return fast


def faster_dtype(repeats: int = 10) -> torch.dtype:
    """Measure whether float32 or bfloat16 multiplies a few rows by a large matrix faster here; return that one."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows, matrix = torch.ones(16, 2560, dtype=dtype), torch.ones(1024, 2560, dtype=dtype)
        times = []
        with torch.inference_mode():
            for _ in range(repeats):
                began = time.perf_counter()
                F.linear(rows, matrix)
                times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return min(seconds, key=lambda dtype: seconds[dtype])


def _compact(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.weight.numel() >= LARGE:
            setattr(module, name, CompactLinear(child))
        else:
            _compact(child)
