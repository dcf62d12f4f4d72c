"""Every task against its contract: spaces, seeds, rewards, success, replay, experts."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.specs import ObservationSpec
from robolearn.tasks import registry
from robolearn.tasks.draw import Draw
from robolearn.tasks.scripted import ArmExpert
from robolearn.tasks.task import Sensors

NAMES = registry.own_names()
ARM = ["Reach", "Lift", "PickPlace", "Stack", "PegInsert"]
FAST_SEEDS = {"PushT": 24}


def make(name, num_envs=1, **options) -> TaskEnv:
    return make_task(name, num_envs, **options)


def run_expert(name, seeds, **options):
    """Success (E,), steps (E,), and every observation and action of the expert's episodes."""
    env = make(name, len(seeds), **options)
    expert, obs = env.expert(), env.reset(seeds)
    expert.reset(seeds)
    running = torch.ones(len(seeds), dtype=torch.bool)
    success, steps, observations, actions = torch.zeros_like(running), torch.zeros(len(seeds)), [], []
    while running.any():
        action = expert.act(obs)
        observations.append(obs)
        actions.append(action)
        step = env.step(action, running)
        obs = step.obs
        steps += running
        success |= step.success & running
        running &= ~step.done
    env.close()
    return success, steps, observations, actions


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name):
    env = make(name, 4)
    obs = env.reset([0, 1, 2, 3])
    assert isinstance(env.observation_spec, ObservationSpec)
    assert list(obs) == list(env.observation_spec)
    assert env.control_hz == 20.0
    for _ in range(3):
        actions = 2 * torch.rand(4, env.action_spec.size) - 1
        step = env.step(actions)
        for key, spec in env.observation_spec.items():
            assert step.obs[key].shape == (4, *spec.shape)
            assert step.obs[key].dtype == torch.float32
            assert torch.isfinite(step.obs[key]).all()
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == step.success.shape == (4,)
        assert step.reward.dtype == torch.float32
        assert step.terminated.dtype == step.truncated.dtype == step.success.dtype == torch.bool
    assert env.task.summary
    assert env.task.name == name
    env.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_an_episode_whatever_surrounds_it(name):
    many, one = make(name, 6), make(name, 1)
    many.reset([50, 51, 52, 53, 54, 55])
    alone = one.reset([54])
    state = many.get_states()[4]
    assert np.array_equal(one.get_states()[0], state)
    many.step(torch.zeros(6, many.action_spec.size))
    mask = torch.arange(6) == 1
    again = many.reset([54], mask)
    assert np.array_equal(many.get_states()[1], state)
    for key in alone:
        assert torch.equal(again[key][1], alone[key][0])


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_wide_and_legal(name):
    """No start is solved, none is in deep contact, and no two of 300 are alike in where the objects are."""
    env = make(name, 300)
    env.reset(range(300))
    sensors = Sensors.read(env.simulation)
    assert not env.task.solved(sensors).any()
    depth = [min((c.dist for c in env.simulation.world(i)[1].contact), default=0.0) for i in range(300)]
    assert min(depth) > -0.002
    arrays = env.task.start(Draw(torch.arange(300)))
    spread = arrays.qpos[:, 8:] if name in ARM else arrays.qpos
    if arrays.mocap_pos is not None:
        spread = torch.cat((spread, arrays.mocap_pos.flatten(1)), dim=-1)
    assert spread.std(dim=0).max() > 0.05
    apart = torch.cdist(spread, spread) + 10 * torch.eye(300)
    assert apart.min() > 0, "all different"


