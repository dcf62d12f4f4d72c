"""Experts for tests."""

import os
import time

import numpy as np


def never(state: np.ndarray) -> np.ndarray:
    """Stays where it is."""
    return np.array([0.0, 1.0])


def logged(state: np.ndarray) -> np.ndarray:
    """Takes 10 ms over an action of zero for toy/Counter, and notes when it was asked, of which seed and which step."""
    time.sleep(0.01)
    with open(os.environ["EXPERT_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{time.time()} {int(state[0])} {int(state[1])}\n")
    return np.zeros(1)
