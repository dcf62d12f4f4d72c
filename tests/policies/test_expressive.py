"""What every expressive head owes the policy: it trains in both precisions, acts row by row, and survives saving."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.tree import from_dict
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard, load_policy, save_policy
from robolearn.policies.noise import RowNoise
from robolearn.policies.policy import Policy
from tests.policies.toy import ACTION, OBSERVATION, make_batch, make_obs, statistics

TO, TP = 3, 4
UNET = {"name": "unet", "channels": [16, 32], "num_groups": 4, "time_size": 16}
HEADS: dict[str, dict[str, Any]] = {
    "autoregressive": {"name": "autoregressive", "width": 32, "spacing": "quantile"},
    "diffusion-unet": {"name": "diffusion", "network": UNET, "inference_steps": 4},
    "diffusion-transformer": {
        "name": "diffusion",
        "solver": "ddpm",
        "network": {"name": "transformer", "width": 32, "num_layers": 2},
        "inference_steps": 4,
    },
    "flow-mlp": {"name": "flow", "network": {"name": "mlp", "width": 32}, "inference_steps": 4},
    "act": {"name": "act", "width": 32, "num_heads": 4, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden_sizes": [32]},
    "lstm": {"name": "lstm", "hidden_size": 16},
    "transformer": {"name": "transformer", "width": 32, "num_layers": 1, "num_heads": 4, "dropout": 0.0},
}


def make(head: str, backbone: str) -> Policy:
    torch.manual_seed(0)
    values = {"head": HEADS[head], "backbone": BACKBONES[backbone], "obs_steps": TO, "pred_steps": TP}
    policy = build_policy(
        from_dict(PolicyConfig, {**values, "action_normalisation": "min_max"}), OBSERVATION, ACTION, statistics()
    )
    with torch.no_grad():  # off the initial weights, at which gated blocks are the identity
        for parameter in policy.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return policy.eval()


def rows_of(obs: dict[str, torch.Tensor], rows: list[int], policy: Policy) -> torch.Tensor:
    noise = RowNoise([torch.Generator().manual_seed(row) for row in rows], "cpu")
    with torch.no_grad():
        return policy.act({key: value[rows] for key, value in obs.items()}, noise=noise)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_training_reduces_the_loss_on_one_batch(head: str, backbone: str) -> None:
    policy, batch = make(head, backbone).train(), make_batch(16, TO, TP)
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, metrics = policy.loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    assert sum(losses[-10:]) < sum(losses[:10]) - 0.2 * abs(sum(losses[:10]))


@pytest.mark.parametrize("head", HEADS)
def test_bfloat16_training_follows_float32(head: str) -> None:
    policy, batch = make(head, "mlp"), make_batch(64, TO, TP)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            losses.append(policy.loss(batch)[0])
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("backbone", ["mlp", "transformer"])
@pytest.mark.parametrize("head", HEADS)
def test_rows_have_the_same_bits_wherever_they_stand(head: str, backbone: str) -> None:
    """Evaluation relies on it: an episode's actions must not depend on the episodes beside it."""
    policy, obs = make(head, backbone), make_obs(16, TO)
    chunks = rows_of(obs, list(range(16)), policy)
    for order in (list(range(15, -1, -1)), [15, *range(15)], [3] * 16):
        assert torch.equal(rows_of(obs, order, policy), chunks[order])


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_policy_is_the_same_function(head: str, tmp_path) -> None:
    policy, obs = make(head, "transformer"), make_obs(2, TO)
    policy.head.fit(torch.randn(100, ACTION.size))
    save_policy(policy, tmp_path / "policy", PolicyCard())
    loaded = load_policy(tmp_path / "policy").eval()
    assert torch.equal(rows_of(obs, [0, 1], loaded), rows_of(obs, [0, 1], policy))