@pytest.mark.parametrize("name", NAMES)
def test_replay_reproduces_the_recorded_states_bit_for_bit(name):
    env, other = make(name, 2), make(name, 3)
    env.reset([8, 9])
    states, actions = [], []
    generator = torch.Generator().manual_seed(1)
    for _ in range(25):
        actions.append(2 * torch.rand(2, env.action_spec.size, generator=generator) - 1)
        states.append(env.get_states())
        last = env.step(actions[-1])
    other.reset([1, 2, 3])
    mask = torch.tensor([True, False, True])
    other.set_states(states[0], mask)
    for k, action in enumerate(actions):
        assert np.array_equal(other.get_states()[[0, 2]], states[k])
        step = other.step(torch.stack((action[0], torch.zeros_like(action[0]), action[1])))
    for key, value in last.obs.items():
        assert torch.equal(step.obs[key][[0, 2]], value)


@pytest.mark.parametrize("name", NAMES)
def test_rewards_and_ends(name):
    seeds = [3, 4]
    env = make(name, 2, reward="dense")
    sparse = make(name, 2)
    expert, obs = env.expert(), env.reset(seeds)
    sparse.reset(seeds)
    expert.reset(seeds)
    running, best = torch.ones(2, dtype=torch.bool), -1.0
    while running.any():
        action = expert.act(obs)
        dense, plain = env.step(action, running), sparse.step(action, running)
        obs = dense.obs
        assert torch.equal(dense.success[running], plain.success[running])
        assert torch.equal(plain.reward[running], plain.success[running].float())
        going = running & ~dense.success
        assert (dense.reward[going] <= 0).all(), "so that ending early is never worse"
        assert (dense.reward[running & dense.success] > 0).all()
        assert torch.equal(dense.terminated[running], dense.success[running])
        best = max(best, float(dense.reward[running].max()))
        running &= ~dense.done
    assert best > 0


@pytest.mark.parametrize("name", NAMES)
def test_success_must_be_held(name, monkeypatch):
    env = make(name, 1)
    env.reset([0])
    pattern = iter([True] * 4 + [False] + [True] * 5)
    monkeypatch.setattr(env.task, "solved", lambda sensors: torch.tensor([next(pattern)]))
    zero = torch.zeros(1, env.action_spec.size)
    seen = [bool(env.step(zero).success[0]) for _ in range(10)]
    assert seen == [False] * 9 + [True]


@pytest.mark.parametrize("name", NAMES)
def test_the_time_limit_truncates(name):
    env = make(name, 2, max_steps=3)
    env.reset([0, 1])
    steps = [env.step(torch.zeros(2, env.action_spec.size)) for _ in range(3)]
    assert [bool(s.truncated.any()) for s in steps] == [False, False, True]
    assert not any(s.terminated.any() for s in steps)


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_solves_the_task(name):
    count = FAST_SEEDS.get(name, 32)
    success, *_ = run_expert(name, list(range(700, 700 + count)))
    assert success.float().mean() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_expert_solves_the_task_on_500_seeds(name):
    success, *_ = run_expert(name, list(range(10_000, 10_500)))
    assert success.float().mean() >= 0.98


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_is_various_and_repeatable(name):
    """One start, many styles: paths differ; the same seed gives the same actions."""
    env = make(name, 6)
    env.reset([5] * 6)
    expert = env.expert()
    obs = env.reset([5] * 6)
    styles = [1, 2, 3, 4, 5, 1]
    expert.reset(styles)
    for _ in range(15):
        action = expert.act(obs)
        assert torch.equal(action[0], action[5])
        obs = env.step(action).obs
    positions = obs["proprio"][:, : 3 if name in ARM else 2]
    apart = torch.pdist(positions[:5].double())
    assert (apart > 1e-3).all()


