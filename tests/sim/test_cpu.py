"""The CPU back end against C MuJoCo stepped by hand."""

from __future__ import annotations

import threading

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from robolearn.errors import TaskError
from robolearn.sim.cpu import CpuSimulation
from robolearn.sim.pool import WorkerPool
from robolearn.sim.simulation import STATE_SPEC, Start, UnstableError, state_layout

PENDULUM = """
<mujoco>
  <option timestep="0.004"/>
  <worldbody>
    <geom name="floor" type="plane" size="3 3 0.1"/>
    <body name="mark" mocap="true" pos="1 2 3"/>
    <body name="arm" pos="0 0 1">
      <joint name="hinge" axis="0 1 0" damping="0.1"/>
      <geom name="rod" type="capsule" size="0.03" fromto="0 0 0 0 0 -0.5"/>
    </body>
    <body name="ball" pos="0.6 0 0.2">
      <freejoint/>
      <geom name="ball" size="0.08"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" gear="2"/></actuator>
  <sensor>
    <jointpos name="angle" joint="hinge"/>
    <framepos name="ball" objtype="xbody" objname="ball"/>
    <framepos name="mark" objtype="xbody" objname="mark"/>
    <jointactuatorfrc name="torque" joint="hinge"/>
  </sensor>
</mujoco>
"""
N = 5


@pytest.fixture
def model():
    return mujoco.MjModel.from_xml_string(PENDULUM)


@pytest.fixture
def sim(model):
    made = CpuSimulation(model, N, threads=2)
    yield made
    made.close()


def starts(model, seed=0):
    rng = np.random.default_rng(seed)
    qpos = np.tile(model.qpos0, (N, 1))
    qpos[:, 0] = rng.uniform(-1, 1, N)
    qpos[:, 1:4] += rng.uniform(-0.1, 0.1, (N, 3))
    return Start(qpos=torch.from_numpy(qpos), ctrl=torch.from_numpy(rng.uniform(-1, 1, (N, 1))))


def by_hand(model, start, i, controls, substeps):
    """The same episode, stepped by nothing but C MuJoCo."""
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = start.qpos[i].numpy(), start.ctrl[i].numpy()
    mujoco.mj_forward(model, data)
    data.qacc_warmstart[:] = 0
    for control in controls:
        data.ctrl[:] = control[i].numpy()
        for _ in range(substeps):
            mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    return data


def test_steps_are_those_of_mujoco_bit_for_bit(model, sim):
    start, controls = starts(model), torch.randn(30, N, 1, dtype=torch.float64)
    sim.reset(start)
    for control in controls:
        sim.ctrl[:] = control
        sim.step(4, sensors=False)
    sim.ctrl[:] = controls[-1]
    for i in range(N):
        data = by_hand(model, start, i, controls, 4)
        assert np.array_equal(sim.qpos[i].numpy(), data.qpos)
        assert np.array_equal(sim.qvel[i].numpy(), data.qvel)


def test_sensors_are_of_the_state_reached(model, sim):
    start, controls = starts(model), torch.randn(7, N, 1, dtype=torch.float64)
    sim.reset(start)
    assert np.array_equal(sim.sensor("angle")[:, 0], start.qpos[:, 0])
    for control in controls:
        sim.ctrl[:] = control
        sim.step(3)
        assert torch.equal(sim.sensor("angle"), sim.qpos[:, :1]), "not one substep behind"
        assert torch.equal(sim.sensor("torque"), 2.0 * control), "forces belong to the state reached, too"
    data = by_hand(model, start, 2, controls, 3)
    np.testing.assert_allclose(sim.sensordata[2], data.sensordata, rtol=0, atol=1e-12)


def test_views_need_no_copies(model, sim):
    pointers = [t.data_ptr() for t in (sim.qpos, sim.qvel, sim.sensordata, sim.ctrl)]
    seen = sim.qpos
    before = seen.clone()
    sim.reset(starts(model))
    sim.step(2)
    assert [t.data_ptr() for t in (sim.qpos, sim.qvel, sim.sensordata, sim.ctrl)] == pointers
    assert not torch.equal(seen, before)


def test_a_masked_step_leaves_the_others_alone(model, sim):
    sim.reset(starts(model))
    mask = torch.tensor([True, False, True, False, False])
    before = sim.get_state()
    sim.step(5, mask)
    moved = (sim.get_state() != before).any(dim=-1)
    assert torch.equal(moved, mask)


def test_a_masked_reset_leaves_the_others_alone(model, sim):
    sim.reset(starts(model))
    sim.step(5)
    before, mask = sim.get_state(), torch.tensor([False, True, False, False, True])
    sim.reset(starts(model, seed=1), mask)
    after = sim.get_state()
    assert torch.equal((after != before).any(dim=-1), mask)
    assert (sim.time[mask] == 0).all()
    assert (sim.time[~mask] > 0).all()


