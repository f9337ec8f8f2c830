"""A training's checkpoints: whose they are, and which of them is the last whole one.

In: the folder that the trainer writes them into, the training's key.  Out: a checkpoint to go on from.
Cost: a SHA-256 of a checkpoint when it is written, and again when one is looked for.

The folder's file `key` says which training it belongs to, and so does each checkpoint: a training goes on from its own alone.
`SHA256SUMS` lists what the first process wrote, its random state among it; each other process seals a digest of its own state,
since it may come to that later. A checkpoint counts when all of that is there and as it was written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from armorm.disk import Kinds, check_digest, digest_of, is_there, read_sealed, storage_errors, write_sealed, write_text
from armorm.errors import CheckpointError, DataError
from armorm.sums import NAME as SUMS
from armorm.sums import check_sums, read_sums, write_sums

FORMAT = 1
KEY = "key"
"""Of a folder of checkpoints: the file with the training's key."""
FACTS = "checkpoint.json"
"""Of a checkpoint: the training's key, and how many processes took part."""
_STATES = "rng_state"
"""What the trainer's files with random states begin with."""
_HOLDS: Kinds = {"key": str, "processes": int}
_HOLDS_STATE: Kinds = {"key": str, "digest": str}


# -- the folder ---------------------------------------------------------------------------------------------------------------


def claim(folder: Path, key: str) -> None:
    """Make the folder this training's: what another training left in it goes. For one who holds the place.

    Raises DataError for a folder that is somebody's own, StorageError.
    """
    with storage_errors(folder):
        if not (folder / KEY).is_file() and is_there(folder) and (not folder.is_dir() or any(_foreign(folder))):
            raise DataError(f"{folder}: is there already and holds no checkpoints of a training: move it away")
        if (folder / KEY).is_file() and _key_in(folder) != key:
            _empty(folder)
        write_text(folder / KEY, key)


def clear(folder: Path, key: str) -> None:
    """Take the folder away if it is this training's; what is in the way of that is no news. For one who holds the place."""
    with suppress(OSError):
        if is_of(folder, key):
            _empty(folder)
            (folder / KEY).unlink()  # last: what a kill leaves is still this training's
            folder.rmdir()


def is_of(folder: Path, key: str) -> bool:
    """Whether the folder holds checkpoints of this training."""
    with suppress(OSError):
        return (folder / KEY).is_file() and _key_in(folder) == key
    return False


def _key_in(folder: Path) -> str:
    return (folder / KEY).read_text(encoding="utf-8", errors="replace")


def _foreign(folder: Path) -> Iterator[Path]:
    # A process that was killed as it wrote the key left a passing folder.
    return (entry for entry in folder.iterdir() if not (entry.name.startswith(f"{KEY}.") and entry.suffix == ".part"))


def _empty(folder: Path) -> None:
    for entry in [*folder.iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != KEY:
            entry.unlink()


# -- one checkpoint -----------------------------------------------------------------------------------------------------------


def seal(checkpoint: Path, key: str, *, process: int, processes: int) -> None:
    """Write down what this process has just written into a checkpoint, with digests. Raises StorageError.

    Of several processes, the first lists everything but the others' random states; each other seals its own.
    """
    state = _state_of(process, processes)
    with storage_errors(checkpoint):
        if process:
            write_sealed(_seal_of(checkpoint / state), {"format": FORMAT, "key": key, "digest": digest_of(checkpoint / state)})
            return
        write_sealed(checkpoint / FACTS, {"format": FORMAT, "key": key, "processes": processes})
        write_sums(checkpoint, [*_written(checkpoint), state])


def last_whole(folder: Path, key: str) -> Path | None:
    """The last checkpoint of this training that is whole, where there is one."""
    found = [at for at in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _step_of(at)] if folder.is_dir() else []
    return next((at for at in sorted(found, key=_step_of, reverse=True) if _is_whole(at, key)), None)


def _is_whole(at: Path, key: str) -> bool:
    try:
        facts = read_sealed(at / FACTS, FORMAT, remedy="", holds=_HOLDS)
        states = (_state_of(process, facts["processes"]) for process in range(facts["processes"]))
        if facts["key"] != key or not {FACTS, next(states, "")} <= read_sums(at).keys():
            return False
        for state in states:
            own = read_sealed(_seal_of(at / state), FORMAT, remedy="", holds=_HOLDS_STATE)
            if own["key"] != key:
                return False
            check_digest(at / state, own["digest"], remedy="")
        check_sums(at, remedy="")
    except CheckpointError:
        return False
    return True


def _written(checkpoint: Path) -> Iterator[str]:
    # Everything but the random states, those of other processes, which write theirs meanwhile, and an earlier list.
    for entry in checkpoint.iterdir():
        if entry.name == SUMS or entry.name.startswith(_STATES):
            continue
        files = entry.rglob("*") if entry.is_dir() else (entry,)
        yield from (file.relative_to(checkpoint).as_posix() for file in files if file.is_file())


def _state_of(process: int, processes: int) -> str:
    # As the trainer calls it
    return f"{_STATES}.pth" if processes == 1 else f"{_STATES}_{process}.pth"


def _seal_of(state: Path) -> Path:
    return state.with_suffix(".json")


def _step_of(checkpoint: Path) -> int:
    step = checkpoint.name.rpartition("-")[2]
    return int(step) if step.isdecimal() else 0
