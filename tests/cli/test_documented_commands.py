"""Every command that README, docs and example configurations show is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from robolearn.cli.main import find_command
from robolearn.cli.parsing.parser import parse

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^(?:    |#\s+|#.*: )(?:torchrun .* -m )?(robolearn (?:[^#`]|#\S)*?)(?:  +[^-\s].*|\s+#\s.*)?$")


def shown() -> list[tuple[str, str]]:
    """Commands with the files that show them, lines joined, without the remarks beside them."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "configs").glob("*/*.yaml")]
    found = []
    for page in sorted(pages):
        if page.name == "results.md":
            continue
        text = re.sub(r"\\\n#?\s*", "", page.read_text(encoding="utf-8"))
        for line in text.splitlines():
            if (match := COMMAND.match(line)) and " | " not in line:
                found.append((page.relative_to(ROOT).as_posix(), match[1]))
    return found


def test_what_is_shown_is_found() -> None:
    assert len(shown()) > 80
    assert {page.split("/")[0] for page, _ in shown()} == {"README.md", "docs", "configs"}


@pytest.mark.parametrize(("page", "command"), shown())
def test_a_shown_command_is_taken(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "runs" / "*").mkdir(parents=True)  # what a shell would have found
    (tmp_path / "bad.txt").write_text("demo_3\n")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    if "--config" in words and not (made := Path(words[words.index("--config") + 1])).exists():
        assert made.name.endswith(".hdf5.yaml")  # recordings leave one beside them
        pytest.skip(f"{made} is written by an earlier command")
    found, rest = find_command(words)
    if found is not None:  # an overview was printed
        parse(found, rest)
