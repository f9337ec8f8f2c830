"""One owner for what is being written: a run's folder, a store, an output file.

In: a place.  Out: the place is this process's for the length of a block.  Cost: one small file beside it, gone afterwards.

The lock is the operating system's (`filelock`), so it ends with its process, however that ends. The file says who holds it, for
the sentence that the second process ends with.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from armorm.disk import NOT_WRITABLE, is_there, remove_file, storage_errors
from armorm.errors import DataError, InUse

_SOFT = re.compile(rb"(\d{1,10})\n([\x21-\x7e]{1,255})(?:\n[\x20-\x7e]{0,200})*\n?")
"""What filelock writes where the system has no locks: the process and its machine."""
_LONGEST = 1 << 16
"""Bytes of a lock's file at most."""
_HELD = ".held"
"""The lock in a passing folder."""
LOOKS, PAUSE = 50, 0.02
"""How often, and after how many seconds, one looks for the name of the process that holds a lock."""


@contextmanager
def owning(place: Path) -> Iterator[None]:
    """Hold a file, or a folder that is replaced as a whole, for the length of the block. The lock stands beside it.

    Where nothing can be written, nothing is held: what is there may be read. A lock's file of another user's, which this one may
    not write, is locked as it is. Raises InUse naming the process that holds the place already, DataError for a file of somebody
    else's that is called as the lock would be, StorageError for a full disk.
    """
    with storage_errors(place):
        lock = _lock_of(place)
    with _locked(place, lock):
        yield


def _lock_of(place: Path) -> Path:
    # Where the lock of a file stands
    whole = place.resolve()
    return whole.with_name(f".{whole.name[-200:]}.lock")


@contextmanager
def owning_folder(folder: Path) -> Iterator[None]:
    """The same for a folder that is written into. The lock stands in it, so that it is one whatever way leads there."""
    made = not is_there(folder)
    try:
        with _locked(folder, folder / ".lock"):
            yield
    finally:
        if made:
            with suppress(OSError):  # something is in it
                folder.rmdir()


def clear_left_lock(place: Path) -> None:
    """Take away the lock that a killed process left, in a folder or beside it, or beside a file; one that is held stays, as does
    what is no lock of ours. Raises StorageError for a damaged disk."""
    for lock, held in ((place / ".lock", owning_folder), (_lock_of(place), owning)):
        if lock.exists():
            with suppress(DataError), held(place):
                pass


class Passing:
    """A folder among the system's for what passes, called `name`-…, for as long as this is held.

    The system's lock in it tells what a killed process left: that goes when the next one is made. Raises StorageError.
    """

    def __init__(self, name: str) -> None:
        with storage_errors(Path("the folder for temporary files (TMPDIR)")):
            place = Path(tempfile.gettempdir())
        with storage_errors(place):
            _clear_left(place, name)
            fresh = Path(tempfile.mkdtemp(prefix=f"new-{name}-"))
            lock = FileLock(fresh / _HELD)
            lock.acquire(timeout=0)
            self.path = fresh.rename(fresh.with_name(fresh.name.removeprefix("new-")))  # nobody sees it before it is held
        weakref.finalize(self, _leave, self.path, lock, os.getpid())


def _clear_left(place: Path, name: str) -> None:
    for folder in place.glob(f"{name}-*"):
        with suppress(OSError, Timeout):
            if not (folder / _HELD).is_file() or folder.is_symlink() or not _is_own(folder):
                continue
            with FileLock(folder / _HELD).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    return os.name != "posix" or folder.stat().st_uid == os.getuid()


def _leave(folder: Path, lock: BaseFileLock, process: int) -> None:
    if os.getpid() == process:  # one that was forked leaves its parent's folder
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


@contextmanager
def _locked(place: Path, file: Path) -> Iterator[None]:
    with storage_errors(place):
        lock = _lock(place, file)
    if lock is None:
        yield
        return
    try:
        if not isinstance(lock, SoftFileLock):  # which keeps facts of its own in the file
            with suppress(OSError):
                file.write_text(json.dumps(_self()), encoding="utf-8")
        yield
    finally:
        if not isinstance(lock, SoftFileLock):
            remove_file(file)  # while it is held: who waits on this file then finds that it has no name
        lock.release()


class _Theirs:
    # The lock in a file that this user may read and not write.

    def __init__(self, place: Path, file: Path) -> None:
        import fcntl

        try:
            self._opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise InUse(
                f"{place}: another user's lock stands there, and can't be looked into ({file}: {error.strerror}): wait until "
                "they are done, have them remove what a stopped process left, or choose another place"
            ) from error
        try:
            fcntl.flock(self._opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = os.fstat(self._opened).st_nlink == 0  # its holder has just left
        except OSError:
            gone = True
        if gone:
            self.release()
            raise InUse(_in_use(place, _holder(file)))

    def release(self) -> None:
        os.close(self._opened)


def _lock(place: Path, file: Path) -> BaseFileLock | _Theirs | None:
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not _is_ours(file):
            raise DataError(f"{file}: is there already and is no lock of armorm's: move it away, or choose another place")
        _acquire(lock, place, file)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        theirs = error.errno != errno.EROFS and os.name == "posix" and file.is_file()
        return _Theirs(place, file) if theirs else None
    return lock


def _in_use(place: Path, holder: str | None) -> str:
    return (
        f"{place}: is being written by {holder or 'another process'}: wait until it is done and run this again, or choose "
        "another place"
    )


def _acquire(lock: BaseFileLock, place: Path, file: Path) -> None:
    # Who has just taken the lock has not said yet who it is; who is about to leave it says nothing any more.
    for left in reversed(range(LOOKS)):
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            holder = _holder(file)
            if not left and not file.is_file():  # where no file can be made (`/proc`), the library waits for it too
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file)) from None
            if holder or not left:
                raise InUse(_in_use(place, holder)) from None
        time.sleep(PAUSE)


def _is_ours(file: Path) -> bool:
    # An empty file is one that another process has just made.
    try:
        facts = _written(file)
    except FileNotFoundError:
        return True
    return facts == {} or (isinstance(facts, dict) and facts.keys() == _self().keys())


def _written(file: Path) -> Any:
    # What a lock's file says; None for what is no such file, which may be a pipe, or endless.
    try:
        about = file.lstat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _LONGEST:
            return None
        data = file.read_bytes()
        soft = _SOFT.fullmatch(data)
        return json.loads(data or b"{}") if soft is None else _said_in(soft, about.st_mtime)
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, ValueError, RecursionError):
        return None


def _said_in(soft: re.Match[bytes], time: float) -> dict[str, object]:
    since = datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    return {"process": int(soft[1]), "machine": soft[2].decode(), "command": "not known", "since": since}


def _self() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(file: Path) -> str | None:
    # None where the file does not say
    try:
        facts = _written(file)
        here = facts["machine"] == socket.gethostname()
        machine = "" if here else f" on {facts['machine']}"
        return f"process {facts['process']}{machine} ({facts['command']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return None
