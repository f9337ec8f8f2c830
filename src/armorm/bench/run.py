"""A method on a benchmark's items: every answer scored once, or every two compared, kept on disk as it goes.

In: items, a `Scorer` or a `PairScorer`.  Out: one array of scores per item, or its comparisons; how they were read (`ItemsRead`).
Cost: the scorer's, linear in an item's answers, or the pair scorer's, quadratic; memory for one portion of conversations.

What is found is appended to a file portion by portion, keyed by the texts: a run that was stopped goes on where it was, and a
benchmark that gained items computes those alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from armorm.conversation import Answer
from armorm.data.rows import BenchmarkItem
from armorm.kept import Kept
from armorm.scorers import PairScorer, Preferences, Scored, Scorer, TellingScorer

PORTION = 256
"""Conversations that the scorer is asked for at once: what a run that is stopped loses at most."""

EXAMPLES = 3
"""Unscored items that are named."""
NO_SCORE = "no-score: the model gives this answer no number"

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
    return _scored_items(items, scorer, Kept(kept, key), progress).scores


def _scored_items(items: Sequence[BenchmarkItem], scorer: Scorer, store: Kept, progress: OnProgress) -> Judged:
    def ask(portion: Sequence[BenchmarkItem]) -> list[Any]:
        flat = [item.conversation(answer) for item in portion for answer in item.answers]
        found = scorer.scored(flat) if isinstance(scorer, TellingScorer) else Scored.plain(scorer.score(flat))
        ends = np.cumsum([len(item.answers) for item in portion])
        parts = [slice(end - len(item.answers), end) for item, end in zip(portion, ends.tolist(), strict=True)]
        return [{"scores": as_json(found.scores[part]), **_told(found, part)} for part in parts]

    values = _kept_values(items, ask, lambda item: len(item.answers), store, progress)
    return Judged([as_scores(one["scores"]) for one in values], None, _read(items, values))


def _told(found: Scored, part: slice) -> dict[str, Any]:
    return {"truncated": found.truncated[part].tolist(), "faults": found.faults[part], "notes": found.notes[part]}


@dataclass(frozen=True)
class ItemsRead:
    """How a benchmark's answers (or comparisons) were read; `asked` is how many there are.

    `truncated`: those that did not fit and were cut; `faults`: by reason, items of which an answer has no score; `examples`: the
    first of them, "item: why"; `notes`: by note, answers of which the chat template left something out.
    """

    asked: int
    truncated: int
    faults: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """Scores per item, chosen first, the comparisons that they come from (None for a scorer of single answers), and how all was
    read."""

    scores: list[Scores]
    compared: list[Compared] | None
    read: ItemsRead


def _read(items: Sequence[BenchmarkItem], values: Sequence[Mapping[str, Any]]) -> ItemsRead:
    first = [(item.id, _first_fault(value)) for item, value in zip(items, values, strict=True)]
    faults = [(name, fault) for name, fault in first if fault is not None]
    return ItemsRead(
        asked=sum(len(value["truncated"]) for value in values),
        truncated=sum(sum(value["truncated"]) for value in values),
        faults=Counter(fault.partition(":")[0] for _, fault in faults),
        examples=tuple(f"{name}: {fault}" for name, fault in faults[:EXAMPLES]),
        notes=Counter(note for value in values for notes in value.get("notes", ()) for note in notes),
    )


def _first_fault(value: Mapping[str, Any]) -> str | None:
    silent = NO_SCORE if None in value.get("scores", ()) else None
    return next(filter(None, value["faults"]), silent)


@dataclass(frozen=True)
class Compared:
    """An item's answers (chosen first), each two of them compared: `verdicts` [q] on the pairs 01, 02, …, 12, …

    `answers` is their number n, so q = n (n − 1) / 2; a pair of two equal texts is 0.5 both ways.
    """

    answers: int
    verdicts: Preferences

    @property
    def scores(self) -> Scores:
        """Each answer's mean probability of winning against the others, in [0, 1], over both orders; of two: [p, 1 − p].

        A comparison answered in one order only counts as that; an answer with one that was not answered at all is NaN, since its
        mean would be over other opponents than the rest's.
        """
        wins = np.full((self.answers, self.answers), np.nan)
        first, second = np.triu_indices(self.answers, 1)
        mean = self.verdicts.mean
        wins[first, second], wins[second, first] = mean, 1 - mean
        np.fill_diagonal(wins, 0.0)
        return wins.sum(axis=1) / max(self.answers - 1, 1)


def compare_items(
    items: Sequence[BenchmarkItem],
    scorer: PairScorer,
    *,
    kept: Path | None = None,
    progress: OnProgress = lambda _done, _total: None,
) -> list[Compared]:
    """All comparisons of each item's answers, two at a time, every one in both orders.

    The scorer is given (a, b) with a before b among the item's answers, so chosen before rejected: it shows each pair both ways.
    Equal texts are not asked about. `outcomes` takes the comparisons' `scores`. `kept` is the file that holds the verdicts
    (another than that of `score_items`); one that was begun with another fingerprint of the scorer is begun anew. `progress` is
    told (items done, items in all). Raises StorageError when the file can't be written.
    """

    return _compared_items(items, scorer, kept, progress)[0]


def _compared_items(
    items: Sequence[BenchmarkItem], scorer: PairScorer, kept: Path | None, progress: OnProgress
) -> tuple[list[Compared], ItemsRead]:
    def ask(portion: Sequence[BenchmarkItem]) -> list[Any]:
        asked = [_comparisons(item) for item in portion]
        found = scorer.prefer(
            [(item.conversation(a), item.conversation(b)) for item, two in zip(portion, asked, strict=True) for a, b in two]
        )
        ends = np.cumsum([len(two) for two in asked], dtype=np.int64)
        parts = [slice(end - len(two), end) for two, end in zip(asked, ends.tolist(), strict=True)]
        return [_verdicts(found, part) for part in parts]

    values = _kept_values(items, ask, lambda item: 2 * len(_comparisons(item)), Kept(kept, scorer.fingerprint), progress)
    return [_compared(item, one) for item, one in zip(items, values, strict=True)], _read(items, values)


def _verdicts(found: Preferences, part: slice) -> dict[str, Any]:
    orders = {"forward": as_json(found.forward[part]), "backward": as_json(found.backward[part])}
    n = part.stop - part.start
    return orders | {"truncated": found.truncated[part] or [False] * n, "faults": found.faults[part] or [None] * n}


def _comparisons(item: BenchmarkItem) -> list[tuple[Answer, Answer]]:
    return [(a, b) for a, b in combinations(item.answers, 2) if a != b]


def _compared(item: BenchmarkItem, found: dict[str, Any]) -> Compared:
    differ = np.array([a != b for a, b in combinations(item.answers, 2)], dtype=bool)
    forward, backward = np.full((2, len(differ)), 0.5)
    forward[differ], backward[differ] = as_scores(found["forward"]), as_scores(found["backward"])
    return Compared(len(item.answers), Preferences(forward, backward))


def judge_items(
    items: Sequence[BenchmarkItem],
    scorer: Scorer | PairScorer,
    *,
    kept: Path | None = None,
    progress: OnProgress = lambda _done, _total: None,
) -> tuple[list[Scores], list[Compared] | None]:
    """`compare_items` for a scorer of pairs, whose comparisons come too, else `score_items`, kept by the scorer's fingerprint."""
    found = read_and_judge(items, scorer, kept=kept, progress=progress)
    return found.scores, found.compared


