"""Commands and functions in forked children of this process, which has imported everything heavy and computed nothing.

In: words of the command line or a function, a place to stand in.  Out: `Ended`: how it ended, what it said, its memory.
Cost: a fork, about 10 ms; an import of torch would be seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from armorm.errors import MissingExtra

INTERRUPTED = 130
FAULTS = ("Traceback (most recent call last)", "this is a fault of armorm's own", "Exception ignored in", "Fatal Python error")
BEYOND = 8 << 30
"""Bytes of address space that a child may have beyond its parent's."""

Work = Sequence[object] | Callable[[], object]


def import_everything() -> None:
    """Every module of the package and what its commands import late, so that children need not. Computes nothing."""
    import matplotlib

    matplotlib.use("Agg")
    import armorm

    late = ("matplotlib.pyplot", "matplotlib.backends.backend_svg", "jinja2", "pandas", "hypothesis", "transformers.models.llama")
    late += ("accelerate", "peft", "peft.tuners.lora", "datasets", "transformers.trainer")
    found = [m.name for m in pkgutil.walk_packages(armorm.__path__, "armorm.") if not m.name.endswith("__main__")]
    for name in (*late, *found):
        try:
            importlib.import_module(name)
        except MissingExtra:
            continue
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "vllm":  # what runs inside vLLM, which has an environment of its own
                raise
    import torch

    torch.set_num_threads(1)


@dataclass(frozen=True)
class Ended:
    """How a child ended. `code` is negative for a signal; `error`: the name of the error of ours that it reported."""

    code: int
    out: str
    err: str
    error: str
    seconds: float
    rss: int
    hung: bool

    @property
    def verdict(self) -> str:
        """ok, refused, interrupted, killed, traceback or hang."""
        if self.hung:
            return "hang"
        if self.broken:
            return "traceback"
        if self.code == 0:
            return "ok"
        if self.code in (1, 2) and ("error:" in self.err or "Error" in self.err or "Usage:" in self.err):
            return "refused"
        return {INTERRUPTED: "interrupted", -signal.SIGKILL: "killed"}.get(self.code, "traceback")

    @property
    def broken(self) -> bool:
        """Whether it printed a traceback or the like."""
        return any(mark in self.err or mark in self.out for mark in FAULTS)

    @property
    def told(self) -> str:
        """What it said about its end, in a line."""
        if self.hung:
            return f"over {self.seconds:.0f} s"
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("error:")] or lines[-1:] or [f"code {self.code}"]
        return said[0][:300]


class Child:
    """A command of the line (`train`, "recipe.yaml", …) or a function, running in a fork."""

    def __init__(self, work: Work, place: Path, *, name: str = "child") -> None:
        self.out, self.err, self.error = (place / f".{name}.{kind}" for kind in ("out", "err", "error"))
        self.error.unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.start = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            _be(work, place, self.out, self.err, self.error)
        self._ended: Ended | None = None
        self._poll = select.poll()
        self._fd = os.pidfd_open(self.pid)
        self._poll.register(self._fd, select.POLLIN)

    def runs(self, seconds: float) -> bool:
        """Waits so long; whether it still runs then."""
        return self._ended is None and not self._poll.poll(max(0, seconds) * 1000)

    def send(self, number: int) -> None:
        if self._ended is None:
            os.kill(self.pid, number)

    def wait(self, limit: float) -> Ended:
        """Its end, which is a kill where it takes longer than `limit` seconds from its start."""
        if self._ended is not None:
            return self._ended
        hung = self.runs(limit - (time.perf_counter() - self.start))
        if hung:
            os.kill(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self._fd)
        seconds = time.perf_counter() - self.start
        out, err, error = (
            p.read_bytes().decode(errors="replace") if p.exists() else "" for p in (self.out, self.err, self.error)
        )
        for place in (self.out, self.err, self.error):
            place.unlink(missing_ok=True)
        self._ended = Ended(os.waitstatus_to_exitcode(status), out, err, error, seconds, usage.ru_maxrss // 1024, hung)
        return self._ended


def run(work: Work, place: Path, *, limit: float = 60, name: str = "child") -> Ended:
    """A command or a function from its start to its end."""
    return Child(work, place, name=name).wait(limit)


def _be(work: Work, place: Path, out: Path, err: Path, error: Path) -> None:
    # In the child: stand there, do it, leave without the parent's clean-up.
    code = 1
    try:
        for path, fd in ((out, 1), (err, 2)):
            opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            os.dup2(opened, fd)
            os.close(opened)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(place)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _bound_memory()
        code = _done(work, error)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _done(work: Work, error: Path) -> int:
    try:
        if callable(work):
            with _errors_as_the_command_line():
                work()
        else:
            from armorm.cli import main

            sys.argv = ["armorm", *map(str, work)]
            main()
    except SystemExit as left:
        if left.__context__ is not None:
            error.write_text(type(left.__context__).__name__)
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _errors_as_the_command_line() -> Any:
    from armorm.errors import ArmormError

    try:
        yield
    except ArmormError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _bound_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)  # a child of a child has room of its own
    resource.setrlimit(resource.RLIMIT_AS, (size + BEYOND, hard))
