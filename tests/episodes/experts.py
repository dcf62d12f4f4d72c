"""Experts for tests."""

import os
import time

import numpy as np


def never(state: np.ndarray) -> np.ndarray:
    """Stays where it is."""
    return np.array([0.0, 1.0])


def logged(state: np.ndarray) -> np.ndarray:
    """Takes EXPERT_S over an action of zero for toy/Counter, and notes of which seed and which step it was asked."""
    time.sleep(float(os.environ["EXPERT_S"]))
    with open(os.environ["EXPERT_LOG"], "a", encoding="utf-8") as log:
        log.write(f"{int(state[0])} {int(state[1])}\n")
    return np.zeros(1)
