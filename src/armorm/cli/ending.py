"""How the program ends: streams that may be closed, full or not UTF-8, signals, and errors that nobody expected.

In: a command to run.  Out: its exit code: 2 for the caller's faults, 1 for ours and the machine's, 130 when it was stopped, 141
where nobody reads what it prints.
"""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any

from armorm.errors import ArmormError
from armorm.user_files import naming

INTERRUPTED, UNREAD = 130, 141
_GOES_ON = "; what is complete is kept: run the same command again and it goes on from there"
_remedy: ContextVar[str] = ContextVar("remedy", default=_GOES_ON)
"""What is said behind "stopped"."""


class _Stream(str):
    """The name of a stream in an error, which no file's name is."""


STDOUT = _Stream("stdout")
TRACEBACK = "ARMORM_TRACEBACK"
"""The environment variable that shows where an error came from."""
_THE_CALLERS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT),
    *(errno.EEXIST, errno.EINVAL, errno.ENODEV, errno.ENXIO, errno.ENOTEMPTY),
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def run(command: Callable[[], Any]) -> None:
    """Run a command; whatever it ends in becomes one message on stderr and an exit code."""
    atexit.unregister(_ignore_stops)
    atexit.register(_ignore_stops)  # all is done then, and the interpreter only takes its time to leave
    _remedy.set(_GOES_ON)
    with _streams(), _stops() as stop:
        code = _code_of(command, stop)
        stop.over = True
        _ignore_stops()  # no second signal disturbs the farewell
        if code == INTERRUPTED:
            eval("0")  # else Python, interrupted in an `exec` of its own, would end by the signal instead of with the code
            print(f"\nstopped{_remedy.get()}", file=sys.stderr)
    if code:
        sys.exit(code)


def keep_nothing() -> None:
    """The command that runs has nothing that it could go on from."""
    _remedy.set("")


def _ignore_stops() -> None:
    with suppress(ValueError):  # in another thread than the main one
        for kind in _STOPS:
            signal.signal(kind, signal.SIG_IGN)


def _code_of(command: Callable[[], Any], stop: _Stop) -> int:
    try:
        code = _called(command)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if stop.asked or isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        return _told(error)
    return INTERRUPTED if stop.asked else code  # a library swallowed the interruption


def _called(command: Callable[[], Any]) -> int:
    try:
        command()
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # rich and typer make an ordinary end of it
            raise left.__context__ from None
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
            return 1
        return int(left.code or 0)
    return 0


def _told(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError) and (error.filename is None or error.filename is STDOUT):
        return UNREAD
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    message, code = said_of(error)
    _print_error(message)
    return code


def said_of(error: BaseException) -> tuple[str, int]:
    """An error's message and exit code; the last resort for those that are none of ours."""
    if isinstance(error, ArmormError):
        # Errors name the library's arguments; this option has another name.
        return str(error).replace("`kind`", "--as"), error.exit_code
    if isinstance(error, MemoryError):
        return "there is not enough memory: lower the tokens per batch (--batch-tokens, features.batch_tokens), or free some", 1
    if isinstance(error, OSError) and error.errno is not None:
        return _said_of_the_system(error)
    kind = type(error).__name__
    line = (str(error).strip() or kind).splitlines()[0][:300]
    if isinstance(error, RecursionError):
        line = f"something in the input is nested too deeply ({line})"
    return (
        f"{line} ({kind}); this is a fault of armorm's own: please report it with the command, and with what it prints when "
        f"{TRACEBACK}=1 is in the environment"
    ), 1


def _said_of_the_system(error: OSError) -> tuple[str, int]:
    place = f"{os.fsdecode(error.filename)[:300]}: " if isinstance(error.filename, str | bytes) else ""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return f"{place}the disk is full ({said}); what is complete is kept: make room and run it again", 1
    if error.filename is STDOUT:
        return f"stdout can't be written ({said}): lead it to a file or a program, or use the option that writes a file", 1
    if not place:
        return f"the machine can't do what it was asked to: {said}; {TRACEBACK}=1 in the environment shows where", 1
    if error.errno in _THE_CALLERS:
        return f"{place}{said}: choose a place that is there and that you may read and write", 2
    return f"{place}{said}", 1


def _print_error(message: str) -> None:
    from rich.text import Text

    from armorm.progress import Terminal

    Terminal(stderr=True, soft_wrap=True).print(Text.assemble(("error:", "bold red"), f" {message}"))


# -- streams ---------------------------------------------------------------------------------------------------------------------


class _Around:
    """A stream with other ways of writing."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Forgiving(_Around):
    """A stream for people, whose loss stops nothing."""

    def write(self, text: str) -> int:
        try:
            return int(self.stream.write(text))
        except (OSError, ValueError):
            _let_go(self.stream)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            _let_go(self.stream)


class _Named(_Around):
    """Standard output, whose errors say that they are its own."""

    def write(self, text: str) -> int:
        with naming(STDOUT):
            return self.stream.write(text) or len(text)

    def flush(self) -> None:
        with naming(STDOUT):
            self.stream.flush()


@contextmanager
def _streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    if sys.stderr is None:
        sys.stderr = _reopened(2, os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = _reopened(1, os.O_RDONLY)  # what is written to it fails, and says so
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = _Named(sys.stdout), _Forgiving(sys.stderr)
    try:
        yield
    finally:
        sys.stderr.flush()
        try:
            sys.stdout.flush()
        except (OSError, ValueError):  # it was told already
            _let_go(sys.stdout)
        sys.stdout = before[0] or sys.stdout
        sys.stderr = before[1] or sys.stderr


def _reopened(number: int, mode: int) -> Any:
    # Otherwise the next file that is opened would take the stream's place, and what others print would go into it.
    place = os.open(os.devnull, mode)
    if place != number:
        os.dup2(place, number)
        os.close(place)
    return open(number, "w", encoding="utf-8", closefd=False)


def _let_go(stream: Any) -> None:
    # What is still in its buffer goes nowhere, and fails no more.
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


# -- signals ---------------------------------------------------------------------------------------------------------------------


class _Stop:
    """Whether it was asked to stop. An interruption that a callback swallowed is raised again a moment later."""

    def __init__(self) -> None:
        self.asked = self.over = False
        self.before = sys.unraisablehook

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def swallowed(self, told: Any) -> None:
        if self.asked and isinstance(told.exc_value, KeyboardInterrupt):
            again = threading.Timer(0.05, self._again)
            again.daemon = True
            again.start()
        elif not self.asked:
            self.before(told)

    def _again(self) -> None:
        if self.over:
            return
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _stops() -> Iterator[_Stop]:
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    kept = {kind: signal.getsignal(kind) for kind in _STOPS}
    for kind, handler in kept.items():
        if handler is not signal.SIG_IGN:  # what a shell or `nohup` took away stays away
            signal.signal(kind, stop)
    sys.unraisablehook = stop.swallowed
    try:
        yield stop
    finally:
        sys.unraisablehook = stop.before
        for kind, handler in kept.items():
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)
