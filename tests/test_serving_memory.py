"""What a server gives back of the memory that it has freed."""

from __future__ import annotations

import asyncio
import ctypes
import sys

import psutil
import pytest

from armorm.model.reward_model import RewardModel
from armorm.serving import memory
from armorm.serving.local import LocalService
from armorm.serving.memory import FreedMemory

MiB = 2**20
PIECE = 2**16
"""Bytes that glibc takes from its heap, not from the system by themselves."""


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone has it")
def test_freed_memory_below_what_is_still_used_goes_back():
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    places = [library.malloc(PIECE) for _ in range(2000)]
    for place in places:
        ctypes.memset(place, 1, PIECE)
    *freed, last = places
    for place in freed:
        library.free(place)
    held = resident()
    FreedMemory().give_back()
    gone = held - resident()
    library.free(last)
    assert gone > 100 * MiB


def test_a_service_gives_back_between_batches_when_it_is_time(tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    times: list[int] = []
    monkeypatch.setattr(FreedMemory, "give_back", lambda self: times.append(1))
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]

    async def ask(seconds: float) -> None:
        monkeypatch.setattr(memory, "GIVE_BACK_SECONDS", seconds)
        service = LocalService(tiny_model.engine(), "tiny")
        await service.start()
        for _ in range(3):
            await service.score([talk])
        await service.close()

    asyncio.run(ask(3600.0))
    assert not times
    asyncio.run(ask(-1.0))
    assert len(times) >= 2 or not FreedMemory().due  # where the C library has nothing of the kind, it is never time
