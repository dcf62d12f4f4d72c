"""Drive a robot from another program: an example client of robolearn's network device.

    robolearn teleop test --device network          # waits at ws://127.0.0.1:8765/
    python teleop/examples/network_client.py        # in another terminal: the tool goes round in a circle

Replace `measure` by what reads your leader arm, phone or headset. Needs the package websockets and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time

from websockets.sync.client import connect

RATE_HZ = 50.0


def measure(now_s: float) -> dict[str, object]:
    """Return what the operator wants: here a slow circle, and a gripper that opens and closes."""
    angle = 2.0 * math.pi * now_s / 4.0
    return {
        "twist": [0.5 * math.cos(angle), 0.5 * math.sin(angle), 0.0, 0.0, 0.0, 0.0],
        "gripper": math.copysign(1.0, math.sin(angle)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("link", nargs="?", default="ws://127.0.0.1:8765/", help="as the robot's side printed it")
    parser.add_argument("--seconds", type=float, default=math.inf, help="how long to drive")
    arguments = parser.parse_args()
    began = due = time.monotonic()
    with connect(arguments.link, compression=None) as line:
        for seq in itertools.count():
            now = time.monotonic()
            if now - began >= arguments.seconds:
                break
            line.send(json.dumps({"seq": seq, "time": now, **measure(now - began)}))
            due += 1.0 / RATE_HZ
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
