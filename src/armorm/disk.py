"""Files that are written whole or not at all, and read only as they were written.

In: texts, facts, tensors.  Out: files whose presence says that they are whole; read back, they are checked against their digests.
Cost: a rename for what is written, a SHA-256 of what is read.

A *sealed* JSON file opens with the digest of everything behind its second line. A *part* is a sealed JSON file and a safetensors
file of one name; the first holds the digest of the second, so that a flipped bit in either is named before it reaches a number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from armorm.errors import ArmormError, CheckpointError, DataError, StorageError
from armorm.user_files import naming, read_small

Kinds = Mapping[str, type | tuple[type, ...]]
"""Fields of a file, and what each must be."""
NOTHING: Kinds = MappingProxyType({})
_SEAL = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')
_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_SAID_FULL = ("No space left", "os error 28", "Disk quota exceeded", "os error 122")
_SAID_UNWRITTEN = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")
"""What PyTorch says, whatever keeps it from writing."""
_ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What a field of another kind, or none, leads to."""
_MARK = "# written by armorm; sha256 of what follows: "
_BESIDE = re.compile(r"\.(\d{1,20})\.(\d{1,10})\.(?:part|before)")
LARGEST = 1 << 26
"""Bytes of a sealed file at most."""


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns what goes wrong with the disk in the block into a StorageError about `place`, or what it is beside.

    A full disk is found in any library's error (tokenizers raise a plain Exception for it).
    """
    try:
        yield
    except ArmormError:
        raise
    except Exception as error:
        named = _BESIDE.sub("", str(place))
        if getattr(error, "errno", None) in _FULL or any(said in str(error) for said in _SAID_FULL):
            raise StorageError(f"{named}: the disk is full; what is complete is kept: make room and run it again") from error
        if not isinstance(error, OSError | SafetensorError) and not any(said in str(error) for said in _SAID_UNWRITTEN):
            raise
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise StorageError(f"{named}: can't be written: {said}; make room or choose another place") from error


@contextmanager
def writing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A place beside `path` to write a file to: renamed to `path` when the block ends well, removed otherwise.

    It is in a folder of its own, since libraries have passing files too (safetensors). The file has the rights that the umask
    leaves. What a killed process left of an earlier attempt goes. A `new` file replaces none: what came there meanwhile stays,
    and is a DataError. Raises StorageError.
    """
    apart = _beside(path)
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_killed(path)
            apart.mkdir()
            beside = apart / path.name
            rights = _rights(beside)
            yield beside
            beside.chmod(rights)
            if new:
                give_name(beside, path)
            else:
                beside.replace(path)
        finally:
            _remove(apart)


def give_name(made: Path, path: Path) -> None:
    """Give a finished file a name that nothing has.

    Raises DataError where something came there meanwhile, which stays, as does `made`; StorageError.
    """
    with storage_errors(path):
        try:
            os.link(made, path)  # a rename would take the other's place
        except FileExistsError:
            raise _came_between(path) from None
        except OSError:  # a file system without hard links; what else is wrong the rename finds too
            if is_there(path):
                raise _came_between(path) from None
            made.replace(path)
        else:
            remove_file(made)


def _came_between(place: Path) -> DataError:
    return DataError(
        f"{place}: something of this name came there while it was made, and stays as it is: move it away and run this again"
    )


