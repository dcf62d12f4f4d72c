"""Makes every Python process stall, with this folder on PYTHONPATH and STALL=1 (`make test-stalled`).

Every few seconds, at a random place, either the main thread sleeps while all others go on, or all of them do: what a
busy machine does to tests that count on the clock, or on who comes first. A test that fails then would fail on such a
machine some day. One false alarm is known: CPython's `queue.SimpleQueue.get(timeout)`, in which a signal's handler has
slept for longer than the timeout, waits for ever.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time

SECONDS_BETWEEN, SECONDS_LONG = (0.5, 5.0), (0.2, 1.5)


def _stall() -> None:
    main, rng, usleep = threading.main_thread(), random.Random(os.getpid()), ctypes.PyDLL(None).usleep
    sleep = time.sleep  # whatever tests put in its place
    signal.signal(signal.SIGUSR1, lambda *_: sleep(rng.uniform(*SECONDS_LONG)))
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))

    def disturb() -> None:
        while main.is_alive() and main.ident is not None:
            sleep(rng.uniform(*SECONDS_BETWEEN))
            if rng.random() < 0.25:
                usleep(int(rng.uniform(*SECONDS_LONG) * 5e5))  # with the interpreter's lock held; half as long
            else:
                signal.pthread_kill(main.ident, signal.SIGUSR1)

    threading.Thread(target=disturb, name="stalls", daemon=True).start()


if os.environ.get("STALL"):
    _stall()
