"""What the processor does inside and outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.training import threads
from robolearn.training.threads import fitting_threads, flushed_denormals


def test_numbers_next_to_zero_are_flushed_inside_only() -> None:
    tiny = torch.full((64,), 1e-30)
    with flushed_denormals():
        assert float((tiny * 1e-12).max()) == 0.0
    assert float((tiny * 1e-12).max()) > 0.0
    with pytest.raises(RuntimeError), flushed_denormals():
        raise RuntimeError
    assert float((tiny * 1e-12).max()) > 0.0


def test_networks_get_the_threads_they_are_worth_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "ALL", 4)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for rows, expected in ((8, 1), (64, 2), (100_000, 4)):  # of about 400,000 multiplications
            with fitting_threads(nn.Linear(632, 632), rows=rows):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        with fitting_threads(nn.Linear(4, 4), rows=1):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
