"""A server's log where nobody reads it or it can't be written: nothing waits for it, and what was lost is counted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import pty
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
import uvicorn

from armorm.serving import logs, stopping
from armorm.serving.door import Door
from armorm.serving.logs import NAME, flush_log, tell, writing_log
from armorm.serving.stopping import Server

FULL = Path("/dev/full")
PIPE = 2**12
"""Bytes that the tests' pipes take."""


@contextmanager
def logging_to(stream: TextIO | None) -> Iterator[None]:
    before, sys.stderr = sys.stderr, stream  # type: ignore[assignment]
    try:
        with writing_log():
            yield
    finally:
        sys.stderr = before


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FAREWELL", 0.1)


def a_pipe() -> tuple[int, int]:
    reads, writes = os.pipe()
    if sys.platform == "linux":
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE)
    return reads, writes


@pytest.fixture
def pipe() -> Iterator[int]:
    """The end at which the log can be read."""
    reads, writes = a_pipe()
    with os.fdopen(writes, "w") as stream, logging_to(stream):
        yield reads
    os.close(reads)


def read_until(descriptor: int, event: str) -> list[dict[str, Any]]:
    """All lines up to one that tells of this event."""
    lines, rest = list[dict[str, Any]](), b""
    while not lines or lines[-1]["event"] != event:
        *whole, rest = (rest + os.read(descriptor, 2**20)).split(b"\n")
        lines += [json.loads(line) for line in whole if line.strip()]
    return lines


@contextmanager
def reading(descriptor: int) -> Iterator[list[dict[str, Any]]]:
    """Lines as they come, up to one that tells of "last"."""
    found = list[dict[str, Any]]()
    reader = threading.Thread(target=lambda: found.extend(read_until(descriptor, "last")), daemon=True)
    reader.start()
    yield found
    reader.join(timeout=60)
    assert not reader.is_alive()


def test_what_is_told_is_written_as_json(pipe: int):
    tell("request", text="ä\ud800\n")
    tell("fault", error=ValueError("what was asked"))
    first, second = read_until(pipe, "fault")
    assert (first["level"], first["text"]) == ("info", "ä\ud800\n")
    assert (second["level"], second["error"]) == ("error", "ValueError")
    assert "what was asked" not in json.dumps(second)


def test_what_a_server_is_built_on_tells_its_errors_without_what_was_asked(pipe: int):
    async def fail() -> None:
        raise ValueError("what was asked")

    async def forget() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        del task

    asyncio.run(forget())
    logging.getLogger("uvicorn.error").info("Started")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError("what was asked"))
    first, second = read_until(pipe, "uvicorn.error")
    assert (first["event"], first["message"], first["error"]) == ("asyncio", "Task exception was never retrieved", "ValueError")
    assert (second["message"], second["error"]) == ("Exception in ASGI application", "ValueError")
    assert "what was asked" not in json.dumps([first, second])


@pytest.mark.parametrize("kind", [a_pipe, pty.openpty])
def test_whoever_does_not_read_holds_nobody_up_and_loses_nothing_yet(kind: Callable[[], tuple[int, int]]):
    reads, writes = kind()
    with os.fdopen(reads, "rb"), os.fdopen(writes, "w") as stream, logging_to(stream):
        longest = 0.0
        for number in range(1000):
            start = time.monotonic()
            tell("request", number=number)
            longest = max(longest, time.monotonic() - start)
        tell("last")
        assert longest < 5
        assert [line.get("number") for line in read_until(reads, "last")] == [*range(1000), None]


def test_beyond_what_is_held_lines_are_left_out_and_counted(pipe: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "HELD", 2 * PIPE)
    for number in range(1000):
        tell("request", number=number)
    with reading(pipe) as found:
        flush_log(60.0)
        tell("last")
    lost = [line["lines"] for line in found if line["event"] == "lines-lost"]
    kept = [line["number"] for line in found if line["event"] == "request"]
    assert kept == sorted(kept)
    assert len(kept) + sum(lost) == 1000
    assert {line["level"] for line in found if line["event"] == "lines-lost"} == {"warning"}
    tell("request")
    tell("last")
    assert [line["event"] for line in read_until(pipe, "last")] == ["request", "last"]


def test_a_long_line_is_whole(pipe: int):
    tell("request", body="я" * 2**20)
    tell("last")
    assert read_until(pipe, "last")[0]["body"] == "я" * 2**20