@settings(max_examples=15)
@given(steps=st.integers(1, 12), substeps=st.integers(1, 6), seed=st.integers(0, 1000))
def test_replay_from_a_saved_state_is_exact(steps, substeps, seed):
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    sim = CpuSimulation(model, N, threads=2)
    sim.reset(starts(model, seed))
    controls = torch.randn(steps, N, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sim.ctrl[:] = 0.3
    sim.step(9)  # into contact, so that the solver's warm start matters
    saved, sensors = sim.get_state(), sim.sensordata.clone()
    first = []
    for control in controls:
        sim.ctrl[:] = control
        sim.step(substeps)
        first.append(sim.get_state())
    sim.reset(starts(model, seed + 1))
    sim.set_state(saved)
    assert torch.equal(sim.get_state(), saved)
    assert torch.equal(sim.sensordata, sensors)
    for control, expected in zip(controls, first):
        sim.ctrl[:] = control
        sim.step(substeps)
        assert torch.equal(sim.get_state(), expected)
    sim.close()


def test_a_state_row_is_mujocos_own(model, sim):
    """Any tool that knows mj_setState can restore our rows."""
    sim.reset(starts(model))
    sim.step(20)
    data = mujoco.MjData(model)
    mujoco.mj_setState(model, data, sim.get_state()[3].numpy(), STATE_SPEC)
    assert np.array_equal(data.qpos, sim.qpos[3].numpy())
    assert np.array_equal(data.mocap_pos, sim.mocap_pos[3].numpy())
    layout = state_layout(model)
    assert layout["qpos"] == slice(1, 1 + model.nq)
    assert layout["plugin"].stop == mujoco.mj_stateSize(model, STATE_SPEC)


def test_mocap_bodies_can_be_moved_between_steps(model, sim):
    sim.reset(starts(model))
    assert torch.equal(sim.sensor("mark"), torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64).expand(N, 3))
    sim.mocap_pos[1] = torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64)
    sim.step(1)
    assert sim.sensor("mark")[1].tolist() == [4.0, 5.0, 6.0]
    assert sim.sensor("mark")[0].tolist() == [1.0, 2.0, 3.0]


def test_further_fields_are_read_as_mujoco_leaves_them(model):
    """Contact forces are computed where they are asked for; they and frames are those of the last substep's start."""
    start, mask = starts(model), torch.tensor([True, False, True, True, True])
    sim = CpuSimulation(model, N, threads=2, fields=("xpos", "cfrc_ext"))
    sim.reset(start)
    sim.step(200, sensors=False)
    sim.step(3, mask, sensors=False)
    for i in range(N):
        data = by_hand(model, start, i, [], 1)
        mujoco.mj_step(model, data, nstep=203 if mask[i] else 200)
        mujoco.mj_rnePostConstraint(model, data)
        assert np.array_equal(sim.fields["xpos"][i], data.xpos)
        assert np.array_equal(sim.fields["cfrc_ext"][i], data.cfrc_ext)
        assert data.cfrc_ext.any(), "a test of contact forces without contact"
    sim.set_state(sim.get_state())
    assert not sim.fields["cfrc_ext"].any(), "what is no part of a state does not survive its restoration"
    sim.close()


def test_models_of_their_own(model, sim):
    """Twice the damping in two worlds only, against a model compiled with it."""
    mask = torch.tensor([True, False, False, True, False])
    damping = torch.from_numpy(np.tile(model.dof_damping, (N, 1)))
    damping[:, 0] = 0.9
    sim.set_model({"dof_damping": damping}, mask)
    start = starts(model)
    sim.reset(start)
    sim.step(50)
    other = mujoco.MjModel.from_xml_string(PENDULUM.replace('damping="0.1"', 'damping="0.9"'))
    for i in range(N):
        data = by_hand(other if mask[i] else model, start, i, start.ctrl[None], 50)
        np.testing.assert_allclose(sim.qpos[i], data.qpos, rtol=0, atol=1e-12)
    assert model.dof_damping[0] == pytest.approx(0.1), "the shared model stays as it was"


def test_constants_follow_a_joint_that_moved(model, sim):
    place = torch.from_numpy(np.tile(model.jnt_pos, (N, 1, 1)))
    place[1, 0, 2] = -0.2
    sim.set_model({"jnt_pos": place})
    other = mujoco.MjModel.from_xml_string(PENDULUM.replace('name="hinge" ', 'name="hinge" pos="0 0 -0.2" '))
    for i, expected in ((0, model), (1, other)):
        np.testing.assert_allclose(sim.world(i)[0].dof_invweight0, expected.dof_invweight0, rtol=1e-12)


@pytest.fixture
def crashes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log into the working directory
    monkeypatch.setenv("ROBOLEARN_CRASH_DIR", str(tmp_path / "crashes"))
    return tmp_path / "crashes"


