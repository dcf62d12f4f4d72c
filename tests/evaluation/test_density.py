"""The density drawn is the policy's own, samples lie where it is high, and everything that does not fit is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.evaluation import DensityConfig
from robolearn.configuration.parts.policy import FlowHeadConfig, MixtureHeadConfig, MLPConfig, PolicyConfig, UNetConfig
from robolearn.datasets.dataset import Dataset
from robolearn.errors import ConfigError, PolicyError
from robolearn.evaluation.density import EXTENT, draw, make_panels, plot_density, slice_density
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard, save_policy
from robolearn.policies.policy import Policy
from tests.imitation.toy import ACTION, OBSERVATION, make_episode, write_dataset


def make_policy(head=None, *, pred_steps: int = 2) -> Policy:
    torch.manual_seed(0)
    network = MLPConfig(hidden_sizes=(16,))
    head = head or MixtureHeadConfig(num_modes=3)
    config = PolicyConfig(head=head, backbone=network, obs_steps=2, pred_steps=pred_steps)
    return build_policy(config, OBSERVATION, ACTION).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "toy.hdf5", [make_episode(i, steps=20) for i in range(2)])


def config_of(data: Path, **changes) -> DensityConfig:
    return replace(DensityConfig(policy="", dataset=str(data), samples=3000), **changes)


def test_density_is_that_of_the_first_step_and_samples_follow_it(data: Path) -> None:
    policy = make_policy()
    obs = {key: torch.randn(1, 2, *spec.shape) for key, spec in OBSERVATION.items()}
    density = slice_density(policy, obs, [0, 1])
    axis = np.linspace(-EXTENT, EXTENT, len(density))
    i, j = 30, 71
    chunk = torch.tensor([[axis[i], axis[j]], [0.3, -0.9]], dtype=torch.float32)[None]
    first = torch.tensor([[True, False]])
    with torch.no_grad():
        expected = policy.distribution(obs).log_prob(chunk, first).exp()
    assert density[j, i] == pytest.approx(float(expected), rel=1e-4)
    with Dataset(data) as dataset:
        (panel,) = make_panels(policy, dataset, config_of(data, steps=(7,)))
    assert panel.density is not None
    inside = np.abs(panel.samples).max(1) < 1.0
    cells = np.rint((panel.samples[inside] + EXTENT) / (2 * EXTENT) * (len(axis) - 1)).astype(int)
    at_samples = panel.density[cells[:, 1], cells[:, 0]].mean()
    assert at_samples > 1.1 * panel.density.mean()


def test_panels_show_the_recorded_states_and_actions(data: Path) -> None:
    policy = make_policy()
    with Dataset(data) as dataset:
        panels = make_panels(policy, dataset, config_of(data, episode=1, steps=(0, 12)))
        recorded = dataset.arrays(1, ["actions", "obs/state", "obs/goal"])
    assert [panel.step for panel in panels] == [0, 12]
    np.testing.assert_array_equal(panels[1].demonstrated, recorded["actions"][12])
    window = {key: torch.as_tensor(recorded[f"obs/{key}"][[11, 12]])[None] for key in OBSERVATION}
    action = torch.as_tensor(recorded["actions"][12]).expand(1, 2, 2)
    with torch.no_grad():
        expected = policy.distribution(window).log_prob(action, torch.tensor([[True, False]]))
    assert panels[1].log_prob == pytest.approx(float(expected), abs=1e-5)
    figure = draw(panels, ["x", "y"])
    assert [axes.get_title() for axes in figure.axes][1] == f"step 12, log p {float(expected):.2f}"


def test_heads_without_a_likelihood_show_samples(data: Path, tmp_path: Path) -> None:
    head = FlowHeadConfig(network=UNetConfig(channels=(8, 16), num_groups=2, time_size=8), inference_steps=2)
    folder = tmp_path / "policy"
    save_policy(make_policy(head, pred_steps=4), folder, PolicyCard())
    config = config_of(data, policy=str(folder), output=str(tmp_path / "made" / "density.png"), samples=50)
    path = plot_density(config)
    assert path.read_bytes().startswith(b"\x89PNG")
    with Dataset(data) as dataset:
        panels = make_panels(make_policy(head, pred_steps=4), dataset, config)
    assert len(panels) == 4
    assert all(panel.density is None and panel.log_prob is None and panel.samples.std() > 0 for panel in panels)


def test_what_does_not_fit_is_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    save_policy(make_policy(), folder, PolicyCard())
    good = config_of(data, policy=str(folder), samples=5, output=str(tmp_path / "density.png"))
    for changes, message in (
        ({"episode": 2}, "episode must lie between 0 and 1, received 2"),
        ({"steps": (3, 20)}, r"episode 0 has steps 0 to 19, received \[20\]"),
        ({"dims": (0, 2)}, r"dims \[0, 2\] go beyond the policy's 2 actions"),
        ({"output": "density.bmp"}, r"must end in .png, .svg or .pdf, received 'density.bmp'"),
    ):
        with pytest.raises(ConfigError, match=message):
            plot_density(replace(good, **changes))
    with pytest.raises(ConfigError, match=r"two different action dimensions, received \[1, 1\]"):
        replace(good, dims=(1, 1))
    blind = build_policy(PolicyConfig(obs_keys=("state",), backbone=MLPConfig(hidden_sizes=(4,))), OBSERVATION, ACTION)
    object.__setattr__(blind.observation_spec, "arrays", {"depth": OBSERVATION["state"]})
    with Dataset(data) as dataset, pytest.raises(PolicyError, match=r"sees 'depth'; the data in"):
        make_panels(blind, dataset, good)
