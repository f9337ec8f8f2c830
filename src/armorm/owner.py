"""One owner for what is being written: a run's folder, a store, an output file.

In: a place.  Out: the place is this process's for the length of a block.  Cost: one small file beside it, gone afterwards.

The lock is the operating system's (`filelock`), so it ends with its process, however that ends. The file says who holds it, for
the sentence that the second process ends with.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from armorm.disk import storage_errors
from armorm.errors import DataError, InUse

_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def owning(place: Path) -> Iterator[None]:
    """Hold a file, or a folder that is replaced as a whole, for the length of the block. The lock stands beside it.

    Where nothing can be written, nothing is held: what is there may be read. Raises InUse naming the process that holds the place
    already, DataError for a file of somebody else's that is called as the lock would be, StorageError for a full disk.
    """
    with storage_errors(place):
        whole = place.resolve()
    with _locked(place, whole.with_name(f".{whole.name[-200:]}.lock")):
        yield


@contextmanager
def owning_folder(folder: Path) -> Iterator[None]:
    """The same for a folder that is written into. The lock stands in it, so that it is one whatever way leads there."""
    made = not folder.exists()
    try:
        with _locked(folder, folder / ".lock"):
            yield
    finally:
        if made:
            with suppress(OSError):  # something is in it
                folder.rmdir()


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
            file.unlink(missing_ok=True)  # while it is held: who waits on this file then finds that it has no name
        lock.release()


def _lock(place: Path, file: Path) -> BaseFileLock | None:
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not _is_ours(file):
            raise DataError(f"{file}: is there already and is no lock of armorm's: move it away, or choose another place")
        lock.acquire(timeout=0)
    except Timeout:
        raise InUse(
            f"{place}: is being written by {_holder(file)}: wait until it is done and run this again, or choose another place"
        ) from None
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            return None
        raise
    return lock


def _is_ours(file: Path) -> bool:
    # An empty file is one that another process has just made.
    if file.is_symlink():
        return False
    try:
        facts = json.loads(file.read_bytes() or b"{}")
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return facts == {} or (isinstance(facts, dict) and facts.keys() == _self().keys())


def _self() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "machine": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(file: Path) -> str:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        here = facts["machine"] == socket.gethostname()
        machine = "" if here else f" on {facts['machine']}"
        return f"process {facts['process']}{machine} ({facts['command']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
