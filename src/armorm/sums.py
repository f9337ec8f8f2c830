"""What a folder holds of ours: a list of its files with their digests, in the form of `sha256sum`.

In: a folder.  Out: `SHA256SUMS`, written last; files that are missing, cut or not as they were written, by name.
Cost: a SHA-256 of every file that is listed, streamed.

The list does two things. A file that stands in it is ours, and a later run may replace it; everything else in the folder is
somebody's own and is never touched. And a bit that flipped, or a file that went missing, is found before it
reaches a number. `sha256sum -c SHA256SUMS` checks the same without this package. Its last line seals the list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from armorm.disk import digest_of, give_rights, is_there, storage_errors, write_text
from armorm.errors import CheckpointError, DataError
from armorm.user_files import read_small

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SEAL = "# sealed "
MODEL_REMEDY = f"copy the folder again, or make it anew; where the change is meant, remove {NAME}"
_NOT_READ = ("stage.json", "README.md")
UNFINISHED = "0" * 64
LARGEST = 1 << 26
"""Bytes of a list at most: half a million files."""


def write_sums(folder: Path, files: Iterable[str] | None = None) -> None:
    """List these files of a folder (default: all below it) with their digests. Raises StorageError."""
    names = sorted(files if files is not None else _below(folder))
    save_sums(folder, {name: digest_of(folder / name) for name in names})


def save_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write a folder's list: digests by file. Raises StorageError."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    whole = f"{text}{_SEAL}{_digest(text)}\n"
    if not (folder / NAME).is_file() or (folder / NAME).read_bytes() != whole.encode("utf-8", "surrogateescape"):
        write_text(folder / NAME, whole)


def read_sums(folder: Path) -> dict[str, str]:
    """The folder's list: digests by file; nothing where there is no list. Raises CheckpointError for one that is damaged, or that
    names what is not below the folder."""
    place = folder / NAME
    try:
        text = read_small(place, LARGEST).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CheckpointError(f"{place}: can't be read ({error.strerror})") from error
    body, _, seal = text.rpartition(_SEAL)
    found = [_LINE.fullmatch(line) for line in body.split("\n")[:-1]]
    if seal != f"{_digest(body)}\n" or not all(line is not None and _is_below(line[2]) for line in found):
        raise CheckpointError(f"{place}: damaged (it is not as it was written)")
    return {line[2]: line[1] for line in found if line is not None}


def faults_of(folder: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) for each listed file that is missing or not as it was written; of these `names` alone where given.

    A list that is damaged is the one fault.
    """
    try:
        sums = read_sums(folder)
    except CheckpointError as error:
        yield NAME, str(error).removeprefix(f"{folder / NAME}: ")
        return
    wanted = None if names is None else set(names)
    for name, digest in sums.items():
        if wanted is None or name in wanted:
            try:
                if digest == UNFINISHED:
                    yield name, "is not finished (the run that wrote it was stopped)"
                elif (folder / name).exists() and not (folder / name).is_file():
                    yield name, "is no regular file"
                elif digest_of(folder / name) != digest:
                    yield name, "damaged (it is not as it was written)"
            except OSError as error:
                yield name, "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"


def check_sums(folder: Path, *, remedy: str, names: Iterable[str] | None = None) -> None:
    """Raises CheckpointError for the first listed file that is missing or not as it was written."""
    for name, fault in faults_of(folder, names):
        raise CheckpointError(f"{folder / name}: {fault}: {remedy}")


def require_ours(folder: Path, names: Iterable[str]) -> None:
    """Raises DataError where one of these files is in the folder and does not stand in its list: it is somebody's own.

    So is a list that was not written here.
    """
    sums = read_own_list(folder)
    there = [name for name in names if is_there(folder / name)]
    if own := [name for name in there if name not in sums]:
        raise DataError(
            f"{folder / own[0]}: is there already, and no {NAME} says that armorm wrote it: move it away, or choose another "
            "folder"
        )


def read_own_list(folder: Path) -> dict[str, str]:
    """The folder's list, where it is to be written anew. Raises DataError for one that is not as it was written here: it may be
    somebody's own. StorageError for a folder that can't be looked into."""
    try:
        return read_sums(folder) if is_there(folder / NAME) else {}
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise DataError(f"{error}: choose another folder") from error
        raise DataError(
            f"{folder / NAME}: is there already and is not as armorm would have written it: move it away, or choose another "
            "folder"
        ) from error


@contextmanager
def listing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """For a block that writes these files of a folder (some may stay away): they are listed from the start, so that a run which
    is killed in between may be repeated, and with their digests at the end. Raises DataError as `require_ours` does."""
    names = list(names)
    require_ours(folder, names)
    known = read_sums(folder)
    with storage_errors(folder):
        save_sums(folder, {**dict.fromkeys(names, UNFINISHED), **known})
        yield
        written = {name: digest_of(folder / name) for name in names if (folder / name).is_file()}
        save_sums(folder, {name: digest for name, digest in {**known, **written}.items() if (folder / name).is_file()})


@contextmanager
def listing_written(folder: Path, *inside: str) -> Iterator[None]:
    """For a block that saves a model in a folder: what it writes there, and in the folders `inside` it, is listed, with the
    rights that the umask leaves."""
    read_own_list(folder)
    with storage_errors(folder):
        before = _states(folder, inside)
        yield
        written = [name for name, state in _states(folder, inside).items() if before.get(name) != state and name != NAME]
        give_rights(folder, written)
        write_sums(folder, written)


def _states(folder: Path, inside: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    places = [place for place in (folder, *map(folder.joinpath, inside)) if place.is_dir()]
    files = [file for place in places for file in place.iterdir() if file.is_file()]
    states = ((file.relative_to(folder).as_posix(), file.stat()) for file in files)
    return {name: (state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states}


def check_model(folder: Path, *, weights: bool = True) -> None:
    """Raises CheckpointError for a model's folder with a file that is not as it was saved; without a list, nothing is known.

    `weights`: the safetensors too, which are most of the cost.
    """
    try:
        names = [name for name in read_sums(folder) if name not in _NOT_READ]
    except CheckpointError as error:
        raise CheckpointError(f"{error}: {MODEL_REMEDY}") from error
    check_sums(folder, remedy=MODEL_REMEDY, names=[name for name in names if weights or not name.endswith(".safetensors")])


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _below(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file() and file != folder / NAME:
            yield file.relative_to(folder).as_posix()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
