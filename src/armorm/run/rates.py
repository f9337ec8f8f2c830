"""What this machine computes in a second, from a short measurement.

In: nothing, or a backbone that is on this machine.  Out: operations a second by precision, bytes read a second.
Cost: less than a second; with a backbone, loading it and two batches.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import torch

from armorm.features.backbone import Backbone

SIDE = 640
LEAST = 0.05
"""Seconds that a measurement takes at least."""
BATCH = 4
"""Conversations in a batch of the decoder."""


def machine_rates() -> dict[str, float]:
    """Products of matrices in "float64" and "float32", and bytes that are hashed, as files are when they are "read"."""
    data = b"0" * 2**22
    return {
        "float64": _products(torch.float64),
        "float32": _products(torch.float32),
        "read": len(data) / _seconds(lambda: hashlib.sha256(data).digest()),
    }


@torch.no_grad()
def decoder_seconds(backbone: Backbone, length: int) -> float:
    """Seconds that a decoder takes for `BATCH` conversations of so many tokens."""
    ids = torch.ones((BATCH, length), dtype=torch.long, device=backbone.device)
    return _seconds(lambda: backbone.model(input_ids=ids, use_cache=False).last_hidden_state.sum().item())


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of products of matrices of a type, on a device."""
    return _products(dtype, device, 4096 if device.type == "cuda" else SIDE)


def _products(dtype: torch.dtype, device: torch.device | None = None, side: int = SIDE) -> float:
    a = torch.ones(side, side, dtype=dtype, device=device)
    return 2 * side**3 / _seconds(lambda: (a @ a)[0, 0].item())


def _seconds(work: Callable[[], object]) -> float:
    # The fastest of several times: others use the machine too.
    work()
    best, until = float("inf"), time.perf_counter() + LEAST
    while time.perf_counter() < until or best == float("inf"):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
