"""A method on a benchmark's items: every answer scored once, kept on disk as it goes.

In: items, a `Scorer`.  Out: one array of scores per item.  Cost: the scorer's; memory for one chunk of conversations.

Scores are appended to a file chunk by chunk, keyed by the texts: a run that was stopped goes on where it was, and a benchmark
that gained items computes those alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float

from armorm.data.rows import BenchmarkItem
from armorm.errors import StorageError
from armorm.scoring import Scorer

FORMAT = 1
CHUNK = 256
"""Conversations that are given to the scorer at once."""

Scores = Float[np.ndarray, "_"]
OnProgress = Callable[[int, int], None]


def score_items(
    items: Sequence[BenchmarkItem],
    scorer: Scorer,
    *,
    kept: Path | None = None,
    key: str = "",
    progress: OnProgress = lambda _done, _total: None,
) -> list[Scores]:
    """The scores of each item's answers, chosen first; NaN where the scorer has no verdict.

    `kept` is the file that holds the scores; `key` names what they depend on besides the texts (the model), and a file with
    another key is begun anew. `progress` is told (items done, items in all). Raises StorageError when the file can't be written.
    """
    store = _Store(kept, key)
    keys = [_key(item) for item in items]
    todo = [i for i, k in enumerate(keys) if k not in store.scores]
    done = len(items) - len(todo)
    progress(done, len(items))
    for chunk in _chunks(items, todo):
        flat = [items[i].conversation(answer) for i in chunk for answer in items[i].answers]
        scores = np.split(scorer.score(flat), np.cumsum([len(items[i].answers) for i in chunk])[:-1])
        store.add([keys[i] for i in chunk], scores)
        done += len(chunk)
        progress(done, len(items))
    return [store.scores[k] for k in keys]


class _Store:
    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.scores: dict[str, Scores] = {}
        if path is not None:
            head = {"format": FORMAT, "key": key}
            if not self._read(head):
                self._write("w", [head])

    def add(self, keys: Sequence[str], scores: Sequence[Scores]) -> None:
        self.scores.update(zip(keys, scores, strict=True))
        rows = [
            {"item": k, "scores": [None if np.isnan(x) else x for x in s.tolist()]} for k, s in zip(keys, scores, strict=True)
        ]
        self._write("a", rows)

    def _read(self, head: dict[str, object]) -> bool:
        assert self.path is not None
        if not self.path.is_file():
            return False
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = text.split("\n")[:-1]  # what follows the last line end was cut short
        if not lines or _parsed(lines[0]) != head:
            return False
        for row in map(_parsed, lines[1:]):
            if row is not None:
                self.scores[row["item"]] = np.array([np.nan if x is None else x for x in row["scores"]], dtype=np.float64)
        if text and not text.endswith("\n"):
            self._write("a", [])  # ends the broken line, so that the next one is whole
        return True

    def _write(self, mode: str, rows: Sequence[object]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows) or "\n")
        except OSError as error:
            raise StorageError(f"{self.path}: can't be written: {error.strerror}; choose another --out") from error


def _parsed(line: str) -> dict | None:  # type: ignore[type-arg]
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _key(item: BenchmarkItem) -> str:
    return blake2b(repr((item.context, item.chosen, item.rejected)).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _chunks(items: Sequence[BenchmarkItem], todo: Sequence[int]) -> Iterator[list[int]]:
    # Whole items, so that answers to one prompt are scored together; by length, so that a batch has little padding.
    order = sorted(todo, key=lambda i: max(map(len, items[i].answers)))
    chunk: list[int] = []
    answers = 0
    for i in order:
        chunk.append(i)
        answers += len(items[i].answers)
        if answers >= CHUNK:
            yield chunk
            chunk, answers = [], 0
    if chunk:
        yield chunk
