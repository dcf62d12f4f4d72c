"""Writing and reading back, bit for bit, by every way in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from robolearn.specs import ArraySpec, Event, ObservationSpec
from tests.datasets.factory import CAMERA, STATE, add_step, assert_same, episode, random_array, record, writer

shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)
arrays = st.builds(
    lambda shape, dtype: ArraySpec(shape=shape, dtype=dtype),
    shapes,
    st.sampled_from(["float32", "float64", "uint8", "int16", "int64", "bool"]),
)
images = st.integers(1, 40).flatmap(
    lambda n: st.sampled_from(["uint8", "uint16", "float32"]).map(lambda d: ArraySpec(shape=(n, 40, 3), dtype=d))
)
specs = st.dictionaries(st.from_regex(r"[a-z]\w{0,8}", fullmatch=True), arrays | images, min_size=1, max_size=4).map(
    ObservationSpec
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spec=specs, steps=st.lists(st.integers(1, 9), min_size=1, max_size=4), full=st.booleans(), seed=st.integers(0, 99)
)
def test_round_trip_of_any_spec(tmp_path: Path, spec: ObservationSpec, steps: list[int], full: bool, seed: int) -> None:
    path = tmp_path / f"{np.random.default_rng().integers(2**60)}.hdf5"
    episodes = [episode(seed + i, n, spec, full=full) for i, n in enumerate(steps)]
    with writer(path, spec) as w:
        for i, source in enumerate(episodes):
            record(w, source) if i % 2 else w.write_episode(source)
    with Dataset(path) as dataset:
        assert dataset.episodes == tuple(f"demo_{i}" for i in range(len(steps)))
        assert dataset.lengths == tuple(steps)
        for source, found in zip(episodes, dataset):
            assert_same(source, found)
    with h5py.File(path) as file:
        for i, source in enumerate(episodes):
            for key in spec:
                expected = np.concatenate([source.obs[key][1:], source.final_obs[key][None]])
                assert file[f"data/demo_{i}/next_obs/{key}"][()].tobytes() == expected.tobytes()


def test_several_episodes_at_once_are_one_commit(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    episodes = [episode(i, 3 + i) for i in range(5)]
    with writer(path) as w:
        assert w.write_episodes(episodes[:2]) == ["demo_0", "demo_1"]
        assert w.write_episodes([]) == []
        assert w.write_episodes(episodes[2:]) == ["demo_2", "demo_3", "demo_4"]
        assert len(list(w.parts.glob("demo_*.hdf5"))) == 2
    with Dataset(path) as dataset:
        for source, found in zip(episodes, dataset, strict=True):
            assert_same(source, found)


def test_open_in_plain_h5py_and_by_us_while_recording(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    with writer(path) as w:
        for i in range(3):
            record(w, episode(i))
            with h5py.File(path) as file, Dataset(path) as dataset:
                assert len(file["data"]) == len(dataset) == i + 1
                assert file["data"].attrs["total"] == 7 * (i + 1)
                assert_same(episode(i), dataset.read(i))
                assert file[f"data/demo_{i}/obs/wrist"][()].tobytes() == episode(i).obs["wrist"].tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["d.hdf5"]


def test_appending_keeps_everything_and_never_writes_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    with writer(path, models={"abc": b"<mujoco/>"}) as w:
        record(w, episode(0))
        w.add_mask("train", ["demo_0"])
    with h5py.File(path, "r+") as file:
        file["notes"] = np.arange(5)
        file.attrs["lab"] = "ours"
        file["data/demo_0"].attrs["weather"] = "rain"
        file["data/demo_0/extra"] = np.arange(7)
    before = path.read_bytes()
    old = os.open(path, os.O_RDONLY)
    with writer(path, append=True, models={"abc": b"other", "def": b"<mujoco model='2'/>"}) as w:
        assert record(w, episode(1)) == "demo_1"
        with h5py.File(path) as file:
            assert sorted(file) == ["data", "mask", "models", "notes"]
            assert file["notes"][()].tolist() == list(range(5))
        w.add_mask("valid", ["demo_1"])
    assert os.pread(old, len(before) + 1, 0) == before
    os.close(old)
    with h5py.File(path) as file:
        assert file["notes"][()].tolist() == list(range(5))
        assert file.attrs["lab"] == "ours"
        assert file["data/demo_0"].attrs["weather"] == "rain"
        assert file["data/demo_0/extra"].shape == (7,)
    with Dataset(path) as dataset:
        assert dataset.masks == {"train": (0,), "valid": (1,)}
        assert dataset.model("abc") == b"<mujoco/>"
        assert dataset.model("def") == b"<mujoco model='2'/>"
        assert_same(dataset.read(0), episode(0))
        assert_same(dataset.read(1), episode(1))


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    with writer(path) as w:
        w.write_episode(episode(0))
    with pytest.raises(DatasetError, match="exists already"):
        writer(path)
    with pytest.raises(DatasetError, match="observation_spec differs"):
        writer(path, STATE, append=True)
    with pytest.raises(DatasetError, match="control_hz differs"):
        writer(path, append=True, control_hz=20.0)
    with pytest.raises(DatasetError, match="env_kwargs"):
        writer(tmp_path / "e.hdf5", env_args={"env_name": "x", "type": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["d.hdf5"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\nfrom tests.datasets.factory import writer\n"
        "from robolearn.errors import DatasetError\n"
        "try: writer(Path(sys.argv[1]), append=True)\n"
        "except DatasetError as e: print(e)"
    )
    with writer(path) as w:
        record(w, episode(0))
        with pytest.raises(DatasetError, match="this process"):
            writer(path, append=True)
        tests = str(Path(__file__).parents[2])
        other = subprocess.run(
            [sys.executable, "-c", code, str(path), tests], capture_output=True, text=True, check=True
        )
        assert f"another process (id {os.getpid()})" in other.stdout
        record(w, episode(1))
    with Dataset(path) as dataset:
        assert len(dataset) == 2


def test_bad_steps_are_refused_and_the_episode_goes_on(tmp_path: Path) -> None:
    source = episode(3)
    good = {key: value[0] for key, value in source.obs.items()}
    bad_steps = {
        "keys": (good | {"extra": np.zeros(2)}, source.actions[0], 0.0, 0.5),
        "wrist must have shape": (good | {"wrist": np.zeros((3, 3), np.uint8)}, source.actions[0], 0.0, 0.5),
        "wrist must be uint8": (good | {"wrist": np.zeros((12, 16, 3), np.float32)}, source.actions[0], 0.0, 0.5),
        "state is not finite": (good | {"state": np.full(5, np.nan, np.float32)}, source.actions[0], 0.0, 0.5),
        "action must have shape": (good, np.zeros(3), 0.0, 0.5),
        r"lie in \[-1, 1\]": (good, np.array([0, 1.1]), 0.0, 0.5),
        "lie in": (good, np.array([0, np.nan]), 0.0, 0.5),
        "reward": (good, source.actions[0], float("inf"), 0.5),
        "timestamps must increase": (good, source.actions[0], 0.0, 0.0),
    }
    with writer(tmp_path / "d.hdf5") as w:
        live = record(w, episode(3, 2), commit=False)
        with pytest.raises(DatasetError, match="ended at step 1"):
            add_step(live, source, 2)
        live.discard()
        live = w.begin_episode(seed=1)
        with pytest.raises(DatasetError, match="at least one step"):
            live.commit(source.final_obs, success=True)
        add_step(live, source, 0)
        for message, (obs, action, reward, time) in bad_steps.items():
            with pytest.raises(DatasetError, match=message):
                live.add_step(obs, action, reward, False, False, time, state=np.zeros(11))
        with pytest.raises(DatasetError, match="state of size 11"):
            live.add_step(good, source.actions[0], 0.0, False, False, 9.0)
        with pytest.raises(DatasetError, match="final_obs must have the keys"):
            live.commit({}, success=True)
        for t in range(1, 7):
            add_step(live, source, t)
        live.add_event(source.events[0])
        assert live.commit(source.final_obs, success=True) == "demo_0"
        with pytest.raises(DatasetError, match="committed or discarded"):
            add_step(live, source, 0)
    with Dataset(tmp_path / "d.hdf5") as dataset:
        found = dataset.read(0)
        assert np.array_equal(found.obs["wrist"], source.obs["wrist"])
        assert len(found) == 7


def test_episodes_in_progress_side_by_side_are_named_as_they_are_committed(tmp_path: Path) -> None:
    sources = [episode(number, 6) for number in range(3)]
    with writer(tmp_path / "d.hdf5") as w:
        live = [w.begin_episode(seed=source.info.seed) for source in sources]
        for t in range(6):
            for one, source in zip(live, sources):
                add_step(one, source, t)
        w.write_episode(episode(7))
        live[1].discard()
        names = [live[i].commit(sources[i].final_obs, success=True) for i in (2, 0)]
    assert names == ["demo_1", "demo_2"]
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert dataset.episodes == ("demo_0", "demo_1", "demo_2")
        for i, source in ((1, sources[2]), (2, sources[0])):
            found = dataset.read(i)
            assert found.info.seed == source.info.seed
            for key in CAMERA:
                np.testing.assert_array_equal(found.obs[key], source.obs[key])
                np.testing.assert_array_equal(found.final_obs[key], source.final_obs[key])
    assert validate(tmp_path / "d.hdf5") == []


def test_an_exception_keeps_the_episode_in_progress(tmp_path: Path) -> None:
    source = episode(5, 6)

    def interrupted_session() -> None:
        with writer(tmp_path / "d.hdf5") as w:
            record(w, episode(0))
            live = w.begin_episode(seed=9)
            for t in range(5):
                add_step(live, source, t)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_session()
    with h5py.File(tmp_path / "d.hdf5") as file:
        assert file["data/demo_1"].attrs["interrupted"]
        assert not file["data/demo_0"].attrs["interrupted"]
    with Dataset(tmp_path / "d.hdf5") as dataset:
        kept = dataset.read(1)
        assert len(kept) == 4
        assert not kept.info.success
        assert kept.truncated.tolist() == [False] * 3 + [True]
        for key in CAMERA:
            assert np.array_equal(kept.obs[key], source.obs[key][:4])
            assert np.array_equal(kept.final_obs[key], source.obs[key][4])
        assert np.array_equal(kept.actions, source.actions[:4])


def test_a_full_queue_blocks_counts_and_drops_nothing(tmp_path: Path) -> None:
    source = episode(2, 60, ObservationSpec({"cam": ArraySpec(shape=(64, 64, 3), dtype="uint8")}))
    with writer(tmp_path / "d.hdf5", ObservationSpec({"cam": source_spec(source)}), max_pending_bytes=30_000) as w:
        record(w, source)
        assert w.stats.blocked_steps > 0
        assert w.stats.blocked_s > 0
        assert w.stats.steps == w.stats.frames == 60
        assert w.stats.max_pending_bytes <= 30_000
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert_same(dataset.read(0), source)


def source_spec(source: object) -> ArraySpec:
    return ArraySpec(shape=source.obs["cam"].shape[1:], dtype="uint8")  # type: ignore[attr-defined]


def test_uncompressed_frames_read_back(tmp_path: Path) -> None:
    """When compressing cannot keep up, frames are stored in the same format without being squeezed."""
    from robolearn.datasets.format.groups import compress, decompress

    rng = np.random.default_rng(0)
    for spec in (ArraySpec(shape=(9, 8, 3), dtype="uint8"), ArraySpec(shape=(70, 33), dtype="float64")):
        frame = random_array(rng, spec)
        for stored in (False, True):
            packed = compress(frame, stored=stored)
            assert decompress(packed, spec).tobytes() == frame.tobytes()
            for cut in (packed[:-1], packed[: len(packed) // 2], b"", packed[:-1] + b"\0"):
                with pytest.raises(DatasetError, match="damaged frame"):
                    decompress(cut, spec)
            with pytest.raises(DatasetError, match="damaged frame"):
                decompress(packed, ArraySpec(shape=(*spec.shape[:-1], spec.shape[-1] - 1), dtype=spec.dtype))


def test_events_and_masks_are_checked(tmp_path: Path) -> None:
    with writer(tmp_path / "d.hdf5") as w:
        w.write_episode(episode(0))
        for name, demos in (("train", ["demo_7"]), ("a/b", ["demo_0"]), ("", ["demo_0"])):
            with pytest.raises(DatasetError, match="mask"):
                w.add_mask(name, demos)
        w.add_mask("empty", [])
        w.add_mask("train", ["demo_0"])
        live = record(w, episode(1), commit=False)
        with pytest.raises(DatasetError, match="NUL"):
            live.add_event(Event(step=0, time_s=0.0, kind="mark", reason="a\0b"))
        live.discard()
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert dataset.masks.get("empty", ()) == ()
        assert dataset.masks["train"] == (0,)
    with Dataset(tmp_path / "d.hdf5", filter_key="train") as dataset:
        assert dataset.episodes == ("demo_0",)
    with pytest.raises(DatasetError, match="no mask 'nope'"):
        Dataset(tmp_path / "d.hdf5", filter_key="nope")