@contextmanager
def writing_folder(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """The same for a folder, which takes the place of one that is there when it is whole, and not before.

    A `new` one takes that of an empty folder alone: what came there meanwhile stays, and is a DataError.
    """
    beside, before = _beside(folder), _beside(folder, "before")
    with storage_errors(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_killed(folder)
            beside.mkdir()
            yield beside
            give_rights(beside, (str(file.relative_to(beside)) for file in beside.rglob("*.safetensors")))
            if new:
                _require_still_free(folder)
            elif folder.is_dir():
                folder.replace(before)
            beside.replace(folder)  # which no folder that holds something stands
        finally:
            if before.exists() and not folder.exists():  # stopped between the two
                before.replace(folder)
            _remove(beside)
            _remove(before)


@contextmanager
def passing_folder(place: Path) -> Iterator[Path | None]:
    """A folder beside `place` for the length of the block, gone at its end; what a killed process left of one goes too.

    None where nothing can be written. Raises StorageError.
    """
    made = not place.parent.exists()
    beside: Path | None = _beside(place)
    with storage_errors(place):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove_killed(place)
            _beside(place).mkdir()
        except OSError as error:
            if error.errno not in NOT_WRITABLE:
                raise
            beside = None
    try:
        yield beside
    finally:
        if beside is not None:
            _remove(beside)
        if made:
            with suppress(OSError):  # something is in it
                place.parent.rmdir()


def give_rights(folder: Path, names: Iterable[str]) -> None:
    """Give files of a folder the rights that the folder has: safetensors are written for their owner alone."""
    rights = folder.stat().st_mode & 0o666
    for file in map(folder.joinpath, names):
        if file.is_file() and not file.is_symlink():
            file.chmod(rights)


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Write a text as UTF-8; half a surrogate pair becomes a question mark. Raises what `writing` raises."""
    with writing(path, new=new) as beside:
        beside.write_bytes(text.encode("utf-8", errors="replace"))


def write_marked(path: Path, text: str) -> None:
    """Write a text (YAML, say) under a comment that says who wrote it and seals it. One that is there as it is stays.

    Raises DataError for a file that is there and was not written so, or was changed since: it is somebody's own. StorageError.
    """
    marked = f"{_MARK}{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}\n{text}"
    if is_there(path):
        there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        if there == marked:
            return
        if not is_marked(there):
            raise DataError(
                f"{path}: is there already and is not as armorm would have written it: move it away (a changed one can be run "
                "from where it is then), or choose another folder"
            )
    write_text(path, marked)


def is_marked(text: str) -> bool:
    """Whether a text is as `write_marked` wrote it."""
    head, _, body = text.partition("\n")
    return head == f"{_MARK}{hashlib.sha256(body.encode('utf-8', 'replace')).hexdigest()}"


def write_json(path: Path, facts: Any) -> None:
    """Write facts as JSON for people and machines. Raises StorageError."""
    write_text(path, json_text(facts))


def json_text(facts: Any) -> str:
    """Facts as JSON, one field a line; numbers that are none (NaN, ∞) become null."""
    return json.dumps(numbers_or_null(facts), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def numbers_or_null(value: Any) -> Any:
    """A value in which what JSON has no number for (NaN, ∞) is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: numbers_or_null(one) for key, one in value.items()}
    return list(map(numbers_or_null, value)) if isinstance(value, list | tuple) else value


def write_sealed(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts as JSON that opens with the digest of what follows. Raises StorageError."""
    body = json_text(facts).removeprefix("{\n").encode("utf-8", errors="replace")
    seal = f'{{\n "sha256": "{hashlib.sha256(body).hexdigest()}",\n'
    with writing(path) as beside:
        beside.write_bytes(seal.encode() + body)


def is_sealed(path: Path) -> bool:
    """Whether a file opens as `write_sealed` writes it, whatever became of the rest."""
    try:
        with path.open("rb") as file:
            return _SEAL.match(file.read(100)) is not None
    except OSError:
        return False


def read_sealed(path: Path, format: int, *, remedy: str, holds: Kinds = NOTHING) -> dict[str, Any]:
    """The facts that `write_sealed` wrote, of one format number. `remedy` ends the error's sentence: "train again".

    `holds` are fields that must be there, and their kinds: a seal is no proof of who wrote it. Raises CheckpointError where the
    file is missing, of another format, not as it was written, or without such a field.
    """
    try:
        data = read_small(path, LARGEST)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror}): {remedy}") from error
    seal = _SEAL.match(data)
    if seal is None:
        found = _format_of(data)
        strange = found not in (None, format)
        raise CheckpointError(f"{path}: {f'format {found}, this version reads {format}' if strange else 'damaged'}: {remedy}")
    body = data[seal.end() :]
    if hashlib.sha256(body).hexdigest().encode() != seal[1]:
        raise CheckpointError(f"{path}: damaged (it is not as it was written): {remedy}")
    try:
        facts: dict[str, Any] = json.loads(b"{" + body)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged (it is no JSON): {remedy}") from error
    if facts.get("format") != format:
        raise CheckpointError(f"{path}: format {facts.get('format')}, this version reads {format}: {remedy}")
    for name, kind in holds.items():
        if not isinstance(facts.get(name), kind) or isinstance(facts[name], bool):
            found = f"`{name}` is a {type(facts[name]).__name__}" if name in facts else f"no `{name}`"
            raise CheckpointError(f"{path}: does not hold what it should ({found}): {remedy}")
    return facts


def save_part(folder: Path, name: str, tensors: Mapping[str, np.ndarray], facts: Mapping[str, Any], format: int) -> None:
    """Write `name`.safetensors, then `name`.json with what the numbers mean and their digest. Raises StorageError."""
    place = folder / f"{name}.safetensors"
    with writing(place) as beside:
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, beside)
        digest = digest_of(beside)
        (folder / f"{name}.json").unlink(missing_ok=True)  # its presence says that both are whole and belong together
    write_sealed(folder / f"{name}.json", {"format": format, **facts, "tensors": digest})


def load_part(folder: Path, name: str, format: int, *, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors and facts that `save_part` wrote. Raises CheckpointError as `read_sealed` does."""
    facts = read_sealed(folder / f"{name}.json", format, remedy=remedy, holds={"tensors": str})
    place = folder / f"{name}.safetensors"
    check_digest(place, facts["tensors"], remedy=remedy)
    try:
        return load_file(place), facts
    except (SafetensorError, OSError, *_ODD) as error:  # a type that NumPy has not
        raise CheckpointError(f"{place}: does not hold what it should ({error}): {remedy}") from error


@contextmanager
def reading_facts(place: Path, *, remedy: str) -> Iterator[None]:
    """Turns what a field of another kind, or none, leads to in the block into a CheckpointError about the file it is in."""
    try:
        yield
    except ArmormError:
        raise
    except _ODD as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{place}: does not hold what it should ({said}): {remedy}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, streamed. Raises OSError, which names the file."""
    with naming(str(path)), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, digest: str, *, remedy: str) -> None:
    """Raises CheckpointError for a file that is missing or is not the one that was written."""
    try:
        found = digest_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror}): {remedy}") from error
    if found != digest:
        raise CheckpointError(f"{path}: damaged (it is not as it was written): {remedy}")


def hash_files(h: Any, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Put the names and contents of a folder's wanted files into a hash."""
    for file in sorted(folder.iterdir()):
        if wanted(file.name):
            h.update(os.fsencode(file.name) + bytes.fromhex(digest_of(file)))


def is_there(place: Path) -> bool:
    """Whether something has this name, if only a link to nothing. Raises StorageError for a name that none can have here."""
    with storage_errors(place):
        try:
            place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


def require_free(folder: Path) -> None:
    """Raises DataError for a place that holds something, StorageError as `is_there` does."""
    if is_there(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already and not empty: name a new folder, or remove it first")


def _require_still_free(folder: Path) -> None:
    try:
        require_free(folder)
    except DataError:
        raise _came_between(folder) from None


def folder_name(name: str) -> str:
    """A folder's name for a model or a suite: runs/open/model → open-model."""
    path = Path(name)
    parts = path.parts[-2:] if path.name == "model" else path.parts[-1:]
    return re.sub(r"[^\w.]+", "-", "-".join(parts)).strip("-") or "model"


def _beside(path: Path, what: str = "part") -> Path:
    return path.with_name(f"{path.name}.{get_ident()}.{os.getpid()}.{what}")  # of this thread of this process


def _rights(place: Path) -> int:
    # What the umask leaves a new file; it can't be asked for without being set.
    place.touch()
    return place.stat().st_mode & 0o777


def _remove_killed(path: Path) -> None:
    # Attempts at `path` whose processes are gone. One that was stopped between its two renames had the folder aside.
    if os.name != "posix" or not path.parent.is_dir():
        return
    with os.scandir(path.parent) as found:
        names = [entry.name for entry in found if entry.name.startswith(f"{path.name}.")]
    for name in sorted(names):
        owner = _BESIDE.fullmatch(name[len(path.name) :])
        if owner is None or _is_at_work(thread=int(owner[1]), process=int(owner[2])):
            continue
        if name.endswith(".before") and not path.exists():
            path.with_name(name).replace(path)
        else:
            _remove(path.with_name(name))


def _is_at_work(*, thread: int, process: int) -> bool:
    # Of this process the other threads that there are: a process before it may have had its number (in a container they all do).
    if process == os.getpid():
        return thread != get_ident() and thread in sys._current_frames()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove_file(place: Path) -> None:
    """Take away a file that may be there; what is in the way of that is no news beside what went wrong before."""
    with suppress(OSError):
        place.unlink(missing_ok=True)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        remove_file(place)


def _format_of(data: bytes) -> Any:
    # Earlier versions wrote plain JSON with a format number.
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return facts.get("format") if isinstance(facts, dict) else None
