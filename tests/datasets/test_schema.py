"""The documented table, the schema and the writer say the same."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from robolearn.datasets.format import schema
from robolearn.errors import DatasetError
from robolearn.specs import ActionSpec, EpisodeInfo, Event
from tests.datasets.factory import ACTION, CAMERA, ENV_ARGS, episode, record, writer

DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
KINDS = {"str": "S", "int64": "i", "float64": "f", "bool": "b"}


def test_the_documentation_holds_the_table() -> None:
    assert schema.table() in DOCS.read_text(encoding="utf-8")


def test_the_writer_writes_the_table(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    documented = {(e.path, e.kind): e for e in schema.entries()}
    with writer(path, models={"hash": b"<mujoco/>"}) as w:
        record(w, episode(1, 6))
        w.add_mask("name", ["demo_0"])
        with h5py.File(path) as file:
            assert schema.RECORDING in file.attrs
    with h5py.File(path) as file:
        written: set[tuple[str, str]] = {("/", f"attr `{schema.RECORDING}` bool")}
        for place, generic in (("/", "/"), ("data", "data"), ("data/demo_0", "data/demo_i")):
            for name, value in file[place].attrs.items():
                line = next(kind for where, kind in documented if where == generic and f"`{name}`" in kind)
                assert np.asarray(value).dtype.kind == KINDS[re.split(r"` | =", line)[1]], name
                written.add((generic, line))
        arrays: dict[str, h5py.Dataset] = {}
        file.visititems(lambda name, obj: arrays.__setitem__(name, obj) if isinstance(obj, h5py.Dataset) else None)
        for name, data in arrays.items():
            generic = re.sub(r"(obs|mask|models)/\w+$", lambda m: m[0].split("/")[0] + "/*", name)
            generic = generic.replace("demo_0", "demo_i").replace("obs/*", "obs/key")
            generic = generic.replace("mask/*", "mask/name").replace("models/*", "models/hash")
            line = next(kind for where, kind in documented if where == generic)
            written.add((generic, line))
            dims = re.match(r"\(([^)]*)\)", line)
            assert dims is not None
            sizes = {"T": 6, "A": ACTION.size, "S": 11, "E": data.shape[0], "bytes": 9, "1": 1}
            expected = [sizes[d] for d in dims[1].split(",") if d != "..."]
            assert list(data.shape[: len(expected)]) == expected, name
            if "..." not in dims[1]:
                assert len(data.shape) == len(expected), name
            if line.split()[-1] in ("float32", "float64", "uint8", "int8", "bool"):
                assert data.dtype == line.split()[-1], name
            if "virtual" in line:
                assert data.is_virtual
            elif "(E)" not in line or "step" not in line:
                assert data.chunks is not None, f"{name} has no checksum"
        missing = set(documented) - written
        assert not missing, f"documented, but not written: {missing}"


def test_next_obs_takes_no_space(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    with writer(path) as w:
        w.write_episode(episode(0, 300))
    with h5py.File(path) as file:
        size = file["data/demo_0/obs/wrist"].id.get_storage_size()
    assert path.stat().st_size < size * 1.2 + 60_000


@pytest.mark.parametrize("name", ["demo_0", "demo_12", "demo_007"])
def test_demo_numbers(name: str) -> None:
    assert schema.demo_number(name) == int(name[5:])


@pytest.mark.parametrize("name", ["demo_", "demo", "demo_-1", "demo_1x", "episode_1", "demo_" + "9" * 40, "demo_²"])
def test_other_names_are_no_demos(name: str) -> None:
    assert schema.demo_number(name) is None


def test_headers_are_checked() -> None:
    good = {"task": "t", "env_args": ENV_ARGS, "control_hz": 20.0, "action_spec": ACTION, "observation_spec": CAMERA}
    header = schema.Header(**good)
    attrs = {k: v.decode() if isinstance(v, bytes) else float(v) for k, v in header.to_attrs().items()}
    assert schema.Header.from_attrs(attrs | {"total": 1}) == header
    for change, message in (
        ({"control_hz": 0.0}, "control_hz"),
        ({"control_hz": float("nan")}, "control_hz"),
        ({"env_args": {}}, "env_name"),
    ):
        with pytest.raises(DatasetError, match=message):
            schema.Header(**(good | change))
    with pytest.raises(DatasetError, match="plain JSON"):
        schema.Header(**(good | {"env_args": ENV_ARGS | {"x": object()}})).to_attrs()
    other = schema.Header(**(good | {"action_spec": ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))}))
    assert "action_spec differs" in str(header.difference(other))
    assert header.difference(schema.Header(**(good | {"env_args": ENV_ARGS | {"env_name": "y"}}))) is None


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match="64 bits"):
        schema.info_to_attrs(EpisodeInfo(success=True, seed=2**63), 1)
    with pytest.raises(DatasetError, match="NUL"):
        schema.text("a\0")
    with pytest.raises(DatasetError, match="4096 bytes"):
        schema.events_to_array([Event(step=0, time_s=0.0, kind="mark", reason="x" * 5000)])
