"""A full disk, a place that may not be written to, links to nowhere: one sentence, and what was complete is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn.cli.main import main
from robolearn.cli.parsing.bad_luck import BadLuckError, explained
from robolearn.configuration.workspace_verbs import InitConfig
from tests.cli.runs import DATA, SMALL
from tests.commands import robolearn


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of the error; anything else is a failure of the command."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("robolearn: error: "))


@pytest.mark.long
def test_a_disk_that_fills_up_while_training_keeps_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    words = ["train", *SMALL, "--output", "my run", "--loop.checkpoint_every", "2", "--loop.log_every", "1"]
    done = robolearn(*words, "--loop.total_steps", "2000", cwd=tmp_path, limit=40_000)
    said = sentence(done)
    assert "File too large. The checkpoint of step " in said
    resume = "robolearn train --config 'my run/config.yaml' --resume"
    assert said.endswith(f"make room, then go on with: {resume}")
    step = int(said.split("The checkpoint of step ")[1].split()[0])
    done = robolearn("train", "--config", "my run/config.yaml", "--resume", "--loop.total_steps", str(step + 1),
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"trained {step + 1} steps" in done.stdout


def test_a_picture_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    (tmp_path / "curves.png").write_bytes(b"the old one")
    assert "curves.png: File too large" in sentence(robolearn("plot", "run", cwd=tmp_path, limit=2000))
    assert (tmp_path / "curves.png").read_bytes() == b"the old one"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "curves.png"}


def test_a_workspace_that_does_not_fit_holds_whole_files_only_and_is_completed_later(tmp_path: Path) -> None:
    assert "File too large" in sentence(robolearn("init", "w", cwd=tmp_path, limit=2000))
    assert all(path.stat().st_size < 2000 for path in (tmp_path / "w").rglob("*") if path.is_file())
    done = robolearn("init", "w", cwd=tmp_path)
    assert done.returncode == 0
    assert "existing files kept" in done.stdout
    sample = tmp_path / "w" / "datasets" / "sample"
    assert [p for p in sample.glob("*.hdf5") if p.stat().st_size != (DATA.parent / p.name).stat().st_size] == []
    assert list(sample.glob("*.hdf5"))


@pytest.mark.parametrize(
    "words",
    [
        ["init", "a file/w"],
        ["train", *SMALL, "--output", "a file/run"],
        ["plot", "run", "--output", "a file/x.png"],
        ["finetune", "{policy}", "--num_envs", "2", "--eval_episodes", "1", "--output", "a file/run"],
        ["eval", "--expert", "auto", "--task", "Reach", "--output", "a file/run"],
    ],
)
def test_an_output_that_cannot_be_made_is_one_sentence(
    words: list[str],
    reach: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert main([word.format(policy=reach / "run") for word in words]) == 2
    said = capsys.readouterr().err
    assert "a file: it is a file, not a folder. " in said or ": Not a directory. " in said
    assert "What is complete is kept; mend that path" in said
    assert ("run the same again with --resume" in said) == (words[0] in ("train", "finetune", "eval"))
    assert (tmp_path / "a file").read_text() == ""


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["dataset", "info", "link"], "link"),
        (["train", "--dataset", "link"], "link"),
        (["train", *SMALL, "--output", "link"], "link"),
        (["train", "--config", "link"], "link"),
        (["eval", "link"], "link"),
        (["plot", "link"], "link"),
        (["init", "link"], "link"),
    ],
)
def test_a_link_to_nowhere_is_named_as_one(
    words: list[str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / place).symlink_to("nowhere")
    assert main(words) == 2
    assert "is a link to nowhere, which is not there" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.long
def test_names_that_no_locale_spells_end_nothing(tmp_path: Path) -> None:
    name = os.fsdecode(b"b\xff")
    (tmp_path / f"{name}.hdf5").write_bytes(DATA.read_bytes())
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["dataset", "info", f"{name}.hdf5"], ["init", f"w{name}"], ["dataset", "validate", f"{name}.hdf5"]
    for command in words:
        done = subprocess.run(
            [sys.executable, "-m", "robolearn", *command],
            capture_output=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    done = robolearn("train", "--dataset", f"{name}.hdf5", *SMALL[2:], "--loop.total_steps", "1", "--output", "run",
                     cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "b?.hdf5" in (tmp_path / "run" / "policy" / "card.md").read_text()


def test_errors_of_our_own_making_pass(tmp_path: Path) -> None:
    config = InitConfig(folder=str(tmp_path))
    for fault in (OSError("without a number"), RuntimeError("shapes differ"), BrokenPipeError(32, "gone")):
        with pytest.raises(type(fault)), explained("init", config):
            raise fault
    with pytest.raises(BadLuckError, match="not enough memory"), explained("init", config):
        raise MemoryError
