"""The runner against a plain re-computation, and the same episode in every company."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robolearn.configuration.parts.policy import (
    ACTHeadConfig,
    AutoregressiveHeadConfig,
    DenoisingTransformerConfig,
    DeterministicHeadConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    MixtureHeadConfig,
    PolicyConfig,
    TransformerConfig,
    UNetConfig,
)
from robolearn.deploy.runner import INFERENCE_ROWS, PolicyRunner
from robolearn.errors import PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from tests.policies.toy import ACTION, OBSERVATION, make_obs, make_policy, statistics

STEPS = 9


def episode_obs(episode: int, t: int) -> dict[str, torch.Tensor]:
    return make_obs(1, seed=1000 * episode + t)


def drive(runner: PolicyRunner, schedule: list[list[tuple[int, int]]]) -> dict[tuple[int, int], torch.Tensor]:
    """Actions by (episode, step); `schedule[row]` lists the episode and its length that the row runs in turn."""
    actions: dict[tuple[int, int], torch.Tensor] = {}
    current: list[list[int]] = [[-1, 0, 0] for _ in schedule]  # episode, step, length
    pending = [list(row) for row in schedule]
    while True:
        mask, seeds = torch.zeros(len(schedule), dtype=torch.bool), []
        for row, state in enumerate(current):
            if state[1] >= state[2] and pending[row]:
                episode, length = pending[row].pop(0)
                current[row] = [episode, 0, length]
                mask[row] = True
                seeds.append(episode)
        if all(state[1] >= state[2] for state in current):
            return actions
        if mask.any():
            runner.reset(seeds, mask)
        rows = [episode_obs(state[0], state[1]) for state in current]
        obs = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        proposed = runner.act(obs)
        for row, state in enumerate(current):
            if state[1] < state[2]:
                actions[state[0], state[1]] = proposed[row].clone()
                state[1] += 1


CASES = {
    "mixture mode": (MixtureHeadConfig(num_modes=3), True, {}),
    "mixture sampled": (MixtureHeadConfig(num_modes=3), False, {}),
    "gaussian sampled": (GaussianHeadConfig(), False, {}),
    "l2 ensembled": (DeterministicHeadConfig(), True, {"temporal_ensemble": 0.1}),
}
UNET = UNetConfig(channels=(32, 64), time_size=32)
LARGE_HEADS = {
    "autoregressive": AutoregressiveHeadConfig(num_bins=8, width=32, num_layers=2),
    "diffusion": DiffusionHeadConfig(network=UNET, train_steps=20, inference_steps=4, solver="ddpm"),
    "flow": FlowHeadConfig(network=DenoisingTransformerConfig(width=32, num_layers=2), inference_steps=3),
    "act": ACTHeadConfig(width=32, num_heads=4, encoder_layers=2, decoder_layers=2, latent_size=8),
}


@pytest.mark.parametrize("backbone", ["mlp", "lstm"])
@pytest.mark.parametrize("case", list(CASES))
def test_an_episode_is_bit_identical_in_any_company(case: str, backbone: str) -> None:
    """Episodes of differing lengths over N environments, so that their chunk queues run out of phase."""
    head, deterministic, options = CASES[case]
    policy = make_policy(head, backbone, obs_steps=2, pred_steps=4, exec_steps=3)
    check_company(policy, [STEPS, 4, 7, 1, 5, STEPS, 8, 2, 6, 3], deterministic=deterministic, **options)


@pytest.mark.parametrize("head", list(LARGE_HEADS))
def test_so_is_one_of_the_larger_heads(head: str) -> None:
    torch.manual_seed(0)
    config = PolicyConfig(
        head=LARGE_HEADS[head],
        backbone=TransformerConfig(width=32, num_layers=2, num_heads=4),
        obs_steps=2,
        pred_steps=8,
        exec_steps=3,
    )
    policy = build_policy(config, OBSERVATION, ACTION, statistics())
    check_company(policy, [STEPS, 4, 7, 1, 5], deterministic=False)


def check_company(policy: Policy, lengths: list[int], **options: Any) -> None:
    reference = drive(PolicyRunner(policy, 1, **options), [list(enumerate(lengths))])
    assert len(reference) == sum(lengths)
    for N in (2, 3, 7):
        schedule: list[list[tuple[int, int]]] = [[] for _ in range(N)]
        for episode, length in enumerate(lengths):
            schedule[(episode * 3 + N) % N].append((episode, length))
        found = drive(PolicyRunner(policy, N, **options), schedule)
        assert found.keys() == reference.keys()
        assert all(torch.equal(found[key], reference[key]) for key in reference)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", [(39, 1024, 45), (7, 64, 3), (86, 256, 2), (5, 400, 650)])
def test_rows_keep_their_bits_wherever_they_stand(sizes: tuple[int, int, int], threads: int) -> None:
    """The property of matrix products that the runner's fixed number of rows relies on."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        first, last = torch.nn.Linear(*sizes[:2]), torch.nn.Linear(*sizes[1:])
        rows = torch.randn(40, sizes[0])
        seen: dict[int, torch.Tensor] = {}
        for _ in range(12):
            pick = torch.randperm(40)[:INFERENCE_ROWS]
            for index, value in zip(pick.tolist(), last(torch.relu(first(rows[pick])))):
                assert torch.equal(seen.setdefault(index, value), value)
    finally:
        torch.set_num_threads(before)