def read_and_judge(
    items: Sequence[BenchmarkItem],
    scorer: Scorer | PairScorer,
    *,
    kept: Path | None = None,
    progress: OnProgress = lambda _done, _total: None,
) -> Judged:
    """The same with how the answers were read: what was cut, refused, left out; also of what an earlier run kept."""
    if isinstance(scorer, PairScorer):
        compared, read = _compared_items(items, scorer, kept, progress)
        return Judged([one.scores for one in compared], compared, read)
    return _scored_items(items, scorer, Kept(kept, getattr(scorer, "fingerprint", scorer.name)), progress)


def as_json(values: Scores) -> list[float | None]:
    """Scores for JSON, which has no NaN."""
    return [None if np.isnan(x) else x for x in values.tolist()]


def as_scores(values: Sequence[float | None]) -> Scores:
    """What `as_json` wrote."""
    return np.array([np.nan if x is None else x for x in values], dtype=np.float64)


def _kept_values(
    items: Sequence[BenchmarkItem],
    ask: Callable[[Sequence[BenchmarkItem]], list[Any]],
    size: Callable[[BenchmarkItem], int],
    store: Kept,
    progress: OnProgress,
) -> list[Any]:
    # What is known of each item; `ask` finds it for those that the store lacks, about PORTION in `size` at a time.
    keys = [_key(item) for item in items]
    todo = [i for i, k in enumerate(keys) if k not in store.values]
    done = len(items) - len(todo)
    progress(done, len(items))
    for portion in _portions(items, todo, size):
        found = ask([items[i] for i in portion])
        store.add({keys[i]: one for i, one in zip(portion, found, strict=True)})
        done += len(portion)
        progress(done, len(items))
    return [store.values[k] for k in keys]


def _key(item: BenchmarkItem) -> str:
    return blake2b(repr((item.context, item.chosen, item.rejected)).encode("utf-8", "replace"), digest_size=12).hexdigest()


def _portions(items: Sequence[BenchmarkItem], todo: Sequence[int], size: Callable[[BenchmarkItem], int]) -> Iterator[list[int]]:
    # Whole items, so that answers to one prompt are scored together; by length, so that a batch has little padding.
    order = sorted(todo, key=lambda i: max(map(len, items[i].answers)))
    portion: list[int] = []
    conversations = 0
    for i in order:
        portion.append(i)
        conversations += size(items[i])
        if conversations >= PORTION:
            yield portion
            portion, conversations = [], 0
    if portion:
        yield portion
