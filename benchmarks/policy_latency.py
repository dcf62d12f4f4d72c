"""Latency per action chunk at batch one, and a control loop at 20 Hz with a slow policy.

    python -m benchmarks.policy_latency [--repeats 100] [--seconds 300] [--threads 2]
    python -m benchmarks.policy_latency --device cuda                  # the heads alone: no control loop

Every head has the size its paper or robomimic published. The peer is the same network with the same weights, called
eagerly in float32 through diffusers' scheduler step by step, measured in turns with ours. The floor is the larger of
the network's weight bytes over measured memory bandwidth and its arithmetic over the measured rate of the same type.

Writes benchmarks/results/policy_latency.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._report import Row, write
from robolearn.configuration.parts.policy import (
    ACTHeadConfig,
    AutoregressiveHeadConfig,
    BackboneConfig,
    DenoisingTransformerConfig,
    DeterministicHeadConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    HeadConfig,
    LSTMConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
    TransformerConfig,
    UNetConfig,
)
from robolearn.deploy.inference import accelerate, faster_dtype
from robolearn.deploy.realtime import RealtimeRunner, control_loop
from robolearn.policies.build import build_policy
from robolearn.policies.heads.diffusion import DiffusionHead
from robolearn.policies.networks.unet1d import UNet1d
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

OBSERVATION = ObservationSpec({"state": ArraySpec(shape=(23,))})
ACTION = ActionSpec(low=(-1.0,) * 7, high=(1.0,) * 7)
UNET = "diffusion, U-Net 256-512-1024, 10 DDIM steps"
SLOW = "diffusion, U-Net 256-512-1024, 10 DDIM steps, chunk 32"
CONTROL_HZ = 20.0

CASES: dict[str, tuple[HeadConfig, BackboneConfig, int, int]] = {
    # head, backbone, To, Tp
    "deterministic, MLP 2x1024": (DeterministicHeadConfig(), MLPConfig(), 1, 1),
    "gaussian, MLP 2x1024": (GaussianHeadConfig(), MLPConfig(), 1, 1),
    "mixture, MLP 2x1024": (MixtureHeadConfig(), MLPConfig(), 1, 1),
    "mixture, LSTM 2x400": (MixtureHeadConfig(), LSTMConfig(), 10, 1),
    "mixture, transformer 6x512": (MixtureHeadConfig(), TransformerConfig(), 10, 1),
    "autoregressive, MLP 2x1024, chunk 4": (AutoregressiveHeadConfig(), MLPConfig(), 1, 4),
    UNET: (DiffusionHeadConfig(network=UNetConfig()), MLPConfig(hidden_sizes=(256,)), 2, 16),
    SLOW: (DiffusionHeadConfig(network=UNetConfig()), MLPConfig(hidden_sizes=(256,)), 2, 32),
    "diffusion, transformer 8x256, 10 DDIM steps": (
        DiffusionHeadConfig(network=DenoisingTransformerConfig()),
        MLPConfig(hidden_sizes=(256,)),
        2,
        16,
    ),
    "flow, U-Net 256-512-1024, 10 steps": (FlowHeadConfig(network=UNetConfig()), MLPConfig(hidden_sizes=(256,)), 2, 16),
    "ACT 4+7x512, chunk 100": (ACTHeadConfig(), MLPConfig(hidden_sizes=(512,)), 1, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--cases", default="", help="beginnings of cases beside the U-Net, comma-separated; empty for all"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    rows = unet_rows(args.repeats, args.device)
    for case in CASES:
        if case != UNET and case.startswith(tuple(args.cases.split(","))):
            rows += head_rows(case, args.repeats, args.device)
    if args.device == "cpu" and args.seconds:
        rows += realtime_rows(args.seconds, args.threads)
    write("policy_latency", rows, seconds=time.perf_counter() - start, speed=True)


def make_policy(case: str, device: str = "cpu") -> Policy:
    torch.manual_seed(0)
    head, backbone, obs_steps, pred_steps = CASES[case]
    config = PolicyConfig(
        head=head,
        backbone=backbone,
        obs_steps=obs_steps,
        pred_steps=pred_steps,
        exec_steps=max(pred_steps // 2, 1),
    )
    return build_policy(config, OBSERVATION, ACTION).to(device).eval()


def shipped(policy: Policy, device: str) -> Policy:
    """Return the policy as it drives a robot: on a processor made ready for it, on a GPU as it is."""
    return accelerate(policy) if device == "cpu" else policy


def head_rows(case: str, repeats: int, device: str) -> list[Row]:
    """p50 and p99 of the shipped path."""
    policy = shipped(make_policy(case, device), device)
    obs = {"state": torch.randn(1, policy.config.obs_steps, 23, device=device)}
    (times,) = in_turns([lambda: policy.act(obs)], repeats)
    return latency_rows(case, times)


def unet_rows(repeats: int, device: str) -> list[Row]:
    """The shipped path against diffusers step by step, and against the floor."""
    policy = make_policy(UNET, device)
    fast = shipped(policy, device)
    obs = {"state": torch.randn(1, 2, 23, device=device)}
    assert (policy.act(obs, deterministic=True) - fast.act(obs, deterministic=True)).abs().max() < 0.05
    eager = eager_diffusers(policy, obs)
    dtype = faster_dtype() if device == "cpu" else torch.float32
    floor_s, floor_name = floor(policy, obs, dtype, min(8, repeats))
    ours, peer = in_turns([lambda: fast.act(obs), eager], repeats)
    p50, eager_p50 = float(np.median(ours)), float(np.median(peer))
    kind = str(dtype).removeprefix("torch.")
    peer_name = "diffusers, eager, float32, step by step"
    note = f"p50 of {repeats} chunks in turns; large weights in {kind}"
    return [
        Row(case=UNET, unit="ratio of the peer's time to ours", ours=eager_p50 / p50, peer=1.0, goal=1.5, note=note),
        Row(
            case=UNET,
            unit="ms, p50",
            ours=1e3 * p50,
            peer=1e3 * eager_p50,
            peer_name=peer_name,
            floor=1e3 * floor_s,
            floor_name=floor_name,
            better="lower",
        ),
        Row(
            case=UNET,
            unit="ms, p99",
            ours=1e3 * float(np.quantile(ours, 0.99)),
            peer=1e3 * float(np.quantile(peer, 0.99)),
            peer_name=peer_name,
            better="lower",
        ),
    ]


def eager_diffusers(policy: Policy, obs: dict[str, torch.Tensor]) -> Callable[[], torch.Tensor]:
    """One chunk as a user of diffusers would compute it: the same network, conditioned and stepped at every level."""
    scheduler = DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(10)
    network, device = denoiser(policy), obs["state"].device

    def chunk() -> torch.Tensor:
        features = policy.features(obs)
        x = torch.randn(1, 16, ACTION.size, device=device)
        for t in scheduler.timesteps:
            output = network(x, network.condition(t[None].to(device), features))
            x = scheduler.step(output, t, x).prev_sample  # type: ignore[arg-type, union-attr]
        return x.clamp(-1.0, 1.0)

    return chunk


def denoiser(policy: Policy) -> UNet1d:
    assert isinstance(policy.head, DiffusionHead)
    assert isinstance(policy.head.network, UNet1d)
    return policy.head.network


def floor(policy: Policy, obs: dict[str, torch.Tensor], dtype: torch.dtype, turns: int) -> tuple[float, str]:
    """Seconds that reading the weights once per step, or the arithmetic, must take."""
    network = denoiser(policy)
    per_step = sum(p.numel() for n, p in network.named_parameters() if not n.startswith(("time", "film")))
    once = sum(p.numel() for n, p in network.named_parameters() if n.startswith(("time", "film")))
    weight_bytes = (10 * per_step + once) * torch.finfo(dtype).bits // 8
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        policy.act(obs)
    device = obs["state"].device
    bandwidth, rate = memory_bandwidth(device, turns), matmul_rate(dtype, device, turns)
    seconds = {
        f"{weight_bytes / 1e9:.2f} GB of weights at {bandwidth / 1e9:.1f} GB/s": weight_bytes / bandwidth,
        f"{counter.get_total_flops() / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s": counter.get_total_flops() / rate,
    }
    name = max(seconds, key=lambda key: seconds[key])
    return seconds[name], name


def memory_bandwidth(device: torch.device, turns: int) -> float:
    """Bytes/s of reading 1 GiB once, far more than the caches keep for us."""
    big = torch.ones(2**28, device=device)
    (times,) = in_turns([big.sum], turns)
    return 2**30 / min(times)


def matmul_rate(dtype: torch.dtype, device: torch.device, turns: int) -> float:
    """Operations/s of a large matrix product."""
    a = torch.ones(2048, 2048, dtype=dtype, device=device)
    (times,) = in_turns([lambda: F.linear(a, a)], turns)
    return 2 * 2048**3 / min(times)


def realtime_rows(seconds: float, threads: int) -> list[Row]:
    """A policy that takes several control periods drives a clocked robot."""
    policy = make_policy(SLOW)  # not accelerated: slow on purpose
    obs = {"state": torch.randn(23)}
    with RealtimeRunner(policy, control_hz=CONTROL_HZ, exec_steps=16, threads=threads) as runner:
        runner.start(obs)
        timing = control_loop(lambda action: obs, runner, ticks=round(seconds * CONTROL_HZ))
        stats = runner.stats
    latency = f"inference p50 {1e3 * np.median(stats.latencies_s):.0f} ms, {stats.chunks} chunks"
    case = f"real time, {CONTROL_HZ:g} Hz for {seconds:g} s, slow policy"
    dropped = f"{stats.dropped_actions} past-due actions dropped"
    return [
        Row(case=case, unit="missed ticks", ours=timing.missed, goal=0.0, better="lower", note=latency),
        Row(case=case, unit="ms, worst delay of an action", ours=1e3 * timing.worst_s, better="lower"),
        Row(case=case, unit="ticks without a predicted action", ours=stats.held_ticks, better="lower", note=dropped),
    ]


def in_turns(calls: list[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Seconds of every call, taking turns, so that a change of the machine's load meets all of them."""
    times: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for repeat in range(-3, repeats):
            for call, record in zip(calls, times):
                began = time.perf_counter()
                call()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if repeat >= 0:
                    record.append(time.perf_counter() - began)
    return times


def latency_rows(case: str, times: list[float]) -> list[Row]:
    return [
        Row(case=case, unit="ms, p50", ours=1e3 * float(np.median(times)), better="lower"),
        Row(case=case, unit="ms, p99", ours=1e3 * float(np.quantile(times, 0.99)), better="lower"),
    ]


if __name__ == "__main__":
    main()
