"""Cloning from real files: it learns, resumes bit for bit, validates on the masks and refuses what cannot work."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from robolearn.cli.main import main
from robolearn.configuration.cloning import BCConfig, TrainConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict, load
from robolearn.errors import ConfigError, DatasetError, PolicyError, TrainingError
from robolearn.imitation.bc import oddest_row, train_bc
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec
from robolearn.training import precision
from robolearn.training.checkpoint import load_checkpoint
from robolearn.training.loop import BEST
from robolearn.training.metrics import read_metrics
from tests.commands import start
from tests.imitation.toy import ACTION, OBSERVATION, expert, make_episode, write_dataset
from tests.policies.toy import make_batch
from tests.waiting import wait_until

SMALL = {"backbone": {"name": "mlp", "hidden_sizes": [32, 32]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.hdf5"
    return write_dataset(path, [make_episode(i) for i in range(12)], masks={"valid": [3, 7], "few": [0, 1, 3]})


def make_config(data: Path, steps: int = 40, **changes: object) -> BCConfig:
    loop = {"total_steps": steps, "log_every": 10, "evaluate_every": 20, "checkpoint_every": 0, "tensorboard": False}
    values = {"dataset": [str(data)], "policy": SMALL, "loop": loop, "batch_size": 32}
    return from_dict(BCConfig, values | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "policy" / "policy.safetensors")


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "mixture"])
def test_cloning_reproduces_the_expert_on_new_states(head: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "toy.hdf5", [make_episode(i) for i in range(60)], masks={"valid": [3, 7]})
    config = make_config(data, steps=800, policy={"head": head, **SMALL}, optimiser={"learning_rate": 3e-3})
    result = train_bc(config, tmp_path)
    policy = load_policy(result.policy)
    fresh = make_episode(999, steps=200)
    obs = {key: torch.from_numpy(value)[:, None] for key, value in fresh.obs.items()}
    error = policy.act(obs, deterministic=True)[:, 0].detach().numpy() - fresh.actions
    spread = np.abs(fresh.actions - fresh.actions.mean(0)).mean()
    assert np.abs(error).mean() < 0.3 * spread
    rows = read_metrics(tmp_path)
    assert rows[0]["loss"] > rows[-2]["loss"]
    assert result.metrics["valid_loss"] < next(row["valid_loss"] for row in rows if "valid_loss" in row)
    card = (result.policy / "card.md").read_text()
    assert "58 (demo), 1450 steps" in card, "two of sixty episodes are for validation"
    assert "valid_loss" in card


@pytest.mark.parametrize(
    "policy",
    [
        SMALL,
        {"obs_steps": 3, "pred_steps": 4, "backbone": {"name": "lstm", "hidden_size": 16}},
        {"backbone": {"name": "mlp", "hidden_sizes": [16], "dropout": 0.3}},
    ],
)
def test_resuming_equals_no_interruption(policy: dict, data: Path, tmp_path: Path) -> None:
    """17 steps are in the middle of the third epoch of 7 batches; evaluation falls on both sides."""
    config = make_config(data, policy=policy)
    train_bc(config, tmp_path / "whole")
    short = replace(config, loop=replace(config.loop, total_steps=17), optimiser=config.optimiser)
    # The schedule belongs to the whole run; a constant one is the same for both lengths.
    constant = replace(config.optimiser, schedule="constant")
    train_bc(replace(config, optimiser=constant), tmp_path / "reference")
    train_bc(replace(short, optimiser=constant), tmp_path / "parts")
    torch.manual_seed(5)
    train_bc(replace(config, optimiser=constant), tmp_path / "parts", resume=True)
    expected, found = weights(tmp_path / "reference"), weights(tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not all(torch.equal(expected[name], value) for name, value in weights(tmp_path / "whole").items())


def test_one_seed_gives_one_result(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_bc(make_config(data, seed=seed), tmp_path / name)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_masks_and_shares_decide_what_is_held_out(data: Path, tmp_path: Path) -> None:
    plain = write_dataset(tmp_path / "plain.hdf5", [make_episode(i) for i in range(10)])

    def card(name: str, **changes: object) -> str:
        train_bc(make_config(**({"data": data, "steps": 2} | changes)), tmp_path / name)  # type: ignore[arg-type]
        return (tmp_path / name / "policy" / "card.md").read_text()

    assert "2 (demo), 50 steps" in card("few", filter_key="few"), "episode 3 is in `few` and in `valid`"
    text = card("plain", data=plain)
    assert "10 (demo)" in text
    assert "valid_loss" not in text
    text = card("share", data=plain, valid_fraction=0.2)
    assert "8 (demo)" in text
    assert "valid_loss" in text
    text = card("both", dataset=[str(data), str(plain)])
    assert "20 (demo)" in text, "episodes of a file without masks are learned from"
    marked = write_dataset(tmp_path / "m.hdf5", [make_episode(i) for i in range(10)], masks={"good": [*range(5)]})
    text = card("share of a mask", data=marked, filter_key="good", valid_fraction=0.2)
    assert "4 (demo)" in text
    assert "valid_loss" in text
    with pytest.raises(ConfigError, match="export best picks by evaluations, and there are none"):
        card("best of none", data=plain, export="best")
    with pytest.raises(DatasetError, match=r"no mask 'fewer' in .*\['few', 'valid'\]"):
        card("none", filter_key="fewer")


@pytest.mark.parametrize("ema", [True, False])
def test_the_best_evaluation_can_be_exported(ema: bool, data: Path, tmp_path: Path) -> None:
    seen: dict[int, torch.Tensor] = {}

    def evaluate(policy: Policy, step: int) -> dict[str, float]:
        assert not policy.training
        seen[step] = policy.head.linear.bias.detach().clone()  # type: ignore[union-attr]
        return {"success": {20: 0.9, 40: 0.5}[step], "score": {20: 0.9, 40: 0.5}[step]}

    config = make_config(data, export="best", optimiser={"ema": ema})
    result = train_bc(config, tmp_path, evaluate=evaluate)
    assert torch.equal(load_policy(result.policy).head.linear.bias, seen[20])  # type: ignore[union-attr]
    assert not torch.equal(seen[20], seen[40])
    assert load_checkpoint(tmp_path / BEST)["loop"]["step"] == 20


def test_training_goes_on_from_a_policy_with_its_normalisers(data: Path, tmp_path: Path) -> None:
    first = train_bc(make_config(data), tmp_path / "first")
    shifted = [make_episode(i) for i in range(20, 24)]
    shifted = [replace(e, obs=e.obs | {"goal": e.obs["goal"] + 5}, final_obs=e.final_obs) for e in shifted]
    more = write_dataset(tmp_path / "more.hdf5", shifted)
    config = make_config(data, dataset=[str(data), str(more)], init_policy=str(first.policy), policy={})
    second = train_bc(config, tmp_path / "second")
    before, after = load_file(first.policy / "policy.safetensors"), load_file(second.policy / "policy.safetensors")
    assert load_policy(second.policy).config == load_policy(first.policy).config
    for name in before:
        assert torch.equal(before[name], after[name]) == ("normaliser" in name), name
    other = make_config(data, init_policy=str(first.policy), policy={"head": "gaussian"})
    with pytest.raises(ConfigError, match="decides what the policy is; leave `policy` out"):
        train_bc(other, tmp_path / "third")


def test_labels_are_learned_where_they_are(tmp_path: Path) -> None:
    """A DAgger file: the policy acted nonsense, the expert labelled two thirds of the steps."""
    episodes = []
    for seed in range(10):
        episode = make_episode(seed, steps=30)
        label = expert(episode.obs["state"], episode.obs["goal"])
        label[::3] = np.nan
        episodes.append(
            replace(episode, actions=-episode.actions, expert_actions=label, action_modes=np.zeros(30, np.int8))
        )
    path = write_dataset(tmp_path / "dagger.hdf5", episodes)
    config = make_config(path, steps=800, target="labels", optimiser={"learning_rate": 3e-3})
    policy = load_policy(train_bc(config, tmp_path / "run").policy)
    obs = {key: torch.from_numpy(value)[:, None] for key, value in episodes[0].obs.items()}
    error = policy.act(obs, deterministic=True)[:, 0].detach().numpy() - expert(*episodes[0].obs.values())
    assert np.abs(error).mean() < 0.1


def break_file(path: Path, name: str, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file[f"data/demo_4/{name}"][11] = value


@pytest.mark.parametrize("name", ["obs/state", "actions"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_not_finite_is_refused_by_name(name: str, value: float, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "bad.hdf5", [make_episode(i) for i in range(6)])
    break_file(path, name, value)
    with pytest.raises(DatasetError, match=r"step 11.*demo_4|demo_4.*step 11"):
        train_bc(make_config(path), tmp_path / "run")
    assert not (tmp_path / "run" / "policy").exists()


def test_misfits_are_refused_before_training(data: Path, tmp_path: Path) -> None:
    def attempt(error: type[Exception], match: str, **changes: object) -> None:
        with pytest.raises(error, match=match):
            train_bc(make_config(data, **changes), tmp_path / "run")  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()

    attempt(DatasetError, "pred_steps is 26, but the longest episode .* has 25", policy={**SMALL, "pred_steps": 26})
    attempt(PolicyError, r"obs_keys names \['elbow'\]", policy={**SMALL, "obs_keys": ["elbow"]})
    attempt(ConfigError, "device 'warp' cannot be used", device="warp")
    attempt(PolicyError, "no policy folder", policy={}, init_policy=str(tmp_path / "nowhere"))
    policy = train_bc(make_config(data, steps=1), tmp_path / "small").policy
    spec = type(OBSERVATION)({"state": OBSERVATION["state"]})
    only = [
        replace(e, obs={"state": e.obs["state"]}, final_obs={"state": e.final_obs["state"]})
        for e in [make_episode(i) for i in range(3)]
    ]
    narrow = write_dataset(tmp_path / "narrow.hdf5", only, observation_spec=spec)
    attempt(
        PolicyError,
        r"sees 'goal'; the data in narrow.hdf5 offers 'state'",
        dataset=[str(narrow)],
        policy={},
        init_policy=str(policy),
    )


def test_divergence_names_the_episode_and_step(tmp_path: Path) -> None:
    """A finite but absurd value blows the loss up; the report points at it."""
    episodes = [make_episode(i) for i in range(6)]
    episodes[2].obs["state"][17:21] = 1e30  # too many to be a glitch of the sensor
    path = write_dataset(tmp_path / "odd.hdf5", episodes)
    config = make_config(path, policy={**SMALL, "obs_normalisation": "none", "head": "deterministic"})
    with pytest.raises(TrainingError, match=r"step (17|18|19|20) of episode demo_2 \(obs/state reaches 1e\+30\)"):
        train_bc(config, tmp_path / "run")


def test_the_oddest_row_is_the_one_that_is_not_finite_or_far_away() -> None:
    batch = make_batch(32, To=2, Tp=3)
    batch.obs["state"][9, 1, 2] = 50.0
    assert oddest_row(batch) == (9, "obs/state reaches 50")
    batch.actions[4, 0, 1] = float("nan")
    assert oddest_row(batch)[0] == 4


def test_bfloat16_trains_to_about_the_same_loss(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(wanted: str, *, had: bool) -> float:
        monkeypatch.setattr(precision, "CPU_HAS_BFLOAT16", had)
        config = make_config(data, steps=200, precision=wanted)
        return train_bc(config, tmp_path / f"{wanted}{had}").metrics["valid_loss"]

    plain = loss("float32", had=True)
    rounded = loss("bfloat16", had=True)
    assert plain != rounded
    assert plain == pytest.approx(rounded, abs=0.2)
    assert plain == loss("bfloat16", had=False)  # where the processor lacks it, training goes on without


def test_the_command_trains_resumes_and_refuses(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ["train", "--dataset", str(data), "--output", str(run), "--policy.backbone.hidden_sizes", "16"]
    arguments += ["--loop.total_steps", "20", "--loop.tensorboard", "false", "--batch_size", "32"]
    assert main(arguments) == 0
    assert "trained 20 steps, valid_loss" in capsys.readouterr().out
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["policy"]["backbone"]["hidden_sizes"] == [16]
    assert main(arguments) == 2
    assert "holds a training run already" in capsys.readouterr().err
    assert main(["train", "--config", str(run / "config.yaml"), "--resume", "--loop.total_steps", "30"]) == 0
    assert load_checkpoint(run / "checkpoints" / "latest")["loop"]["step"] == 30
    assert main(["train", "--dataset", str(tmp_path / "none.hdf5"), "--output", str(tmp_path / "x")]) == 2


def test_a_network_that_wants_a_gpu_is_told_of_before_it_trains(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = {"unet": {"name": "flow", "network": {"name": "unet", "channels": [256, 512]}}, "mlp": {"name": "flow"}}
    for name, head in heads.items():
        policy = {"head": head, "pred_steps": 4, "action_normalisation": "min_max"}
        train_bc(make_config(data, steps=1, policy=policy, batch_size=2), tmp_path / name)
        assert ("million weights want a GPU" in capsys.readouterr().err) == (name == "unet")


def test_success_in_the_task_of_the_data_picks_the_best(tmp_path: Path) -> None:
    """A pendulum that stays up for three steps counts as a success; cloning "do nothing" manages that."""
    task = TaskConfig(id="gym:InvertedPendulum-v5", max_steps=8, success_threshold=3.0)
    spec = type(OBSERVATION)({"state": ArraySpec(shape=(4,))})
    still = [
        replace(
            e,
            obs={"state": 0.01 * e.obs["state"]},
            final_obs={"state": e.final_obs["state"]},
            actions=np.zeros((len(e), 1)),
            policy_actions=None,
            expert_actions=None,
        )
        for e in map(make_episode, range(4))
    ]
    path = write_dataset(
        tmp_path / "still.hdf5",
        still,
        observation_spec=spec,
        env_args=task.env_args(),
        action_spec=ActionSpec(low=(-3.0,), high=(3.0,)),
    )
    run = tmp_path / "run"
    arguments = ["train", "--dataset", str(path), "--output", str(run), "--policy.head", "deterministic"]
    arguments += ["--policy.backbone.hidden_sizes", "16", "--loop.total_steps", "300", "--loop.evaluate_every", "300"]
    assert main([*arguments, "--loop.tensorboard", "false", "--rollouts", "3"]) == 0
    assert [row["eval_success"] for row in read_metrics(run) if "eval_success" in row] == [1.0]
    assert load_checkpoint(run / BEST)["loop"]["best_score"] == 1.0
    assert "eval_success: 1" in (run / "policy" / "card.md").read_text()


def test_ctrl_c_saves_and_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--dataset", data, "--output", run, "--batch_size", "32", "--policy.backbone.hidden_sizes", "16"]
    words += ["--loop.total_steps", "1000000", "--loop.checkpoint_every", "20", "--loop.tensorboard", "false"]
    process = start("train", *words)
    summary = run / "checkpoints" / "latest" / "checkpoint.json"
    wait_until(summary.exists, lambda: process.err)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert f"robolearn train --config {run / 'config.yaml'} --resume" in process.err
    assert "Traceback" not in process.err
    step = json.loads(summary.read_text())["step"]
    assert main(["train", "--config", str(run / "config.yaml"), "--resume", "--loop.total_steps", str(step + 5)]) == 0
    assert load_checkpoint(run / "checkpoints" / "latest")["loop"]["step"] == step + 5


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_configurations_are_valid_and_say_how_to_run_them(path: Path) -> None:
    config = load(TrainConfig, path)
    assert f"--config configs/train/{path.name}" in path.read_text()
    if not config.init_policy:
        # keys are those of the configuration's own data
        build_policy(replace(config.policy, obs_keys=(), obs_ranges={}), OBSERVATION, ACTION)