def test_the_pushing_expert_needs_no_memory():
    """What it does follows from what is observed, as it must for a policy without memory to learn it."""
    env, seeds = make("PushT", 12), list(range(300, 312))
    expert, obs = env.expert(), env.reset(seeds)
    running, success = torch.ones(12, dtype=torch.bool), torch.zeros(12, dtype=torch.bool)
    while running.any():
        expert.reset(seeds)
        step = env.step(expert.act(obs), running)
        obs, success, running = step.obs, success | (step.success & running), running & ~step.done
    assert success.sum() >= 10


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_can_be_asked_anywhere(name):
    """DAgger asks at states the expert did not bring about; it must answer, and recover from many of them."""
    env = make(name, 16)
    expert, seeds = env.expert(), list(range(16))
    obs = env.reset(seeds)
    expert.reset(seeds)
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        expert.act(obs)
        obs = env.step(2 * torch.rand(16, env.action_spec.size, generator=generator) - 1).obs
    running, success = torch.ones(16, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
    for _ in range(env.max_steps - 20):
        action = expert.act(obs)
        assert torch.isfinite(action).all()
        assert action.abs().max() <= 1.0
        step = env.step(action, running)
        obs = step.obs
        success |= step.success & running
        running &= ~step.done
        if not running.any():
            break
    assert success.sum() >= (8 if name == "PushT" else 13), "pushed far away, a T takes longer than the horizon"


def test_fork_is_taken_on_either_side():
    seeds = list(range(60))
    _, _, observations, _ = run_expert("Fork", seeds)
    sides = torch.zeros(60)
    for obs in observations:
        at_wall = obs["object"][:, 2].abs() < 0.02
        sides = torch.where(at_wall, torch.sign(obs["object"][:, 3]), sides)
    assert 18 <= int((sides > 0).sum()) <= 42
    assert (sides != 0).all()


def test_whoever_goes_straight_fails_at_the_wall_of_fork_where_it_is_touched():
    env = make("Fork", 8, reward="dense")
    obs = env.reset(range(8))
    running, touching = torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)
    elapsed = 0
    while running.any():
        elapsed += 1
        towards = torch.where(obs["object"][:, 2:] > 0.1, obs["object"][:, 2:], obs["goal"][:, 2:])
        step = env.step(towards / towards.norm(dim=-1, keepdim=True), running)
        obs = step.obs
        assert not (step.success | step.truncated).any()
        for i in (step.terminated & running).nonzero().flatten().tolist():
            _, data = env.simulation.world(i)
            model = env.task.model
            nearest = mujoco.mj_geomDistance(model, data, model.geom("pusher").id, model.geom("wall").id, 1.0, None)
            touching[i] = nearest < 0.0015
            left = env.max_steps - elapsed
            assert -1 - left < step.reward[i] <= -left, "failing must not pay, however little progress there is"
        running &= ~step.done
    assert touching.all()


def test_the_peg_has_less_than_a_millimetre_of_clearance():
    """Measured by collision, not read off the file: the shaft fits straight and no longer 1 mm off centre."""
    model = make("PegInsert").task.model
    data = mujoco.MjData(model)
    shaft = float(model.geom("shaft").size[0])
    assert shaft == pytest.approx(0.008)
    free = []
    for angle in np.arange(0, 2 * math.pi, math.pi / 16):
        for offset in np.arange(0.0, 0.002, 0.0001):
            mujoco.mj_resetData(model, data)
            data.mocap_pos[1] = [0.45, 0.12, 0.0]
            data.mocap_pos[0] = [0.45, -0.2, 0.0]
            data.qpos[8:11] = [0.45 + offset * math.cos(angle), 0.12 + offset * math.sin(angle), 0.055 + 0.03]
            mujoco.mj_forward(model, data)
            touching = any(model.body(model.geom_bodyid[g]).name == "hole" for c in data.contact for g in c.geom)
            if touching:
                break
            free.append(offset)
    assert 0.0007 < max(free) < 0.001


def test_a_bounded_command_bounds_the_force_on_the_table():
    """Pushing down for ever must not wind the command up."""
    env = make("Lift", 1)
    env.reset([0])
    push = torch.tensor([[0.0, 0.0, -1.0, 0.0, 1.0]])
    torques = torch.stack([env.step(push).obs["proprio"][0, 20:] for _ in range(120)]).abs()
    assert torques[-1].max() * 10 < 120
    assert (torques[-1] - torques[-20]).abs().max() < 1.0


