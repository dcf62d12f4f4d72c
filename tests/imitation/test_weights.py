"""Loss weights by who acted, against the papers' formulas worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.errors import DatasetError
from robolearn.imitation.weights import BEFORE, DEMONSTRATION, INTERVENTION, ROBOT, classify, step_weights

HZ = 2.0  # two steps are the second before an intervention


class Fake:
    """Stands for a dataset of episodes with these modes."""

    control_hz, paths = HZ, ("d.hdf5",)

    def __init__(self, *modes: list[int]) -> None:
        self.modes = [np.array(mode, np.int8) for mode in modes]

    def __len__(self) -> int:
        return len(self.modes)

    def array_names(self, index: int) -> tuple[str, ...]:
        return ("action_modes",)

    def arrays(self, index: int, names: list[str]) -> dict[str, np.ndarray]:
        return {"action_modes": self.modes[index]}


def test_steps_before_an_intervention_are_told_apart() -> None:
    modes = np.array([0, 0, 0, 1, 1, 0, 1, -1, 2])
    expected = [ROBOT, BEFORE, BEFORE, INTERVENTION, INTERVENTION, BEFORE, INTERVENTION, DEMONSTRATION, DEMONSTRATION]
    assert classify(modes, HZ).tolist() == expected


def test_iwr_gives_interventions_the_weight_of_all_else() -> None:
    data = Fake([-1, -1, -1, -1], [0, 0, 1, 0])
    weights = step_weights("iwr", data)  # type: ignore[arg-type]
    assert weights is not None
    found = np.concatenate([weights(data, i) for i in range(2)])  # type: ignore[arg-type]
    assert found.tolist() == [1, 1, 1, 1, 1, 1, 7, 1]
    assert found[6] == found.sum() - found[6]


def test_sirius_gives_interventions_half_and_steps_before_them_nothing() -> None:
    data = Fake([-1, -1], [0, 0, 0, 0, 1, 1, 0, 0])
    weights = step_weights("sirius", data)  # type: ignore[arg-type]
    assert weights is not None
    first, second = (weights(data, i) for i in range(2))  # type: ignore[arg-type]
    assert second[2:4].tolist() == [0, 0]
    total = first.sum() + second.sum()
    assert second[4:6].sum() == pytest.approx(total / 2)
    assert first.sum() == pytest.approx(0.2 * total)  # demonstrations keep their share of the steps, 2 of 10
    assert second[[0, 1, 6, 7]].sum() == pytest.approx(0.3 * total)


def test_data_without_interventions_is_refused() -> None:
    with pytest.raises(DatasetError, match="use weights plain"):
        step_weights("iwr", Fake([-1, 0, 2]))  # type: ignore[arg-type]