def test_one_bad_world_is_named_saved_and_contained(model, sim, crashes):
    start = starts(model)
    sim.reset(start)
    for _ in range(3):
        sim.step(2)
    good = sim.get_state()
    poisoned = good.clone()
    poisoned[2, sim.layout["qvel"]] = 1e12  # finite, but MuJoCo gives up on it while stepping
    sim.set_state(poisoned, torch.arange(N) == 2)
    with pytest.raises(UnstableError, match=r"environment 2 at step 4") as caught:
        sim.step(2)
    assert caught.value.indices == (2,)
    assert "mjWARN" in str(caught.value)
    saved = np.load(caught.value.path)
    assert caught.value.path.parent == crashes
    assert np.array_equal(saved["states"][0], poisoned[2].numpy())
    reference = CpuSimulation(model, N, threads=1)
    reference.set_state(good)
    reference.step(2)
    for i in (0, 1, 3, 4):
        assert torch.equal(sim.get_state()[i], reference.get_state()[i]), "the others were stepped as if nothing was"
    sim.reset(start, torch.arange(N) == 2)
    sim.step(2)  # and all of them go on
    assert torch.isfinite(sim.get_state()).all()


def test_not_a_number_in_one_world(model, sim, crashes):
    sim.reset(starts(model))
    sim.ctrl[4] = torch.nan
    with pytest.raises(UnstableError, match="environment 4"):
        sim.step(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.step(0), "substeps"),
        (lambda s: s.step(1, torch.ones(3, dtype=torch.bool)), r"mask must be \(5,\)"),
        (lambda s: s.reset(Start(qpos=torch.zeros(2, 8))), "start.qpos must have 5 rows"),
        (lambda s: s.set_state(torch.zeros(N, 3, dtype=torch.float64)), "received 3"),
    ],
)
def test_wrong_shapes_are_refused(sim, call, message):
    with pytest.raises(TaskError, match=message):
        call(sim)


def test_no_environment_is_refused(model):
    with pytest.raises(TaskError, match="num_envs=0"):
        CpuSimulation(model, 0)


def test_the_number_of_threads_changes_nothing(model):
    results = []
    for threads in (1, 3):
        sim = CpuSimulation(model, N, threads=threads)
        sim.reset(starts(model))
        for _ in range(10):
            sim.step(3)
        results.append(sim.get_state())
        sim.close()
    assert torch.equal(*results)


def test_the_pool_runs_every_item_once_and_reports_the_first_error():
    pool, seen, lock = WorkerPool(3), [], threading.Lock()

    def work(item):
        with lock:
            seen.append(item)
        if item == 7:
            raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        pool.run(work, list(range(50)))
    assert sorted(seen) == list(range(50)), "the others were not dropped"
    pool.run(work, [])
    pool.close()
    pool.run(work, [100])
    assert seen[-1] == 100, "a closed pool still works, on the calling thread"


def test_closing_ends_the_threads(model):
    before = threading.active_count()
    sim = CpuSimulation(model, N, threads=4)
    assert threading.active_count() > before
    sim.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("integrator", ["Euler", "RK4", "implicitfast"])
def test_evaluated_sensors_spare_half_a_substep_and_change_no_bit(integrator):
    """Every step but the first starts from evaluated sensors; a body moved, another model or a reset ends that."""
    xml = PENDULUM.replace('timestep="0.004"', f'integrator="{integrator}"')
    obstacle = '<body name="mark" mocap="true" pos="1 2 3"><geom size="0.3"/></body>'
    model = mujoco.MjModel.from_xml_string(xml.replace('<body name="mark" mocap="true" pos="1 2 3"/>', obstacle))
    sim, start = CpuSimulation(model, N, threads=2), starts(model)
    datas = [mujoco.MjData(model) for _ in range(N)]
    models = [model] * N
    rng, mask = np.random.default_rng(0), torch.tensor([True, False, True, True, False])
    sim.reset(start)
    for i, data in enumerate(datas):
        data.qpos[:], data.ctrl[:] = start.qpos[i].numpy(), start.ctrl[i].numpy()
    for k in range(60):
        if k % 7 == 3:
            sim.mocap_pos[:] = torch.from_numpy(rng.uniform(-1, 1, (N, 1, 3)))
        if k == 30:
            damping = torch.from_numpy(np.tile(model.dof_damping, (N, 1))) * 3.0
            sim.set_model({"dof_damping": damping})
            models = [sim.world(i)[0] for i in range(N)]
        sim.ctrl[:] = torch.from_numpy(rng.normal(size=(N, 1)))
        chosen = mask if k % 5 in (2, 3) else torch.ones(N, dtype=torch.bool)
        sim.step(1 + k % 3, None if chosen.all() else chosen, sensors=k % 11 != 10)
        for i in chosen.nonzero().flatten().tolist():
            datas[i].ctrl[:], datas[i].mocap_pos[:] = sim.ctrl[i].numpy(), sim.mocap_pos[i].numpy()
            mujoco.mj_step(models[i], datas[i], 1 + k % 3)
        for i, data in enumerate(datas):
            assert np.array_equal(sim.qpos[i], data.qpos)
            assert np.array_equal(sim.qvel[i], data.qvel)
    sim.close()