@pytest.mark.parametrize("name", ARM)
def test_actions_move_the_tool_as_their_names_say(name):
    env = make(name, 1)
    limits = dict(zip(env.action_spec.names, env.action_spec.high))
    for i, axis in enumerate("xyz"):
        before = env.reset([1])["proprio"][0, :3]
        action = torch.zeros(1, env.action_spec.size)
        if "grip" in env.action_spec.names:
            action[0, -1] = -1.0
        for sign in (1.0, 0.0, 0.0, 0.0):
            action[0, i] = sign
            after = env.step(action).obs["proprio"][0, :3]
        moved = after - before
        assert float(moved[i]) == pytest.approx(limits[f"delta_{axis}"], abs=0.004)
        assert moved.abs().sum() - moved[i].abs() < 0.008


def test_joint_control():
    env = make("Lift", 1, control="joint")
    assert env.action_spec.size == 7
    before = env.reset([0])["proprio"][0, 8:14]
    action = torch.zeros(1, 7)
    for value in (1.0, 0.0, 0.0, 0.0):
        action[0, 2] = value
        after = env.step(action).obs["proprio"][0, 8:14]
    assert float((after - before)[2]) == pytest.approx(0.06, abs=0.01)
    assert float((after - before).abs().sum()) < 0.09


@pytest.mark.parametrize("name", ["Lift", "PegInsert", "PushT"])
def test_physics_randomisation_changes_the_physics_and_nothing_else(name):
    plain, varied = make(name, 3), make(name, 3, random_physics=1.0)
    a, b = plain.reset([1, 2, 3]), varied.reset([1, 2, 3])
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0.35 if key == "proprio" else 1e-5)
    model = varied.simulation.world(1)[0]
    body = model.body(varied.task.random_mass[0])
    nominal = varied.task.model.body(varied.task.random_mass[0])
    assert 1 / 1.51 < body.mass[0] / nominal.mass[0] < 1.51
    assert body.mass[0] != nominal.mass[0]
    np.testing.assert_allclose(body.inertia / nominal.inertia, body.mass[0] / nominal.mass[0])
    single = make(name, 1, random_physics=1.0)
    single.reset([2])
    assert single.simulation.world(0)[0].body(varied.task.random_mass[0]).mass == body.mass, "it belongs to the seed"


def test_physics_randomisation_survives_replay():
    env, other = make("Lift", 2, random_physics=1.0), make("Lift", 2, random_physics=1.0)
    env.reset([10, 11])
    first, action = env.get_states(), torch.full((2, 5), 0.3)
    for _ in range(20):
        env.step(action)
    other.set_states(first)
    for _ in range(20):
        other.step(action)
    assert np.array_equal(env.get_states(), other.get_states())


@pytest.mark.parametrize("name", NAMES)
def test_the_model_in_one_piece_is_the_task_s(name):
    """What a dataset stores: it compiles elsewhere, and a state row's beginning fits it."""
    env = make(name, 1)
    env.reset([4])
    env.step(torch.full((1, env.action_spec.size), 0.4))
    model = mujoco.MjModel.from_xml_string(env.model_xml)
    data = mujoco.MjData(model)
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(model, data, env.get_states()[0][: mujoco.mj_stateSize(model, spec)], spec)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.sensordata, env.simulation.sensordata[0], rtol=1e-4, atol=1e-4)
    assert "include" not in env.model_xml


def test_an_experts_patience_is_its_episodes_own() -> None:
    class Still(ArmExpert):
        def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.zeros(self.num_envs, self.action_size)

    expert = Still(3, 5, torch.device("cpu"))
    expert.reset([1, 2, 3])
    for _ in range(4):
        expert.wait(torch.ones(3, dtype=torch.bool))
    expert.reset([9], torch.tensor([False, True, False]))
    assert expert.waited.tolist() == [4, 0, 4]
