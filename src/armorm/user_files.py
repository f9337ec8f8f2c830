"""Files that people name: found, opened, and refused at once where there is nothing to read.

In: a name or a path as a person wrote it.  Out: a `Path`, or bytes and texts; DataError says what is in the way.
Cost: one question to the disk before a file is opened.

Only regular files are opened: a pipe or a device may have no end, or keep a reader waiting, and rows are read more than once.
"""

from __future__ import annotations

import errno
import gzip
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from armorm.errors import DataError, UserError

SHOWN = 200
MISSING = "no such file"
"""What is said of a path where there is nothing."""
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading within a `.gz` that is cut or damaged raises."""
_KINDS = (
    (stat.S_ISFIFO, "is a pipe: write it to a file first"),
    (stat.S_ISSOCK, "is a socket: name a file"),
    (stat.S_ISCHR, "is a device: name a file"),
    (stat.S_ISBLK, "is a device: name a file"),
)


def user_path(name: str | Path) -> Path:
    """A name as a path; `~` and `~user` are understood. Raises DataError for a user who isn't there."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise DataError(f"{shown(name)}: {error}: write the folder out") from None


def shown(path: object) -> str:
    """A path for a message: on one line, not too long; what is no UTF-8 is escaped."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}"


def here() -> str:
    """The working folder, for a message."""
    try:
        return shown(Path.cwd())
    except OSError:
        return "a working folder that is gone"


def is_file(path: Path) -> bool:
    """Whether a regular file is there; False also for names that no file can have."""
    return _mode(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False also for names that none can have."""
    return _mode(path, stat.S_ISDIR)


def fault_of(path: Path) -> str | None:
    """Why a path can't be read as a file, with a remedy; None for a regular file that can be opened."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else MISSING
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        return f"can't be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(mode):
        return "is a folder, name the files in it (a pattern such as folder/*.jsonl will do)"
    if not stat.S_ISREG(mode):
        return next((said for is_kind, said in _KINDS if is_kind(mode)), "is no regular file")
    return unreadable(path)


def unreadable(path: Path) -> str | None:
    """Why a regular file can't be opened; None where it can be. Libraries say of such files that there are none."""
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return f"can't be read: {error.strerror}"


def require_file(path: Path, *, kind: type[UserError] = DataError, remedy: str = "") -> None:
    """Raises `kind` for anything but a regular file that can be opened; `remedy` ends the sentence."""
    if fault := fault_of(path):
        raise kind(f"{shown(path)}: {fault}{f'; {remedy}' if remedy else ''}")


def stem_of(path: Path | str) -> str:
    """A file's name up to its first point: rows.jsonl.gz is called rows."""
    return Path(path).name.split(".")[0]


def version_of(path: Path) -> tuple[int, ...]:
    """What is another once a file was written to or replaced: its number on the disk, size and time. Raises DataError."""
    require_file(path)
    with naming(str(path)):
        about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def open_file(path: Path, *, unzip: bool = False) -> BufferedReader | gzip.GzipFile:
    """A regular file's bytes; with `unzip`, those within a `.gz`. Raises DataError."""
    require_file(path)
    try:
        return gzip.open(path, "rb") if unzip and path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(f"{shown(path)}: can't be read: {error.strerror}") from None


def read_small(path: Path, most: int) -> bytes:
    """A regular file's bytes. Raises OSError for anything else (a pipe is not waited for), and for more than `most` bytes."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Gives an OSError of the block the file or stream that it is about: one that is met while reading or writing names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or name
        raise


def _mode(path: Path, is_kind: object) -> bool:
    try:
        return bool(is_kind(path.stat().st_mode))  # type: ignore[operator]
    except (OSError, ValueError):
        return False
