"""MuJoCo Warp on its CPU device against C MuJoCo; and what is said where CUDA is missing.

Compiling Warp's kernels takes a minute where its cache is cold, so the fast suite has the smallest task only.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np
import pytest
import torch

from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.errors import TaskError
from robolearn.sim.simulation import UnstableError
from robolearn.sim.warp import WarpSimulation
from robolearn.tasks import registry
from robolearn.tasks.arm.lift import Lift

warp = pytest.importorskip("mujoco_warp")
N = 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_where_there_is_none_is_a_clear_error():
    with pytest.raises(TaskError, match=r"finds no CUDA device.*backend='cpu'"):
        TaskEnv.of(Lift, 1, backend="warp", device="cuda")


@pytest.mark.parametrize("device", ["tpu-9", "mps"])
def test_other_devices_are_refused(device):
    with pytest.raises(TaskError, match="cuda"):
        TaskEnv.of(Lift, 1, backend="warp", device=device)


def pair(name) -> tuple[TaskEnv, TaskEnv]:
    return make_task(name, N, backend="warp", device="cpu"), make_task(name, N)


def poison(env):
    """Nothing that a step computes may survive from before it (the world body is never computed)."""
    env.simulation.sensordata.fill_(float("nan"))
    data = env.simulation._data
    for name in ("qacc", "qfrc_constraint", "qfrc_actuator", "qfrc_bias", "actuator_force", "qacc_smooth", "site_xpos"):
        env.simulation._torch(getattr(data, name)).fill_(float("nan"))
    for name in ("xpos", "xmat", "xquat", "cvel"):
        env.simulation._torch(getattr(data, name))[:, 1:].fill_(float("nan"))


def touching(env, depth):
    """Which pairs of geoms touch in each world, by C MuJoCo's own collision detection in the state reached."""
    worlds = [env.simulation.world(i)[1] for i in range(N)]
    return [{tuple(sorted(map(int, c.geom))) for c in data.contact if c.dist < -depth} for data in worlds]


def same_contacts(ours, theirs):
    """What presses in one back end at least touches in the other."""
    pairs = ((ours, theirs), (theirs, ours))
    return all(p <= t for a, b in pairs for p, t in zip(touching(a, 5e-5), touching(b, -1e-4)))


@pytest.mark.parametrize(
    "name", [n if n == "Fork" else pytest.param(n, marks=pytest.mark.slow) for n in registry.own_names()]
)
def test_one_step_agrees(name):
    """From states on the expert's way (in the air, in contact, holding): state, sensors and contacts after one step."""
    ours, theirs = pair(name)
    expert, obs = theirs.expert(), theirs.reset(range(N))
    ours.reset(range(N))
    expert.reset(range(N))
    for k in range(48):
        obs = theirs.step(expert.act(obs)).obs
        if k % 4:
            continue
        states = theirs.get_states()
        ours.set_states(states)
        poison(ours)
        for env in (ours, theirs):
            env.simulation.step(1)
        mine, reference = ours.simulation, theirs.simulation
        # A cylinder against boxes: the two may find different contact points on the same faces.
        looser = 30 if name == "PegInsert" else 1
        torch.testing.assert_close(mine.qpos.double(), reference.qpos, rtol=0, atol=1e-4 * looser)
        torch.testing.assert_close(mine.qvel.double(), reference.qvel, rtol=0, atol=6e-2 * looser)
        off = (mine.qpos.double() - reference.qpos).abs() > 2e-5
        assert off.double().mean() < (0.4 if name == "PegInsert" else 0.15)
        for sensor, where in mine.sensor_slices.items():
            scale = 1.0 + reference.sensordata[:, where].abs()
            error = (mine.sensordata[:, where].double() - reference.sensordata[:, where]).abs() / scale
            limit = (
                0.1 if sensor.startswith("touch") else 2e-2 if "torque" in sensor or sensor.startswith("d") else 1e-4
            )
            assert error.max() < limit * looser, (name, k, sensor, float(error.max()))
        assert same_contacts(ours, theirs), (name, k)
        theirs.set_states(states)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.own_names())
def test_a_hundred_steps_have_the_same_outcome(name):
    ours, theirs = pair(name)
    outcomes = []
    for env in (ours, theirs):
        expert, obs = env.expert(), env.reset(range(20, 20 + N))
        expert.reset(range(20, 20 + N))
        success, progress = torch.zeros(N, dtype=torch.bool), None
        running = torch.ones(N, dtype=torch.bool)
        for _ in range(100):
            step = env.step(expert.act(obs), running)
            obs, success = step.obs, success | (step.success & running)
            running &= ~step.done
        from robolearn.tasks.task import Sensors

        progress = env.task.progress(Sensors.read(env.simulation))
        outcomes.append((success, progress))
    (ours_success, ours_progress), (theirs_success, theirs_progress) = outcomes
    assert int((ours_success != theirs_success).sum()) <= 1
    if name != "PushT":  # pushing is chaotic: after 100 steps only the outcome is comparable
        assert (ours_progress - theirs_progress).abs().median() < 0.1


@pytest.mark.slow
def test_states_travel_between_the_back_ends():
    ours, theirs = pair("Lift")
    theirs.reset([4, 5, 6])
    for _ in range(5):
        theirs.step(torch.full((N, 5), 0.3))
    states = theirs.get_states()
    ours.set_states(states)
    torch.testing.assert_close(
        torch.from_numpy(ours.get_states()), torch.from_numpy(states), rtol=1e-6, atol=1e-5, check_dtype=False
    )


