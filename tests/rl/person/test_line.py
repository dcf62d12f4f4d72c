"""The line between learner and session: messages whole and in order, nobody waits, and it is known who has gone."""

from __future__ import annotations

import socket
import time

from robolearn.rl.person.line import Line


def test_messages_come_whole_and_in_order() -> None:
    ours, theirs = socket.socketpair()
    line = Line(ours)
    theirs.sendall(b'{"first": "\xc3\x85sa"}\n{"second": 2}\n{"thi')
    assert line.hear() == {"first": "Åsa"}
    assert line.hear() == {"second": 2}
    assert line.hear() is None
    assert line.open
    theirs.sendall(b'rd": [3]}\n')
    assert line.hear(1.0) == {"third": [3]}
    line.say(last="line\nbreak")
    assert Line(theirs).hear() == {"last": "line\nbreak"}


def test_nobody_waits_longer_than_told_and_who_has_gone_is_known() -> None:
    ours, theirs = socket.socketpair()
    line, other = Line(ours), Line(theirs)
    began = time.monotonic()
    assert line.hear(0.05) is None
    assert time.monotonic() - began > 0.04
    assert line.open
    other.say(last=1)
    other.close()
    assert line.hear(None) == {"last": 1}
    assert line.hear(None) is None
    assert not line.open
    line.say(to="nobody")
