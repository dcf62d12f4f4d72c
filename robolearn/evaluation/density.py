"""A policy's choices at chosen states: its action density, where exact, and samples of it, beside the
demonstration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from robolearn.configuration.evaluation import DensityConfig
from robolearn.contract import reconcile
from robolearn.datasets.dataset import Dataset
from robolearn.errors import ConfigError
from robolearn.policies.folder import load_policy
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.storage import atomic_file

RESOLUTION = 121
"""Cells of the density along each axis."""
EXTENT = 1.1
"""Axes reach a little past [-1, 1], where saturated actions pile up."""
NUM_STEPS = 4
SAMPLES_OVER_DENSITY = 100
"""More would hide it."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One state: everything that is drawn of it, for the chunk's first step."""

    step: int
    density: np.ndarray | None
    """(R, R) over the second and the first dimension; None for heads without an exact likelihood."""
    samples: np.ndarray
    """(M, 2)."""
    demonstrated: np.ndarray
    """(2,)."""
    log_prob: float | None
    """Of the demonstrated action's first step, in nats; None likewise."""


def plot_density(config: DensityConfig) -> Path:
    """Draw the panels and write the picture.

    Raises ConfigError, DatasetError or PolicyError where policy, data and configuration do not fit.
    """
    policy = load_policy(config.policy).eval()
    names, path = policy.action_spec.names, Path(config.output)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output must end in .png, .svg or .pdf, received {config.output!r}")
    if max(config.dims) >= len(names):
        raise ConfigError(f"dims {list(config.dims)} go beyond the policy's {len(names)} actions: {', '.join(names)}")
    with Dataset(config.dataset, reading=config.reading) as dataset:
        panels = make_panels(policy, dataset, config)
    figure = draw(panels, [names[d] for d in config.dims])
    with atomic_file(path) as fresh:
        figure.savefig(fresh, format=path.suffix[1:])
    return path


def make_panels(policy: Policy, dataset: Dataset, config: DensityConfig) -> list[Panel]:
    """Densities and samples at the chosen steps of one episode."""
    if not 0 <= config.episode < len(dataset):
        raise ConfigError(f"episode must lie between 0 and {len(dataset) - 1}, received {config.episode}")
    units = reconcile(policy.interface(f"the policy {config.policy}"), dataset.interface())
    names = [f"obs/{key}" for key in policy.observation_spec]
    arrays = dataset.arrays(config.episode, [*names, "actions"])
    length = len(arrays["actions"])
    steps = config.steps or tuple(int(s) for s in np.linspace(0, length - 1, NUM_STEPS + 1)[:-1])
    outside = [step for step in steps if not 0 <= step < length]
    if outside:
        raise ConfigError(f"episode {config.episode} has steps 0 to {length - 1}, received {outside}")
    panels = []
    for step in steps:
        rows = np.maximum(np.arange(step - policy.config.obs_steps + 1, step + 1), 0)
        obs = {key: torch.as_tensor(arrays[f"obs/{key}"][rows])[None] for key in policy.observation_spec}
        panels.append(_panel(policy, obs, units.inverse(torch.as_tensor(arrays["actions"][step])), step, config))
    return panels


def draw(panels: Sequence[Panel], labels: Sequence[str]) -> Figure:
    """One pair of axes per panel."""
    figure = Figure(figsize=(3.2 * len(panels), 4.0), layout="constrained", dpi=120)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        if panel.density is not None:
            extent = (-EXTENT, EXTENT, -EXTENT, EXTENT)
            # The square root shows weak modes beside strong ones.
            axes.imshow(np.sqrt(panel.density), origin="lower", extent=extent, cmap="Blues", aspect="equal")
        shown = panel.samples if panel.density is None else panel.samples[:SAMPLES_OVER_DENSITY]
        axes.plot(*shown.T, ".", markersize=2, color="#0072b2", alpha=0.5, label="samples")
        axes.plot(*panel.demonstrated, "x", markersize=9, markeredgewidth=2, color="#d55e00", label="demonstrated")
        likelihood = "" if panel.log_prob is None else f", log p {panel.log_prob:.2f}"
        axes.set(
            title=f"step {panel.step}{likelihood}",
            xlabel=labels[0],
            ylabel=labels[1],
            xlim=(-EXTENT, EXTENT),
            ylim=(-EXTENT, EXTENT),
            aspect="equal",
        )
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=1.5)
    return figure


@torch.no_grad()
def _panel(policy: Policy, obs: dict[str, Tensor], demonstrated: Tensor, step: int, config: DensityConfig) -> Panel:
    dims = list(config.dims)
    many = {key: value.expand(config.samples, *value.shape[1:]) for key, value in obs.items()}
    noise = BatchNoise(config.samples, "cpu", torch.Generator().manual_seed(step))
    density, log_prob = None, None
    if not policy.exact_likelihood:
        samples = policy.act(many, deterministic=False, noise=noise)[:, 0]
    else:
        samples = policy.distribution(many).sample(noise).clamp(-1.0, 1.0)[:, 0]
        log_prob = float(first_step_log_prob(policy, obs, demonstrated[None]))
        density = slice_density(policy, obs, dims)
    return Panel(
        step=step,
        density=density,
        samples=samples[:, dims].numpy(),
        demonstrated=demonstrated[dims].numpy(),
        log_prob=log_prob,
    )


@torch.no_grad()
def slice_density(policy: Policy, obs: dict[str, Tensor], dims: Sequence[int]) -> np.ndarray:
    """(R, R) density of the chunk's first action over two dimensions, the others at the policy's most likely action.

    With two action dimensions this is the whole density; with more it is a slice of it.
    """
    axis = torch.linspace(-EXTENT, EXTENT, RESOLUTION)
    second, first = torch.meshgrid(axis, axis, indexing="ij")
    actions = policy.act(obs, deterministic=True)[:, 0].expand(RESOLUTION**2, -1).clone()
    actions[:, dims[0]], actions[:, dims[1]] = first.flatten(), second.flatten()
    parts = [first_step_log_prob(policy, obs, part) for part in actions.split(4096)]
    return torch.cat(parts).exp().view(RESOLUTION, RESOLUTION).numpy()


def first_step_log_prob(policy: Policy, obs: dict[str, Tensor], actions: Tensor) -> Tensor:
    """Log-density (M,) of actions (M, A) as a chunk's first step at one state, the later steps integrated over."""
    M, Tp = len(actions), policy.config.pred_steps
    chunks = actions[:, None].expand(-1, Tp, -1)
    valid = (torch.arange(Tp) == 0).expand(M, -1)
    window = {key: value.expand(M, *value.shape[1:]) for key, value in obs.items()}
    return policy.distribution(window).log_prob(chunks, valid)
