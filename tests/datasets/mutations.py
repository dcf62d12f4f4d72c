"""Damaged and hostile dataset files, made from a good one; run as a program it reads them under a memory limit."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from tests.datasets.factory import assert_same, episode, writer

MEMORY = 1 << 31
SECONDS = 20
DEMO = "data/demo_1"


def make_good(path: Path) -> None:
    with writer(path, models={"m": b"<mujoco/>"}) as w:
        w.write_episodes([episode(i) for i in range(2)])
        w.add_mask("train", ["demo_0"])


def replace(file: h5py.File, name: str, data: Any, **options: Any) -> None:
    """Put another dataset of the same name there, checksummed like the writer's."""
    del file[name]
    file.create_dataset(name, data=data, **options)


def poison(file: h5py.File, name: str, index: Any, value: Any) -> None:
    array = file[name][()]
    array[index] = value
    replace(file, name, array, chunks=True, compression="gzip", fletcher32=True)


def structured(good: Path) -> dict[str, Callable[[h5py.File], None]]:
    """Named ways to break a file that a reader must notice."""
    cases: dict[str, Callable[[h5py.File], None]] = {}

    def attribute(place: str, name: str, value: Any) -> None:
        cases[f"{place}@{name}={str(value)[:20]}"] = lambda f: f[place].attrs.__setitem__(name, value)

    with h5py.File(good) as file:
        arrays = [f"{DEMO}/{n}" for n, d in file[DEMO].items() if isinstance(d, h5py.Dataset)]
        arrays += [f"{DEMO}/{folder}/{key}" for folder in ("obs", "final_obs") for key in file[f"{DEMO}/{folder}"]]
        for place in ("/", "data", DEMO):
            for name in file[place].attrs:
                cases[f"{place}@{name} missing"] = lambda f, p=place, n=name: f[p].attrs.__delitem__(n)
                attribute(place, name, np.arange(3))
                attribute(place, name, -7.5)
        shapes = {name: file[name].shape for name in arrays}
    for name in arrays:
        if not name.endswith(("events", "states", "gate")):
            cases[f"{name} missing"] = lambda f, n=name: f.__delitem__(n)
        rows, *rest = shapes[name]
        if not name.endswith("events"):
            cases[f"{name} short"] = lambda f, n=name: replace(f, n, f[n][:-1])
        cases[f"{name} group"] = lambda f, n=name: (f.__delitem__(n), f.create_group(n))
        cases[f"{name} text"] = lambda f, n=name: replace(f, n, np.full(f[n].shape, b"x"))
        cases[f"{name} complex"] = lambda f, n=name: replace(f, n, np.full(f[n].shape, 1j))
        cases[f"{name} scalar"] = lambda f, n=name: replace(f, n, 3)
        cases[f"{name} empty"] = lambda f, n=name: replace(f, n, h5py.Empty("f4"))
        cases[f"{name} more dimensions"] = lambda f, n=name: replace(f, n, f[n][()][..., None, None])
        cases[f"{name} never written"] = lambda f, n=name, s=(rows, *rest): (
            f.__delitem__(n),
            f.create_dataset(n, shape=s, dtype="f4", chunks=True),
        )
        cases[f"{name} absurd"] = lambda f, n=name, s=(10**12, *rest): (
            f.__delitem__(n),
            f.create_dataset(n, shape=s, dtype="f4", chunks=(1000, *s[1:]), compression="gzip"),
        )
        cases[f"{name} outside"] = lambda f, n=name: (
            f.__delitem__(n),
            f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/x")),
        )
        cases[f"{name} other file"] = lambda f, n=name: (
            f.__delitem__(n),
            f.__setitem__(n, h5py.ExternalLink(good.name, n)),
        )
        cases[f"{name} cycle"] = lambda f, n=name: (f.__delitem__(n), f.__setitem__(n, h5py.SoftLink("/" + n)))
        cases[f"{name} raw"] = lambda f, n=name, s=(rows, *rest): (
            f.__delitem__(n),
            f.create_dataset(n, shape=s, dtype="f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]),
        )
    for value in (0, -1, 6, 8, 2**62):
        attribute(DEMO, "num_samples", value)
    attribute("/", "schema_version", 99)
    attribute("/", "schema", "other")
    attribute("data", "total", 12)
    attribute("data", "control_hz", float("nan"))
    attribute("data", "env_args", "[" * 100_000)
    attribute("data", "action_spec", "{}")
    attribute("data", "observation_spec", '{"state": {"shape": [99999999999999], "dtype": "float32"}}')
    attribute("data", "observation_spec", '{"state": {"shape": [5], "dtype": "object"}}')
    attribute("data", "observation_spec", '{"../x": {"shape": [5], "dtype": "float32"}}')
    attribute(DEMO, "source", b"\xff\xfe")
    attribute(DEMO, "model", "unknown")
    for name, index, value in (
        ("actions", (2, 0), np.nan),
        ("actions", (2, 0), 1.5),
        ("rewards", 3, np.inf),
        ("timestamps", 3, 0.0),
        ("timestamps", 3, np.nan),
        ("obs/state", (1, 2), np.nan),
        ("terminated", 2, True),
        ("dones", 2, 1),
        ("action_modes", 2, 77),
        ("expert_actions", (0, 0), np.inf),
        ("events", 0, (10**6, 0.0, b"mark", b"")),
        ("events", 0, (0, 0.0, b"\xff", b"")),
    ):
        cases[f"{name}[{index}] = {value}"] = lambda f, a=(f"{DEMO}/{name}", index, value): poison(f, *a)
    cases["data is its own child"] = lambda f: f["data"].__setitem__("demo_9", f["data"])
    cases["demo is its own obs"] = lambda f: (f.__delitem__(f"{DEMO}/obs"), f.__setitem__(f"{DEMO}/obs", f[DEMO]))
    cases["obs holds its demo"] = lambda f: f[f"{DEMO}/obs"].__setitem__("loop", f[DEMO])
    cases["demo links outside"] = lambda f: f["data"].__setitem__(
        "demo_9", h5py.ExternalLink("../x.hdf5", "/data/demo_9")
    )
    cases["demo links into a strange part"] = lambda f: f["data"].__setitem__(
        "demo_9", h5py.ExternalLink("case.hdf5.parts/../../good.hdf5", "/data/demo_9")
    )
    cases["strange child of data"] = lambda f: f["data"].create_group("notes")
    cases["mask names nobody"] = lambda f: replace(f, "mask/train", np.array([b"demo_77"]))
    cases["mask is a number"] = lambda f: replace(f, "mask/train", 5)
    cases["mask is a group"] = lambda f: (f.__delitem__("mask/train"), f.create_group("mask/train"))
    cases["model is text"] = lambda f: replace(f, "models/m", "x")
    cases["next_obs elsewhere"] = lambda f: (
        f.__delitem__(f"{DEMO}/next_obs/state"),
        f.__setitem__(f"{DEMO}/next_obs/state", f[f"{DEMO}/obs/state"]),
    )
    cases["no data"] = lambda f: f.__delitem__("data")
    return cases


def damaged_bytes(good: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Bit flips, truncations, zeroed and swapped blocks, at random places."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(good)
        kind = ("flip", "flip", "flip", "cut", "zero", "noise")[number % 6]
        at = int(rng.integers(len(data) if number % 2 else min(len(data), 8192)))
        size = int(rng.integers(1, 600))
        if kind == "flip":
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(max(1, at)))] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            del data[at:]
        elif kind == "zero":
            data[at : at + size] = bytes(len(data[at : at + size]))
        else:
            data[at : at + size] = rng.bytes(len(data[at : at + size]))
        yield f"{kind} {number} at {at}", bytes(data)


