"""Real-time driving with a policy slower than the control period: actions by tick, no waiting, late chunks trimmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from robolearn.configuration.parts.policy import DeterministicHeadConfig
from robolearn.deploy import realtime
from robolearn.deploy.realtime import ChunkQueue, RealtimeRunner, control_loop
from robolearn.errors import PolicyError
from robolearn.policies.policy import Policy
from tests.policies.toy import make_obs, make_policy
from tests.waiting import wait_until

TP = 10


class VirtualTime:
    """Stands in for the module `time`: passes where the loop sleeps, and what a policy takes passes on it as well."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runner: RealtimeRunner | None = None
        """Set when the loop begins; before, everybody waits for the policy."""
        self._changed = threading.Condition()
        self._due: float | None = None
        """When the policy that is at work will be done."""

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """Take so long, in the inference thread."""
        if self.runner is None:
            self.now += seconds
            return
        with self._changed:
            self._due = self.now + seconds
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._due is None, 60), "the loop waits for the policy"

    def sleep(self, seconds: float) -> None:
        """Move on, in the loop's thread; a policy that would be done in between is."""
        assert self.runner is not None
        until = self.now + seconds
        with self._changed:
            assert self._changed.wait_for(lambda: self._due is not None or not self.runner._busy, 60)
            done = self._due is not None and self._due <= until
            if done:
                self.now, self._due = self._due, None
                self._changed.notify_all()
        if done:
            self.runner._wait_idle()
        self.now = until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    made = VirtualTime()
    monkeypatch.setattr(realtime, "time", made)
    return made


