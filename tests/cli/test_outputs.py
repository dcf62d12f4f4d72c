"""Through the command line: what is there is not written over by what has other inputs, and files get names that every
verb reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import from_dict, write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.errors import ConfigError

pytestmark = pytest.mark.usefixtures("elsewhere")
QUICK = ("--episodes", "2", "--videos", "0")


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        (["other", *QUICK], "policies"),
        (["{reach}/run", "other", *QUICK], "policies"),
        (["{reach}/run", *QUICK, "--seed", "7"], "seed 20000, now 7"),
        (["{reach}/run", "--episodes", "1", "--videos", "0"], "episodes 2, now 1"),
        (["{reach}/run", *QUICK, "--task.max_steps", "9"], "task.max_steps"),
        (["{reach}/run", *QUICK, "--task.kwargs.reward", "dense"], "task.kwargs.reward None, now 'dense'"),
        (["{reach}/run", *QUICK, "--task", "Lift"], "task.id 'Reach', now 'Lift'"),
        (["{reach}/run", *QUICK, "--expert", "auto"], "expert '', now 'auto'"),
        (["{reach}/run", *QUICK, "--exec_steps", "1"], "exec_steps None, now 1"),
    ],
)
def test_an_evaluation_is_not_written_over_by_another(words: list[str], differs: str, reach: Path, said: Any) -> None:
    shutil.copytree(reach / "run", "other")
    words = [word.format(reach=reach) for word in words]
    said("eval", reach / "run", *QUICK, "--output", "o u t")
    before = contents("o u t")
    out = said("eval", *words, "--output", "o u t", code=2)
    assert "o u t was made from other inputs" in out
    assert differs in out
    assert "--config 'o u t/config.yaml'" in out
    assert contents("o u t") == before


def test_the_same_evaluation_is_made_again(reach: Path, said: Any) -> None:
    said("eval", reach / "run", *QUICK, "--output", "out")
    Path("out/report.html").unlink()
    said("eval", f"{reach}/../{reach.name}/run", "--episodes", 2, "--videos", 0, "--num_envs", 1, "--output", "out")
    assert Path("out/report.html").is_file()
    Path("out/report.html").unlink()
    said("eval", "--config", "out/config.yaml")
    assert Path("out/report.html").is_file()


def test_evaluations_without_an_output_lie_in_folders_of_their_own(reach: Path, said: Any) -> None:
    shutil.copytree(reach / "run", "second/policy")
    assert "runs/eval/run/report.html" in said("eval", reach / "run", *QUICK)
    assert "runs/eval/second/report.html" in said("eval", "second/policy", *QUICK)
    assert "runs/eval/run_second/report.html" in said("eval", reach / "run", "second", *QUICK)
    said("eval", "--expert", "auto", "--task", "Reach", *QUICK)
    assert Path("runs/eval/Reach_demonstrator/demonstrator.json").is_file()
    assert json.loads(Path("runs/eval/run_second/second.json").read_text())["name"] == "second"


def test_nested_values_are_compared_wherever_they_stand(tmp_path: Path) -> None:
    """A section that was none, and keys of a free mapping that one of the two lacks."""

    def config(**values: Any) -> DaggerConfig:
        return from_dict(DaggerConfig, {"policy": "p", "dataset": ["d"], **values})

    path = tmp_path / "config.yaml"
    for before, now, expected in [
        ({}, {"task": "Reach"}, "task None, now"),
        ({"task": "Reach"}, {}, "task "),
        ({"task": "Reach"}, {"task": {"id": "Reach", "kwargs": {"a": 1}}}, "task.kwargs.a None, now 1"),
        ({"task": {"id": "Reach", "kwargs": {"a": {"b": 1}}}}, {"task": "Reach"}, "task.kwargs.a"),
        ({"gate": {"name": "beta", "start": 1.0}}, {"gate": {"name": "beta", "start": 0.5}}, "gate.start 1.0, now 0.5"),
        ({}, {"loop": {"total_steps": 5}}, "loop.total_steps 2000, now 5"),
    ]:
        write_yaml(config(**before), path)
        check_same_inputs(config(**before), path, output="run")
        with pytest.raises(ConfigError) as refused:
            check_same_inputs(config(**now), path, output="run")
        assert expected in str(refused.value)
    written = yaml.safe_load(path.read_text())
    del written["loop"]["wandb"], written["weights"]  # as an older version wrote it
    path.write_text(yaml.safe_dump(written))
    check_same_inputs(config(), path, output="run")


def test_rounds_are_not_taken_back_by_asking_for_fewer(reach: Path, said: Any) -> None:
    words = ("dagger", "--policy", reach / "run", "--dataset", reach / "demos.hdf5", "--eval_episodes", 0)
    words += ("--episodes_per_round", 1, "--loop.total_steps", 1, "--batch_size", 8, "--output", "dagger")
    said(*words, "--rounds", 2)
    before = contents("dagger")
    out = said(*words, "--rounds", 1, code=2)
    assert "dagger has 2 complete rounds, more than the 1 asked for" in out
    assert "robolearn dagger undo dagger" in out
    assert contents("dagger") == before
    said("dagger", "undo", "dagger")
    said(*words, "--rounds", 1)


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("new/", "new/demos.hdf5"),
        ("new.txt", "new.hdf5"),
        ("new", "new.hdf5"),
        ("a,b.hdf5", "a_b.hdf5"),
        ("[new.hdf5", "new.hdf5"),
        ("minari:new.hdf5", "new.hdf5"),
        (".hdf5", "hdf5.hdf5"),
        ("..", "../demos.hdf5"),
        ("new.hdf5.gz", "new.hdf5.hdf5"),
    ],
)
@pytest.mark.parametrize("verb", ["record", "convert", "merge", "delete", "filter", "trim"])
def test_a_name_that_no_verb_would_read_again_is_refused(
    verb: str, name: str, takes: str, reach: Path, said: Any
) -> None:
    data = reach / "demos.hdf5"
    before = sorted(Path().rglob("*"))
    words: dict[str, tuple[object, ...]] = {
        "record": ("record", name, "--task", "Reach", "--episodes", 1),
        "convert": ("dataset", "convert", data, name),
        "merge": ("dataset", "merge", data, data, "--output", name),
        "delete": ("dataset", "delete", data, "demo_0", "--output", name),
        "filter": ("dataset", "filter", data, "--output", name),
        "trim": ("dataset", "trim", data, "--output", name),
    }
    out = said(*words[verb], code=2)
    assert "must name a file that ends in .hdf5 or .h5" in out
    assert f"received {name!r}, take for example {takes!r}" in out
    assert sorted(Path().rglob("*")) == before


def test_files_of_odd_names_are_read_and_written_beside_under_plain_ones(reach: Path, said: Any) -> None:
    shutil.copy(reach / "demos.hdf5", "some,thing.dat")
    said("dataset", "split", "some,thing.dat", "--valid_fraction", 0.5)
    for name in ("some_thing_train.hdf5", "some_thing_valid.hdf5"):
        with Dataset(name) as dataset:
            assert len(dataset) == 2


def test_minari_writes_folders(reach: Path, said: Any) -> None:
    out = said("dataset", "convert", reach / "demos.hdf5", "new.hdf5", "--to", "minari", code=2)
    assert "Minari's layout is a folder; name one without .hdf5" in out
