"""Experts for tests."""

import numpy as np


def never(state: np.ndarray) -> np.ndarray:
    """Stays where it is."""
    return np.array([0.0, 1.0])
