"""The replay ring against a plain list of transitions, through wrap-around, episode ends and n-step returns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

from robolearn.errors import TrainingError
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.replay_buffer import Replay, container_bytes
from robolearn.training import checkpoint
from robolearn.training.checkpoint import load_checkpoint, save_checkpoint
from tests.rl.toys import Ledger

GAMMA = 0.9


def fill(capacity: int, steps: int, *, n_step: int, envs: int = 3, limit: int = 4, directory: Path | None = None):
    """A replay, and what it should hold: per environment a list of (obs, action, reward, terminated, done, next)."""
    driver = EpisodeDriver(Ledger(envs, max_steps=limit), seeds=SeedStream(0, 90), gamma=GAMMA)
    g = torch.Generator().manual_seed(0)
    replay = Replay(capacity, driver.window, torch.zeros(envs, 1, 1), n_step=n_step, directory=directory)
    history: list[list[tuple]] = [[] for _ in range(envs)]
    for _ in range(steps):
        window = {k: v.clone() for k, v in driver.window.items()}
        actions = torch.rand(envs, 1, 1, generator=g)
        transition = driver.advance(actions)
        replay.add(window, actions, transition)
        for n in range(envs):
            flags = bool(transition.terminated[n]), bool(transition.done[n])
            successor = transition.next_obs["state"][n].clone()
            history[n].append((window["state"][n], actions[n], float(transition.reward[n]), *flags, successor))
        driver.restart(transition.done)
    return replay, history


def expected(history: list[tuple], t: int, n_step: int):
    """n-step target by walking along one environment's list."""
    reward, discount = 0.0, 1.0
    for step in history[t : t + n_step]:
        reward += discount * step[2]
        discount *= GAMMA
        successor, terminated = step[5], step[3]
        if step[4]:
            break
    return reward, 0.0 if terminated else discount, successor


@settings(max_examples=25)
@given(capacity=st.integers(3, 60), steps=st.integers(1, 70), n_step=st.integers(1, 5), limit=st.integers(1, 9))
def test_every_transition_is_what_happened(capacity: int, steps: int, n_step: int, limit: int) -> None:
    replay, history = fill(capacity, steps, n_step=n_step, limit=limit)
    kept = min(steps, replay.rows - 1)
    assert len(replay) == kept * 3
    batch = replay.gather(torch.arange(len(replay)))
    for i in range(len(replay)):
        t, env = steps - kept + i // 3, i % 3
        reward, discount, successor = expected(history[env], t, n_step)
        assert torch.equal(batch.obs["state"][i], history[env][t][0])
        assert torch.equal(batch.actions[i], history[env][t][1])
        assert batch.rewards[i].item() == pytest.approx(reward, rel=1e-5)
        assert batch.discounts[i].item() == pytest.approx(discount, rel=1e-5)
        assert torch.equal(batch.next_obs["state"][i], successor)


def test_samples_are_uniform_and_repeat_with_their_seed() -> None:
    replay, _ = fill(30, 50, n_step=1)
    draw = replay.sample(20_000, torch.Generator().manual_seed(1))
    again = replay.sample(20_000, torch.Generator().manual_seed(1))
    assert torch.equal(draw.actions, again.actions)
    counts = torch.unique(draw.actions.flatten(), return_counts=True)[1]
    assert len(counts) == len(replay)
    p = 1 / len(replay)
    deviation = (20_000 * p * (1 - p)) ** 0.5
    assert (counts - 20_000 * p).abs().max() < 5 * deviation


def test_state_goes_on_in_another_ring() -> None:
    replay, _ = fill(30, 47, n_step=3)
    other, _ = fill(30, 5, n_step=3)
    other.load_state_dict(replay.state_dict())
    every = torch.arange(len(replay))
    for a, b in zip(replay.gather(every), other.gather(every)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    small, _ = fill(9, 2, n_step=3)
    with pytest.raises(TrainingError, match="keep its capacity"):
        small.load_state_dict(replay.state_dict())


def test_files_hold_the_same_as_memory(tmp_path: Path) -> None:
    mapped, _ = fill(30, 47, n_step=2, directory=tmp_path / "replay")
    plain, _ = fill(30, 47, n_step=2)
    every = torch.arange(len(plain))
    for a, b in zip(mapped.gather(every), plain.gather(every)):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert (tmp_path / "replay" / "obs_state.bin").stat().st_size == mapped.rows * 3 * 3 * 4


@pytest.mark.parametrize("steps", [3, 10, 47])
def test_files_go_through_checkpoints(steps: int, tmp_path: Path) -> None:
    mapped, _ = fill(30, steps, n_step=2, directory=tmp_path / "a")
    save_checkpoint(tmp_path / "saved", {"replay": mapped.state_dict()}, {})
    other, _ = fill(30, 5, n_step=2, directory=tmp_path / "b")
    other.load_state_dict(load_checkpoint(tmp_path / "saved")["replay"])
    every = torch.arange(len(mapped))
    for a, b in zip(mapped.gather(every), other.gather(every), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of this process")
def test_files_larger_than_memory_can_be_saved_and_read(tmp_path: Path) -> None:
    """None of a replay's 240 MB is ever held in a process's own memory; one without other tests behind it."""
    module = "tests.rl.collecting.test_replay_buffer"
    code = f"import sys; from {module} import save_and_read; print(save_and_read(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60.0


def save_and_read(folder: str) -> float:
    """Megabytes that this process grows by at most."""
    checkpoint.MAPPED_BYTES = 0
    window, rows = {"camera": torch.zeros(1, 1, 1000, 1000, 3, dtype=torch.uint8)}, 80
    sizes = [own_megabytes()]
    replays = [Replay(rows, window, torch.zeros(1, 1, 1), directory=Path(folder) / name) for name in "ab"]
    replays[0].arrays["obs/camera"].fill_(7)
    replays[0].head = replays[0].size = rows - 1
    sizes.append(own_megabytes())
    state = replays[0].state_dict()
    sizes.append(own_megabytes())
    save_checkpoint(Path(folder) / "saved", state, {})
    sizes.append(own_megabytes())
    loaded = load_checkpoint(Path(folder) / "saved")
    sizes.append(own_megabytes())
    replays[1].load_state_dict(loaded)
    sizes.append(own_megabytes())
    assert (replays[1].arrays["obs/camera"][:rows] == 7).all()
    return max(sizes) - sizes[0]


def own_megabytes() -> float:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def test_images_are_stored_once_as_bytes() -> None:
    window = {"camera": torch.zeros(2, 1, 8, 8, 3, dtype=torch.uint8)}
    replay = Replay(100, window, torch.zeros(2, 1, 1))
    assert replay.arrays["obs/camera"].dtype == torch.uint8
    assert sum(a.numel() * a.element_size() for n, a in replay.arrays.items() if "camera" in n) == 51 * 2 * 192


def test_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    window = {"camera": torch.zeros(1, 1, 480, 640, 3, dtype=torch.uint8)}
    with pytest.raises(TrainingError, match=r"GiB are free; lower the capacity, or keep it in files"):
        Replay(10**9, window, torch.zeros(1, 1, 1))
    with pytest.raises(TrainingError, match=r"GiB are free; lower the capacity$"):
        Replay(10**13, window, torch.zeros(1, 1, 1), directory=tmp_path)


def test_a_container_may_have_less_than_its_host(tmp_path: Path) -> None:
    assert container_bytes(tmp_path) > 2**60, "no control groups here"
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nfile 200\ninactive_file 150\n")
    assert container_bytes(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_bytes(tmp_path) == 450
