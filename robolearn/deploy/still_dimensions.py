"""Watch the dimensions that never moved in the data while a policy drives: it never saw them move."""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

from robolearn.errors import NoticeWarning
from robolearn.policies.encoders import LowDimEncoder, ObservationEncoder
from robolearn.policies.policy import Policy

MOVED = 1e-3
"""A dimension has moved where it differs from its constant by more than this share of it, or of one."""


class StillDimensions:
    """Notices the first time that each still dimension of a policy's observations moves, and warns of it once."""

    def __init__(self, policy: Policy) -> None:
        self.notes: list[str] = []
        """Sentences for people, in the order in which they were noticed."""
        self._watched: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._sizes: dict[str, int] = {}
        encoder = policy.encoder
        if not isinstance(encoder, ObservationEncoder):
            return
        for key, module in zip(encoder.keys, encoder.encoders.values()):
            if not isinstance(module, LowDimEncoder):
                continue
            still = module.normaliser.constant.cpu().numpy()
            looked_at = np.zeros_like(still)
            looked_at[module.seen] = True
            still &= looked_at
            if still.any():
                self._sizes[key] = len(still)
                self._watched[key] = (np.flatnonzero(still), module.normaliser.offset.cpu().numpy()[still])

    def look(self, key: str, values: Tensor) -> None:
        """Look at observations (..., *shape) under `key`. Tensors on a GPU are left alone, lest the stream stalls."""
        if key not in self._watched or values.device.type != "cpu":
            return
        places, constants = self._watched[key]
        rows = values.numpy().reshape(-1, self._sizes[key])[:, places]
        distance = np.abs(rows - constants)
        moved = distance.max(axis=0) > MOVED * np.maximum(1.0, np.abs(constants))
        if not moved.any():
            return
        for i in np.flatnonzero(moved).tolist():
            value = rows[distance[:, i].argmax(), i]
            self._notice(
                f"observation {key!r}[{places[i]}] was {constants[i]:g} throughout the data and is {value:g} now: the "
                "policy never saw it move and may do anything. Demonstrate with it moving, or train without it (--drop)"
            )
        if moved.all():
            del self._watched[key]
        else:
            self._watched[key] = places[~moved], constants[~moved]

    def _notice(self, sentence: str) -> None:
        self.notes.append(sentence)
        warnings.warn(sentence, NoticeWarning, stacklevel=4)