@pytest.mark.slow
def test_masks_and_views():
    env, _ = pair("Lift")
    env.reset([1, 2, 3])
    pointer = env.simulation.qpos.data_ptr()
    before = env.simulation.get_state()
    mask = torch.tensor([True, False, False])
    env.step(torch.full((N, 5), 0.5), mask)
    assert torch.equal((env.simulation.get_state() != before).any(-1), mask)
    env.reset([9], torch.tensor([False, False, True]))
    assert torch.equal(env.simulation.get_state()[1], before[1])
    assert env.simulation.time.tolist()[2] == 0.0
    assert env.simulation.qpos.data_ptr() == pointer, "views, not copies"


@pytest.mark.slow
def test_one_bad_world_is_named_and_contained(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLEARN_CRASH_DIR", str(tmp_path))
    env, _ = pair("Lift")
    env.reset([1, 2, 3])
    env.simulation.qvel[1] = float("nan")
    with pytest.raises(UnstableError, match="environment 1 at step 1"):
        env.step(torch.zeros(N, 5))
    assert torch.isfinite(env.simulation.qpos[[0, 2]]).all()
    env.reset([2], torch.tensor([False, True, False]))
    env.step(torch.zeros(N, 5))
    assert torch.isfinite(env.simulation.get_state()).all()


@pytest.mark.slow
def test_too_little_room_for_contacts_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOLEARN_CRASH_DIR", str(tmp_path))
    monkeypatch.setattr(Lift, "warp_constraints", 8)
    env = TaskEnv.of(Lift, 2, backend="warp", device="cpu")
    env.reset([1, 2])
    with pytest.raises(UnstableError, match="more contacts or constraints than there is room for"):
        env.step(torch.zeros(2, 5))


@pytest.mark.slow
def test_randomised_physics_reaches_the_kernels():
    """A cube twice as heavy needs twice the force to hold; the same on both back ends."""
    ours = make_task("Lift", N, backend="warp", device="cpu", random_physics=1.0)
    theirs = make_task("Lift", N, random_physics=1.0)
    a, b = ours.reset([1, 2, 3]), theirs.reset([1, 2, 3])
    for _ in range(8):
        action = torch.full((N, 5), 0.6)
        a, b = ours.step(action).obs, theirs.step(action).obs
    torch.testing.assert_close(a["proprio"], b["proprio"], rtol=1e-2, atol=1e-2)
    plain = make_task("Lift", N).reset([1, 2, 3])
    assert set(plain) == set(a)


LINKS = """
<mujoco>
  <worldbody>
    <body name="upper" pos="0 0 1">
      <joint name="shoulder" axis="0 1 0" armature="0.01"/>
      <geom type="capsule" size="0.04" fromto="0 0 0 0.5 0 0" mass="1"/>
      <site name="low" pos="0.2 0 0"/>
      <body name="lower" pos="0.5 0 0">
        <joint name="elbow" axis="0 1 0"/>
        <geom type="box" size="0.1 0.05 0.04" pos="0.1 0 0" mass="0.5"/>
        <site name="high" pos="0.1 0.02 0"/>
      </body>
    </body>
    <body name="target" mocap="true" pos="0 1 1"/>
    <body name="ball" pos="0 1 1"><freejoint/><geom size="0.1" mass="0.3"/></body>
  </worldbody>
  <tendon><spatial name="string" limited="true" range="0 0.4"><site site="low"/><site site="high"/></spatial></tendon>
  <equality>
    <connect body1="ball" body2="target" anchor="0 0 0.1"/>
    <joint joint1="elbow" joint2="shoulder" active="false"/>
  </equality>
  <actuator><motor joint="shoulder" gear="2"/><motor tendon="string"/></actuator>
  <sensor><subtreecom body="upper"/></sensor>
</mujoco>
"""


@pytest.mark.slow
def test_constants_follow_the_fields_that_they_derive_from():
    """Masses, inertias, places and armatures of their own, in some worlds only: all constants are C MuJoCo's."""
    model = mujoco.MjModel.from_xml_string(LINKS)
    sim = WarpSimulation(model, N, device="cpu")
    sim.mocap_pos[:] = 7.0  # a target that was moved is no part of the model
    state = sim.get_state()
    rng, mask = np.random.default_rng(0), torch.tensor([True, False, True])
    names = ("body_mass", "body_inertia", "body_pos", "dof_armature", "site_pos", "actuator_gear")
    values = {n: getattr(model, n) * rng.uniform(0.7, 1.4, (N, *getattr(model, n).shape)) for n in names}
    sim.set_model({name: torch.from_numpy(value) for name, value in values.items()}, mask)
    assert torch.equal(sim.get_state(), state)
    sim.step(1)
    for i in range(N):
        reference = copy.copy(model)
        if mask[i]:
            for name, value in values.items():
                getattr(reference, name)[:] = value[i]
            mujoco.mj_setConst(reference, mujoco.MjData(reference))
        host, data = sim.world(i)
        for name in ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0"):
            ours, expected = getattr(sim._model, name).numpy(), getattr(reference, name)
            np.testing.assert_allclose(ours[i % len(ours)], expected, rtol=1e-4, atol=1e-6, err_msg=f"{name} of {i}")
            assert np.array_equal(getattr(host, name), expected), name
        for name in ("tendon_length0", "tendon_lengthspring", "eq_data"):
            np.testing.assert_allclose(getattr(sim._model, name).numpy()[i], getattr(reference, name), atol=1e-5)
        assert sim._model.stat.meaninertia.numpy()[i] == pytest.approx(reference.stat.meaninertia, rel=1e-5)
        np.testing.assert_allclose(sim.sensordata[i], data.sensordata, atol=1e-5)