class TickPolicy:
    """A policy whose chunk says, in its first two numbers, from which observation it comes and for which step it is."""

    def __init__(
        self,
        gate: threading.Semaphore | None = None,
        delay_s: float = 0.0,
        obs_steps: int = 1,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.real = make_policy(DeterministicHeadConfig(), pred_steps=TP, exec_steps=4, obs_steps=obs_steps)
        self.gate, self.delay_s, self.wait, self.windows = gate, delay_s, wait, []

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    @property
    def planner(self) -> TickPolicy:
        return self

    def act(self, obs: dict[str, Tensor], **_: object) -> Tensor:
        self.windows.append(obs["state"][0, :, 0].tolist())
        if self.gate is not None:
            assert self.gate.acquire(timeout=60)
        self.wait(self.delay_s)
        chunk = torch.zeros(1, TP, 3)
        chunk[..., 0] = obs["state"][0, -1, 0]
        chunk[..., 1] = torch.arange(TP)
        return chunk


def observation(tick: int) -> dict[str, Tensor]:
    obs = {key: value[0] for key, value in make_obs(1).items()}
    obs["state"] = torch.full((5,), float(tick))
    return obs


def runner_of(policy: TickPolicy, **options) -> RealtimeRunner:
    return RealtimeRunner(policy, **options)  # type: ignore[arg-type]


def test_every_executed_action_was_predicted_for_its_tick(clock: VirtualTime) -> None:
    """The chunk's observation tick plus the step within the chunk is the tick at which it is executed."""
    with runner_of(TickPolicy(delay_s=0.32, wait=clock.work), control_hz=10) as runner:
        runner.start(observation(0))
        clock.runner = runner
        executed = []

        def step(action: Tensor) -> dict[str, Tensor]:
            executed.append(action.clone())
            return observation(len(executed))

        timing = control_loop(step, runner, ticks=24)
        clock.sleep(1.0)  # whoever is at work gets done
        stats = runner.stats
    assert [int(a[0] + a[1]) for a in executed] == list(range(24))
    assert timing.ticks == 24
    assert stats.held_ticks == 0
    assert stats.chunks > 3
    assert stats.dropped_actions >= 3 * (stats.chunks - 1)  # 0.32 s are more than 3 ticks at 10 Hz


def test_no_tick_waits_for_a_slow_policy(clock: VirtualTime) -> None:
    """Inference takes almost three control periods; a loop that waited for it would miss ticks at once."""
    with runner_of(TickPolicy(delay_s=0.7, wait=clock.work), control_hz=4) as runner:
        runner.start(observation(0))
        clock.runner = runner
        timing = control_loop(lambda action: observation(0), runner, ticks=10)
        clock.sleep(1.0)
        assert timing.missed == 0
        assert timing.worst_s == 0.0
        assert runner.stats.held_ticks == 0


def test_late_chunks_lose_their_past_due_actions_and_starved_ticks_hold() -> None:
    gate = threading.Semaphore(1)
    policy = TickPolicy(gate)
    with runner_of(policy, control_hz=1000) as runner:
        runner.start(observation(0))
        actions = [runner.act(observation(t)) for t in range(13)]  # the second chunk is held back by the gate
        assert [int(a[1]) for a in actions] == [*range(10), 9, 9, 9]
        assert runner.stats.held_ticks == 3
        gate.release()
        runner._wait_idle()
        asked_at = int(policy.windows[-1][0])
        late = runner.act(observation(13))
        if 13 - asked_at < TP:
            assert (int(late[0]), int(late[1])) == (asked_at, 13 - asked_at)
            assert runner.stats.dropped_actions == 13 - asked_at
        gate.release()


def test_a_chunk_past_due_as_a_whole_is_dropped() -> None:
    queue = ChunkQueue()
    old, new = torch.zeros(10, 2), torch.ones(4, 2)
    assert queue.put(old, predicted_at=0, now=0) == 0
    assert queue.put(new, predicted_at=1, now=8) == 4
    assert torch.equal(queue.get(8), old[8])
    assert queue.get(10) is None
    assert queue.put(new, predicted_at=9, now=11) == 2
    assert queue.get(8) is None
    assert torch.equal(queue.get(12), new[3])


def test_the_policy_sees_the_history_that_training_would_show_it() -> None:
    policy = TickPolicy(obs_steps=3)
    with runner_of(policy, control_hz=1000) as runner:
        runner.start(observation(0))
        for tick in range(9):
            runner.act(observation(tick))
            runner._wait_idle()
    assert policy.windows[0] == [0, 0, 0]
    for window in policy.windows[1:]:
        assert window == [max(window[2] - back, 0) for back in (2, 1, 0)]


def test_the_same_seed_gives_the_same_actions_and_the_model_is_asked_as_it_is() -> None:
    policy: Policy = make_policy(DeterministicHeadConfig(), pred_steps=TP, exec_steps=4).eval()
    obs = observation(3)
    with RealtimeRunner(policy, control_hz=100) as runner:
        runner.start(obs)
        received = runner.act(obs)
    expected = policy.act({key: value.view(1, 1, -1) for key, value in obs.items()}, deterministic=True)[0, 0]
    torch.testing.assert_close(received, expected)


def test_errors_of_the_policy_reach_the_control_loop() -> None:
    policy = TickPolicy()
    with runner_of(policy, control_hz=1000) as runner:
        runner.start(observation(0))
        policy.delay_s = "soon"  # type: ignore[assignment]
        with pytest.raises(TypeError):  # noqa: PT012
            for tick in range(100):
                runner.act(observation(tick))
                wait_until(lambda: not runner._busy)


def test_bad_arguments_are_named() -> None:
    policy = TickPolicy()
    with pytest.raises(PolicyError, match="between 1 and the policy's pred_steps 10, received 11"):
        runner_of(policy, control_hz=20, exec_steps=11)
    with pytest.raises(PolicyError, match="control_hz must be positive, received 0"):
        runner_of(policy, control_hz=0)
    with (
        runner_of(policy, control_hz=20) as runner,
        pytest.raises(PolicyError, match=r"needs observations \['goal.xy'\]"),
    ):
        runner.start({"state": torch.zeros(5)})