def judge(path: Path, reference: list[Any]) -> str:
    """`error` where reading or validating complains, `same` where everything reads as it was, else `silent`."""
    if validate(path):
        return "error"
    try:
        with Dataset(path) as dataset:
            found = [dataset.header, dataset.masks, dataset.model("m"), *dataset]
    except DatasetError:
        return "error"
    try:
        assert found[:3] == reference[:3]
        for first, second in zip(found[3:], reference[3:], strict=True):
            assert_same(first, second)
    except (AssertionError, ValueError):
        return "silent"
    return "same"


def main() -> None:
    """`FOLDER COUNT SEED FIRST STEP`: one JSON line per damaged file; a crash or a hang ends the process.

    Of the structured ways it takes every STEP-th from FIRST on.
    """
    folder, (count, seed, first, step) = Path(sys.argv[1]), map(int, sys.argv[2:])
    good, case = folder / "good.hdf5", folder / "case.hdf5"
    make_good(good)
    with Dataset(good) as dataset:
        reference = [dataset.header, dataset.masks, dataset.model("m"), *dataset]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def report(name: str) -> None:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # processor time: a machine may stall
        print(json.dumps({"case": name, "outcome": judge(case, reference)}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)

    for name, mutate in islice(structured(good).items(), first, None, step):
        shutil.copyfile(good, case)
        with h5py.File(case, "r+") as file:
            mutate(file)
        report(name)
    for name, data in damaged_bytes(good.read_bytes(), count, seed):
        case.write_bytes(data)
        report(name)


if __name__ == "__main__":
    main()