def test_history_and_queue_against_a_plain_recomputation() -> None:
    policy = make_policy(DeterministicHeadConfig(), obs_steps=3, pred_steps=4, exec_steps=2).eval()
    runner = PolicyRunner(policy, 2)
    runner.reset([0, 1])
    frames = [make_obs(2, seed=t) for t in range(6)]
    chunk = torch.zeros(0)
    for t, frame in enumerate(frames):
        action = runner.act(frame)
        if t % 2 == 0:
            picks = [frames[max(0, t - back)] for back in (2, 1, 0)]
            window = {key: torch.stack([f[key] for f in picks], 1) for key in frame}
            chunk = policy.act(window, deterministic=True).detach()
        torch.testing.assert_close(action, chunk[:, t % 2])


def test_temporal_ensembling_is_the_published_weighted_mean() -> None:
    policy = make_policy(DeterministicHeadConfig(), pred_steps=5).eval()
    m = 0.3
    runner = PolicyRunner(policy, 3, temporal_ensemble=m)
    chunks = []
    for t in range(12):
        frame = make_obs(3, seed=t)
        action = runner.act(frame)
        chunks.append(policy.act({k: v[:, None] for k, v in frame.items()}, deterministic=True).detach())
        live = [(s, chunks[s][:, t - s]) for s in range(max(0, t - 4), t + 1)]  # oldest first
        weights = torch.exp(-m * torch.arange(len(live)))
        expected = sum(w * a for w, (_, a) in zip(weights / weights.sum(), live))
        torch.testing.assert_close(action, expected)


def test_reset_and_replan_touch_only_the_masked_rows() -> None:
    policy = make_policy(DeterministicHeadConfig(), obs_steps=2, pred_steps=3, exec_steps=3).eval()
    runner = PolicyRunner(policy, 2)
    first, second = make_obs(2, seed=0), make_obs(2, seed=1)
    runner.act(first)
    runner.replan(torch.tensor([True, False]))
    action = runner.act(second)
    window = {k: torch.stack([first[k], second[k]], 1) for k in first}
    kept = {k: torch.stack([first[k], first[k]], 1) for k in first}
    torch.testing.assert_close(action[0], policy.act(window, deterministic=True)[0, 0].detach())
    torch.testing.assert_close(action[1], policy.act(kept, deterministic=True)[1, 1].detach())
    runner.reset([7], torch.tensor([False, True]))
    third = make_obs(2, seed=2)
    action = runner.act(third)
    repeated = {k: torch.stack([third[k], third[k]], 1) for k in third}
    torch.testing.assert_close(action[1], policy.act(repeated, deterministic=True)[1, 0].detach())
    torch.testing.assert_close(action[0], policy.act(window, deterministic=True)[0, 1].detach())


def test_sampling_differs_between_seeds_and_the_training_mode_is_kept() -> None:
    policy = make_policy(GaussianHeadConfig()).train()
    runner = PolicyRunner(policy, 2, deterministic=False)
    same = {k: v[:1].expand(2, *v.shape[1:]) for k, v in make_obs(2).items()}
    runner.reset([3, 4])
    assert not torch.equal(*runner.act(same))
    runner.reset([3, 3])
    assert torch.equal(*runner.act(same))
    runner.reset()
    assert not torch.equal(*runner.act(same))
    assert policy.training


def test_refusals() -> None:
    policy = make_policy(DeterministicHeadConfig(), pred_steps=2)
    with pytest.raises(PolicyError, match="exec_steps must be between 1 and the policy's pred_steps 2, received 3"):
        PolicyRunner(policy, 1, exec_steps=3)
    runner = PolicyRunner(policy, 2)
    with pytest.raises(PolicyError, match=r"needs observation 'goal.xy'; the environment gives \['state'\]"):
        runner.act({"state": torch.zeros(2, 5)})
    with pytest.raises(PolicyError, match=r"'state' must have shape \(2, 5\).*received \(2, 6\)"):
        runner.act(make_obs(2) | {"state": torch.zeros(2, 6)})
    with pytest.raises(PolicyError, match="one seed for each of 2"):
        runner.reset([1])
