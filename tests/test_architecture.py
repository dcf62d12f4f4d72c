"""docs/architecture.md names rooms and files as they are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_a_question_leads_to_is_there() -> None:
    places = re.findall(r"`(robolearn/[\w/]+(?:\.py)?/?)`", TEXT)
    assert len(places) >= 10
    assert not [place for place in places if not (ROOT / place).exists()]


def test_every_package_has_its_line() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for line in lines for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    parts = {p.stem for p in (ROOT / "robolearn").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__", "__main__", "demo"} <= named
