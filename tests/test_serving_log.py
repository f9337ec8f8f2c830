"""A server's log where it can't be written: nothing waits for it, nothing is half told, and what was lost is counted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import pytest
import uvicorn

from armorm.serving import stopping
from armorm.serving.door import Door
from armorm.serving.logs import NAME, OTHERS, ROOM, Lines, tell, write_log
from armorm.serving.stopping import Server

FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """What is as it was afterwards."""
    found = [logging.getLogger(name) for name in (NAME, *OTHERS)]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in found]
    yield
    for logger, (handlers, propagate, level) in zip(found, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def log_to(stream: TextIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    write_log()


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end at which the log can be read."""
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as stream:
        log_to(stream, monkeypatch)
        yield reads


def read(descriptor: int) -> list[dict[str, Any]]:
    """All that is in a pipe, which has something."""
    return [json.loads(line) for line in os.read(descriptor, 2**20).decode().splitlines()]


def fill(descriptor: int) -> int:
    """How many lines were told until a pipe was full and one more."""
    handler = logging.getLogger(NAME).handlers[0]
    assert isinstance(handler, Lines)
    told = 0
    while not handler.lost:
        tell("request", number=told)
        told += 1
    return told


def test_a_line_is_one_write_and_nothing_is_kept_back(pipe: int):
    tell("request", text="ä\ud800\n")
    assert read(pipe)[0]["text"] == "ä\ud800\n"
    tell("fault", error=ValueError("what was asked"))
    (line,) = read(pipe)
    assert (line["level"], line["error"]) == ("error", "ValueError")
    assert "what was asked" not in json.dumps(line)


def test_what_a_server_is_built_on_tells_its_errors_without_what_was_asked(pipe: int):
    async def fail() -> None:
        raise ValueError("what was asked")

    async def forget() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(forget())
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError("what was asked"))
    logging.getLogger("uvicorn.error").info("Started")
    first, second = read(pipe)
    assert (first["event"], first["message"], first["error"]) == ("asyncio", "Task exception was never retrieved", "ValueError")
    assert (second["message"], second["error"]) == ("Exception in ASGI application", "ValueError")
    assert "what was asked" not in json.dumps([first, second])


def test_a_full_pipe_loses_lines_and_the_next_one_says_how_many(pipe: int):
    told = fill(pipe)
    for _ in range(4):
        tell("request")
    kept = read(pipe)
    assert [line["number"] for line in kept] == list(range(told - 1))
    tell("stopped")
    lost, last = read(pipe)
    assert (lost["event"], lost["level"], lost["lines"]) == ("lines-lost", "warning", 5)
    assert last["event"] == "stopped"
    tell("stopped")
    assert [line["event"] for line in read(pipe)] == ["stopped"]


def test_a_long_line_that_breaks_off_harms_no_other(pipe: int):
    tell("request", body="x" * 2**20)
    kept = os.read(pipe, 2**20)
    assert len(kept) > ROOM
    assert b"\n" not in kept
    tell("request")
    lines = os.read(pipe, 2**20).splitlines()
    assert lines[0] == b""  # the end of the one that broke off
    assert [json.loads(line)["event"] for line in lines[1:]] == ["lines-lost", "request"]


def test_a_reader_that_has_left_changes_nothing(pipe: int):
    os.close(pipe)
    for _ in range(3):
        tell("request")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    with FULL.open("w") as stream:
        log_to(stream, monkeypatch)
        tell("request")


def test_no_stream_and_one_without_a_descriptor_are_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    write_log()
    tell("request")
    assert json.loads(capsys.readouterr().err)["event"] == "request"
    log_to(None, monkeypatch)
    tell("request")


def server_of(door: Door) -> Server:
    return Server(uvicorn.Config(lambda *_: None, log_config=None), door, lambda: None)


def test_a_signal_writes_nothing_while_a_line_may_be_being_written(pipe: int):
    server = server_of(door := Door())

    async def stop() -> None:
        server.handle_exit(signal.SIGTERM, None)
        assert door.closed
        assert not server.should_exit
        tell("request")
        await asyncio.sleep(0)

    asyncio.run(stop())
    assert [line["event"] for line in read(pipe)] == ["request", "draining"]


@pytest.mark.parametrize("full", [False, True])
def test_a_second_signal_waits_for_no_log(pipe: int, monkeypatch: pytest.MonkeyPatch, full: bool):
    door = Door()
    door.closed = True
    monkeypatch.setattr(stopping.os, "_exit", sys.exit)
    if full:
        fill(pipe)
    lock = logging.getLogger(NAME).handlers[0].lock
    assert lock is not None
    with ThreadPoolExecutor(1) as another:
        another.submit(lock.acquire).result()
        with pytest.raises(SystemExit) as ended:
            server_of(door).handle_exit(signal.SIGTERM, None)
        another.submit(lock.release).result()
    assert ended.value.code == stopping.AT_ONCE
    assert read(pipe)[-1]["event"] == ("request" if full else "stopped")
