"""A session without a person: a device that acts by itself, in the hand of a simulated human who decides when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robolearn.imitation.gates.gate import Gate, View
from robolearn.teleop.devices.device import Command, SeeingDevice


class Rehearsal:
    """Presses take over and hand back where a gate of one environment, a simulated human, says so."""

    def __init__(self, device: SeeingDevice, gate: Gate, action_size: int) -> None:
        """
        Args:
            gate: prepared; one that looks at what is observed alone.
        """
        self.device, self.gate = device, gate
        self._nothing = torch.full((1, action_size), torch.nan)
        self._correcting = False
        self._began = False
        """Whether the episode has made a step: before, there is nobody to take over from."""
        self._buttons: tuple[str, ...] = ()

    def connect(self) -> None:
        self.device.connect()

    def close(self) -> None:
        self.device.close()

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self.device.reset(seed)
        self.gate.reset([seed], torch.ones(1, dtype=torch.bool))
        self._correcting = self._began = False
        self._buttons = ()

    def see(self, obs: Mapping[str, Tensor]) -> None:
        """Take (1, ...) observations, once for each control step, before `read`."""
        self.device.see(obs)
        if self._began:
            was = np.array([self._correcting])
            view = View(obs=dict(obs), proposals=self._nothing, labels=self._nothing, correcting=was, window=dict(obs))
            self._correcting = bool(self.gate.judge(view).correct[0])
            if self._correcting != was[0]:
                self._buttons = ("takeover" if self._correcting else "release",)
        self._began = True

    def read(self) -> Command:
        """Return what the device does, and what the simulated human has decided since the last read."""
        command, buttons = self.device.read(), self._buttons
        self._buttons = ()
        return replace(command, buttons=(*command.buttons, *buttons))
