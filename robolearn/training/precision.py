"""Matrix products in bfloat16, where the device has instructions for them."""

from __future__ import annotations

import torch

CPU_HAS_BFLOAT16 = bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether this processor has instructions for bfloat16. Others would take many times as long as in float32."""


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """Return the context in which matrix products are in bfloat16 where `bf16` asks for it and the device has it."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=bf16 and (device.type != "cpu" or CPU_HAS_BFLOAT16)
    )