def test_a_descriptor_that_never_waits_gets_every_line(pipe: int):
    (handler,) = (one for one in logging.getLogger(NAME).handlers if isinstance(one, logs.Lines))
    os.set_blocking(handler._descriptor, False)
    tell("request", body="x" * 10 * PIPE)
    tell("last")
    assert [line["event"] for line in read_until(pipe, "last")] == ["request", "last"]


def test_a_line_that_broke_off_harms_no_other_and_counts(pipe: int, monkeypatch: pytest.MonkeyPatch):
    write, left = os.write, [10, 0, 10, 0]

    def breaks(descriptor: int, data: memoryview) -> int:
        if not left:
            return write(descriptor, data)
        if most := left.pop(0):
            return write(descriptor, data[:most])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs.os, "write", breaks)
    tell("request")
    flush_log(60.0)
    tell("last")
    flush_log(60.0)
    lines = os.read(pipe, 2**20).splitlines()
    told = [json.loads(line) for line in lines if line.endswith(b"}")]
    assert lines[0] == b'{"time": "'
    assert [(line["event"], line.get("lines")) for line in told] == [("lines-lost", 1), ("last", None)]


def test_a_loss_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "HELD", -1)
    reads, writes = a_pipe()
    with os.fdopen(reads, "rb"), os.fdopen(writes, "w") as stream:
        with logging_to(stream):
            tell("request")
        assert read_until(reads, "lines-lost")[-1]["lines"] == 1


def test_a_reader_that_has_left_changes_nothing():
    reads, writes = a_pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as stream, logging_to(stream):
        for _ in range(3):
            tell("request")
        flush_log(60.0)


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_changes_nothing():
    with FULL.open("w") as stream, logging_to(stream):
        tell("request")
        flush_log(60.0)


def test_no_stream_a_closed_one_and_one_without_a_descriptor_are_no_fault(capsys: pytest.CaptureFixture[str]):
    with writing_log():
        tell("request")
    assert json.loads(capsys.readouterr().err)["event"] == "request"
    with logging_to(None):
        tell("request")
    closed = FULL.open("w")
    closed.close()
    with logging_to(closed):
        tell("request")


def test_the_loggers_are_as_before_when_a_server_has_ended():
    loggers = [logging.getLogger(name) for name in (NAME, *logs.OTHERS)]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    reads, writes = a_pipe()
    threads = set(threading.enumerate())
    with os.fdopen(reads, "rb"), os.fdopen(writes, "w") as stream, logging_to(stream):
        (writing,) = set(threading.enumerate()) - threads
    writing.join(timeout=60)
    assert not writing.is_alive()
    assert [(logger.handlers, logger.propagate, logger.level) for logger in loggers] == before


# -- signals ---------------------------------------------------------------------------------------------------------------------


def server_of(door: Door) -> Server:
    return Server(uvicorn.Config(lambda *_: None, log_config=None), door, lambda: None)


def test_a_first_signal_closes_the_door_and_ends_nothing(pipe: int):
    server = server_of(door := Door())
    server.handle_exit(signal.SIGTERM, None)
    assert door.closed
    assert not server.should_exit
    assert [line["event"] for line in read_until(pipe, "draining")] == ["draining"]


@pytest.mark.parametrize("full", [False, True])
def test_a_second_signal_waits_for_no_log(pipe: int, monkeypatch: pytest.MonkeyPatch, full: bool):
    door = Door()
    door.closed = True
    monkeypatch.setattr(stopping.os, "_exit", sys.exit)
    for _ in range(1000 if full else 0):
        tell("request")
    with pytest.raises(SystemExit) as ended:
        server_of(door).handle_exit(signal.SIGTERM, None)
    assert ended.value.code == 130
    assert read_until(pipe, "stopped")[0]["event"] == ("request" if full else "stopped")


def test_signals_while_lines_are_told_break_none(pipe: int):
    class Open(Door):
        closed = property(lambda _: False, lambda _, __: None)  # type: ignore[assignment]

    kept = signal.signal(signal.SIGALRM, server_of(Open()).handle_exit)
    with reading(pipe) as found:
        signal.setitimer(signal.ITIMER_REAL, 2e-3, 2e-3)
        try:
            for number in range(5000):
                tell("request", number=number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, kept)
        tell("last")
    assert [line["number"] for line in found if line["event"] == "request"] == list(range(5000))
    assert sum(line["event"] == "draining" for line in found) > 0
