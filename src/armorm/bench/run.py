"""A method on a benchmark's items: every answer scored once, kept on disk as it goes.

In: items, a `Scorer`.  Out: one array of scores per item.  Cost: the scorer's; memory for one chunk of conversations.

Scores are appended to a file chunk by chunk, keyed by the texts: a run that was stopped goes on where it was, and a benchmark
that gained items computes those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Float

from armorm.kept import Kept
from armorm.data.rows import BenchmarkItem
from armorm.scoring import Scorer

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
    store = Kept(kept, key)
    keys = [_key(item) for item in items]
    todo = [i for i, k in enumerate(keys) if k not in store.values]
    done = len(items) - len(todo)
    progress(done, len(items))
    for chunk in _chunks(items, todo):
        flat = [items[i].conversation(answer) for i in chunk for answer in items[i].answers]
        scores = np.split(scorer.score(flat), np.cumsum([len(items[i].answers) for i in chunk])[:-1])
        store.add({keys[i]: [None if np.isnan(x) else x for x in one.tolist()] for i, one in zip(chunk, scores, strict=True)})
        done += len(chunk)
        progress(done, len(items))
    return [np.array([np.nan if x is None else x for x in store.values[k]], dtype=np.float64) for k in keys]


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
