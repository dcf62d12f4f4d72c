"""Draws a world's cameras and packs them as JPEG, in a process of its own: the control loop never waits for a picture.

    parent  --state (one datagram each, the newest wins)-->  child  --(camera, JPEG), one after the other-->  parent

Run as `python -m robolearn.teleop.picture_process STATES PICTURES`, two inherited sockets; the first datagrams and the
model's file tell it what to draw. It ends when its parent does.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np

from robolearn.errors import TaskError
from robolearn.sim.rendering import prepare

HEAD = struct.Struct("<HI")
"""Camera and size of the JPEG that follows."""
QUALITY = 80
STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_USER
MAX_STATE_BYTES = 1 << 17
STILL_HZ = 4.0
"""So often, at most, is the same state drawn again."""


class PictureProcess:
    """The parent's side: hand over states, pick up the newest pictures."""

    def __init__(self, model: mujoco.MjModel, cameras: Sequence[str], size: tuple[int, int]) -> None:
        """
        Args:
            size: height and width.

        Raises TaskError where OpenGL is missing or the model has no such camera.
        """
        known = [model.camera(i).name for i in range(model.ncam)]
        if wrong := [camera for camera in cameras if camera not in known]:
            raise TaskError(f"the model has no camera {wrong[0]!r}; it has {', '.join(known) or 'none'}")
        backend = prepare()
        self.cameras = tuple(cameras)
        self.frames: dict[str, tuple[int, bytes]] = {}
        """(number, JPEG) of the newest picture of each camera."""
        self.changed = threading.Condition()
        self._state = np.zeros(mujoco.mj_stateSize(model, STATE))
        self._sent, self._due = b"", 0.0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        pictures, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._states, self._pictures = ours, pictures
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.mjb"
            mujoco.mj_saveModel(model, str(path), None)
            job = json.dumps({"model": str(path), "cameras": list(cameras), "size": list(size)})
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(out.fileno()), job]
            environment = os.environ | {"MUJOCO_GL": backend}
            fds = (theirs.fileno(), out.fileno())
            self._process = subprocess.Popen(command, pass_fds=fds, env=environment, stdin=subprocess.DEVNULL)
            theirs.close()
            out.close()
            if self._pictures.recv(1) != b"\x01":
                self.close()
                raise TaskError("the process that draws pictures did not start; see its message above")
        threading.Thread(target=self._receive, name="pictures", daemon=True).start()

    def show(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Hand over the present state; dropped where the process is behind, or the world stands still."""
        mujoco.mj_getState(model, data, self._state, STATE)
        state, now = self._state.tobytes(), time.monotonic()
        if state == self._sent and now < self._due:
            return
        try:
            self._states.send(state)
        except (BlockingIOError, ConnectionError, OSError):
            return
        self._sent, self._due = state, now + 1.0 / STILL_HZ

    def close(self) -> None:
        """End the process."""
        self._states.close()
        self._pictures.close()
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self) -> None:
        stream = self._pictures.makefile("rb")
        number = 0
        try:
            while head := stream.read(HEAD.size):
                camera, size = HEAD.unpack(head)
                jpeg = stream.read(size)
                number += 1
                with self.changed:
                    self.frames[self.cameras[camera]] = (number, jpeg)
                    self.changed.notify_all()
        except (OSError, ValueError, struct.error):
            return


def main(states: socket.socket, pictures: socket.socket, job: dict[str, Any]) -> None:
    """Draw until the parent goes."""
    from robolearn.sim.pictures import Pictures

    model = mujoco.MjModel.from_binary_path(job["model"])
    data = mujoco.MjData(model)
    height, width = job["size"]
    artist = Pictures(model, height, width, quick=True)
    pictures.sendall(b"\x01")
    size = mujoco.mj_stateSize(model, STATE)
    while True:
        # Datagrams know no end; the stream, on which the parent never writes, is readable once the parent is gone.
        if pictures in select.select([states, pictures], [], [])[0]:
            return
        packet = states.recv(MAX_STATE_BYTES)
        states.setblocking(False)
        try:
            while newer := states.recv(MAX_STATE_BYTES):
                packet = newer
        except BlockingIOError:
            pass
        states.setblocking(True)
        mujoco.mj_setState(model, data, np.frombuffer(packet, np.float64, size).copy(), STATE)
        mujoco.mj_forward(model, data)
        for number, camera in enumerate(job["cameras"]):
            jpeg = encode(artist.draw(model, data, camera))
            pictures.sendall(HEAD.pack(number, len(jpeg)) + jpeg)


def encode(picture: np.ndarray) -> bytes:
    """Pack a picture (height, width, 3) uint8 as JPEG."""
    done, packed = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return packed.tobytes()


if __name__ == "__main__":
    try:
        main(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])), json.loads(sys.argv[3]))
    except (BrokenPipeError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)
