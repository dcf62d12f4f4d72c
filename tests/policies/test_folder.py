"""Saved policies: the same function after loading, nothing executed, every fault named."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import load_file, save_file

from robolearn.configuration.parts.policy import DeterministicHeadConfig, GaussianHeadConfig, MixtureHeadConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import PolicyError
from robolearn.policies.folder import CONFIG_FILE, WEIGHTS_FILE, PolicyCard, load_policy, save_policy
from tests.policies.toy import make_obs, make_policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_policy(make_policy(MixtureHeadConfig(), action_normalisation="min_max"), tmp_path / "policy")
    return tmp_path / "policy"


@pytest.mark.parametrize("backbone", ["mlp", "lstm"])
@pytest.mark.parametrize("head", [DeterministicHeadConfig(), GaussianHeadConfig(), MixtureHeadConfig()])
def test_round_trip_is_the_same_function(head: object, backbone: str, tmp_path: Path) -> None:
    policy = make_policy(head, backbone, obs_steps=2, pred_steps=3, action_normalisation="min_max")
    card = PolicyCard(task={"name": "toy"}, evaluation={"success": "45/50"})
    save_policy(policy, tmp_path / "p", card)
    loaded = load_policy(tmp_path / "p")
    assert loaded.config == policy.config
    assert loaded.observation_spec == policy.observation_spec
    assert loaded.action_spec == policy.action_spec
    assert not loaded.training
    for a, b in zip(*(PolicyRunner(p, 4).act(make_obs(4)) for p in (policy, loaded))):
        assert torch.equal(a, b)
    text = (tmp_path / "p" / "card.md").read_text()
    assert "45/50" in text
    assert head.name in text  # type: ignore[attr-defined]
    assert sorted(os.listdir(tmp_path)) == ["p"]


def test_loaded_policies_can_be_trained_on_and_saved_in_place(folder: Path) -> None:
    policy = load_policy(folder)
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    save_policy(policy, folder, "my card")
    assert torch.equal(next(load_policy(folder).parameters()), next(policy.parameters()))
    assert (folder / "card.md").read_text() == "my card"


def edit_weights(folder: Path, edit: object) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    edit(state)  # type: ignore[operator]
    save_file(state, folder / WEIGHTS_FILE)
    sign(folder)


def sign(folder: Path) -> None:
    """State the checksum of the weights as they are now: what is refused then is not refused for that."""
    description = yaml.safe_load((folder / CONFIG_FILE).read_text())
    description["weights"] = hashlib.blake2b((folder / WEIGHTS_FILE).read_bytes(), digest_size=16).hexdigest()
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(description))


def test_wrong_weights_are_refused_by_name(folder: Path) -> None:
    name = "head.linear.bias"
    original = load_file(folder / WEIGHTS_FILE)

    def attempt(match: str, **changes: torch.Tensor | None) -> None:
        state = {k: v for k, v in (original | changes).items() if v is not None}
        save_file(state, folder / WEIGHTS_FILE)
        sign(folder)
        with pytest.raises(PolicyError, match=match):
            load_policy(folder)

    attempt(r"missing \['head.linear.bias'\]", **{name: None})
    attempt(r"unknown \['head.extra'\]", **{"head.extra": torch.zeros(3)})
    attempt(r"head.linear.bias is torch.float32 \(3,\), expected", **{name: torch.zeros(3)})
    attempt("head.linear.bias is torch.float64", **{name: original[name].double()})
    attempt("not finite: head.linear.bias", **{name: torch.full_like(original[name], float("nan"))})
    save_file(original, folder / WEIGHTS_FILE)
    sign(folder)
    load_policy(folder)


def test_non_finite_policies_are_not_saved(folder: Path) -> None:
    policy = load_policy(folder)
    with torch.no_grad():
        policy.head.linear.bias[0] = float("inf")  # type: ignore[union-attr, index]
    with pytest.raises(PolicyError, match=r"not finite: head.linear.bias"):
        save_policy(policy, folder)
    load_policy(folder)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['BOMB']}",)


def test_pickles_are_never_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = folder.parent / "exploded"
    monkeypatch.setenv("BOMB", str(mark))
    blob = pickle.dumps(Bomb())
    (folder.parent / "policy.pt").write_bytes(blob)
    with pytest.raises(PolicyError, match=r"is a file; a saved policy is a folder.*never loaded"):
        load_policy(folder.parent / "policy.pt")
    (folder / WEIGHTS_FILE).write_bytes(blob)
    sign(folder)
    with pytest.raises(PolicyError, match="damaged or not safetensors"):
        load_policy(folder)
    torch.save({"weights": torch.zeros(3), "bomb": Bomb()}, folder / WEIGHTS_FILE)
    sign(folder)
    with pytest.raises(PolicyError, match="damaged or not safetensors"):
        load_policy(folder)
    (folder / CONFIG_FILE).write_text("!!python/object/apply:os.system ['touch " + str(mark) + "']")
    with pytest.raises(PolicyError, match="not valid YAML"):
        load_policy(folder)
    assert not mark.exists()


def test_links_cannot_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (folder / WEIGHTS_FILE).rename(outside)
    (folder / WEIGHTS_FILE).symlink_to(outside)
    with pytest.raises(PolicyError, match="outside the policy folder"):
        load_policy(folder)


def test_other_places_are_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="there is no policy folder"):
        load_policy(tmp_path / "nowhere")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(PolicyError, match=r"run is the folder of an unfinished run .* no policy yet"):
        load_policy(tmp_path / "run")
    run, inside = load_policy(tmp_path).state_dict(), load_policy(folder).state_dict()
    assert all(torch.equal(run[name], inside[name]) for name in inside), "a run folder stands for the policy in it"
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(PolicyError, match=r"policy.safetensors is missing"):
        load_policy(folder)


def test_a_run_folder_serves_as_its_policy(folder: Path) -> None:
    run = load_policy(folder.parent)
    assert folder.name == "policy"
    assert all(torch.equal(a, b) for a, b in zip(run.state_dict().values(), load_policy(folder).state_dict().values()))


def test_a_key_that_nobody_knows_is_refused(folder: Path) -> None:
    with (folder / CONFIG_FILE).open("a") as file:
        file.write("env_arg: {}\n")
    with pytest.raises(PolicyError, match="unknown key 'env_arg'; did you mean 'env_args'"):
        load_policy(folder)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_the_weights_is_refused(folder: Path, data: st.DataObject) -> None:
    """Anywhere in the file, also where the number stays finite and the policy would only be another one."""
    original = (folder / WEIGHTS_FILE).read_bytes()
    damaged = bytearray(original)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        (folder / WEIGHTS_FILE).write_bytes(bytes(damaged))
        with pytest.raises(PolicyError, match=r"policy.safetensors is not what was saved .* Copy the folder again"):
            load_policy(folder)
    finally:
        (folder / WEIGHTS_FILE).write_bytes(original)


def test_weights_of_another_policy_are_refused_and_so_are_unsigned_ones(folder: Path, tmp_path: Path) -> None:
    other = make_policy(MixtureHeadConfig(), action_normalisation="min_max")
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    save_policy(other, tmp_path / "other")
    (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    with pytest.raises(PolicyError, match="belongs to another policy"):
        load_policy(folder)
    description = yaml.safe_load((folder / CONFIG_FILE).read_text())
    del description["weights"]
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(description))
    with pytest.raises(PolicyError, match=r"lacks \['weights'\]"):
        load_policy(folder)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_folders_give_one_clear_error(folder: Path, data: st.DataObject) -> None:
    """Bit flips and truncations anywhere: either the same policy as before, or PolicyError, never anything else."""
    name = data.draw(st.sampled_from([CONFIG_FILE, WEIGHTS_FILE]))
    original = (folder / name).read_bytes()
    damaged = bytearray(original)
    if data.draw(st.booleans()):
        position = data.draw(st.integers(0, min(len(damaged), 1500) - 1))
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    try:
        (folder / name).write_bytes(bytes(damaged))
        with suppress(PolicyError):
            load_policy(folder)
    finally:
        (folder / name).write_bytes(original)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": None},
        {"policy": {"head": {"name": "unheard-of"}}},
        {"policy": {"hed": {}}},
        {"policy": {"backbone": {"name": "mlp", "hidden_sizes": [10**9, 10**9]}}},
        {"observation_spec": {}},
        {"observation_spec": {"state": {"shape": "x", "dtype": "float32"}}},
        {"observation_spec": {"state": {"shape": [-5], "dtype": "float32"}}},
        {"observation_spec": {"state": {"shape": [5], "dtype": "bogus"}}},
        {"observation_spec": [1, 2]},
        {"action_spec": {"low": [0], "high": [0], "names": ["a"]}},
        {"action_spec": 3},
        {"format": "lerobot"},
        {"version": 99},
    ],
)
def test_wrong_descriptions_give_one_clear_error(folder: Path, change: dict) -> None:
    description = yaml.safe_load((folder / CONFIG_FILE).read_text()) | change
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(description))
    with pytest.raises(PolicyError):
        load_policy(folder)


SAVER = """
import itertools, sys, torch
torch.set_num_threads(1)
from robolearn.policies.folder import save_policy
from robolearn.configuration.parts.policy import MixtureHeadConfig
from tests.policies.toy import make_policy
policy = make_policy(MixtureHeadConfig())
for i in itertools.count():
    with torch.no_grad():
        for p in policy.parameters():
            p.fill_(float(i))
    save_policy(policy, sys.argv[1], f"round {i}")
    print(i, flush=True)
"""


def test_killed_while_saving_leaves_one_whole_policy(tmp_path: Path) -> None:
    target = tmp_path / "policy"
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(target)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        saved = int(process.stdout.readline())
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        saved = max([saved, *map(int, process.stdout.read().split())])
        process.wait()
        policy = load_policy(target)
        values = {v for p in policy.parameters() for v in p.detach().unique().tolist()}
        assert len(values) == 1, "weights of two saves were mixed"
        assert values.pop() >= saved
