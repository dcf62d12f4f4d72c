"""`robolearn tasks` as a user meets it."""

from __future__ import annotations

import cv2
import pytest

from robolearn.sim import rendering
from robolearn.tasks import registry
from tests.commands import robolearn


def test_the_list_names_every_task():
    done = robolearn("tasks")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("   ")]  # others go on from the one above
    assert [line.split()[0] for line in lines][:7] == registry.own_names()
    assert all(len(line.split()) > 3 for line in lines[:7])


@pytest.mark.skipif(rendering.find_backend() is None, reason="no OpenGL here")
def test_the_contact_sheet_shows_the_task(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    done = robolearn("tasks", "list", "Fork", "--render", "--output", str(path))
    assert done.returncode == 0, done.stderr
    sheet = cv2.imread(str(path))
    height, width = sheet.shape[:2]
    assert width > 2 * height
    quarters = [sheet[40:, i * width // 4 : (i + 1) * width // 4 - 8] for i in range(4)]
    assert all(q.std() > 10 for q in quarters)
    assert abs(quarters[0].astype(int) - quarters[2].astype(int)).max() > 60, "the puck has moved"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("view",), "view needs the name of a task"),
        (("view", "Lfit"), "did you mean 'Lift'"),
        (("list", "Lift", "--render", "--output", "sheet.nonsense"), "must end in .png or .jpg"),
        (("--port", "99999"), "port must lie in"),
    ],
)
def test_bad_input_is_one_line_and_code_2(args, message, tmp_path):
    if "--render" in args and rendering.find_backend() is None:
        pytest.skip("no OpenGL here")
    done = robolearn("tasks", *args, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
