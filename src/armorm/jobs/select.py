"""Scores put to use: the best of n answers, the best part of a file, pairs of good and bad answers to train on.

In: rows to score, or rows that `score --out` wrote.  Out: rows in TRL's formats (`messages`; `prompt`, `chosen`, `rejected`).
Cost: best-of the decoder's pass; the rest reads the file once or twice and keeps a few dozen bytes an answer.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from armorm.bounds import finite, is_finite, shown
from armorm.conversation import Message, turns_of
from armorm.data.answer_rows import ANSWER_COLUMNS, AnswerRow, answer_row, group_neighbours
from armorm.data.files import records
from armorm.data.shapes import RowFormat, bare_text
from armorm.draws import code_of
from armorm.errors import DataError
from armorm.jobs.score_file import OURS, Answered, Job, error_of, how_read, how_scored
from armorm.user_files import version_of

_OURS = (*ANSWER_COLUMNS, *OURS, "answers")
_REASON = re.compile(r"(?:^|; )(?:answer \d+: )?([a-z0-9]+(?:-[a-z0-9]+)*): ")


def best_of_job(*, top_k: int = 1) -> Job:
    """One output row per prompt: `best` (the answer's number, from 0), `score`, `margin` to the second, all `scores`, `response`,
    for each answer whether it was `truncated`, and `notes` and `error` where there are any.

    Answers are a row's list, or the answers of neighbouring rows with the same prompt (`ids` names those rows). `top_k` above 1
    adds the k best as `top`. Equal scores keep the file's order.
    """

    def write(answered: Answered) -> dict[str, Any]:
        row = answered.row
        scores = [(score, j) for j, score in enumerate(answered.scores) if score is not None and math.isfinite(score)]
        if row.error or not scores:
            return {"id": row.id, "best": None, "score": None, **error_of(answered)}
        ranked = sorted(scores, key=lambda one: (-one[0], one[1]))
        (score, best), margin = ranked[0], ranked[0][0] - ranked[1][0] if len(ranked) > 1 else None
        top = [{"index": j, "score": s, "response": row.answers[j]} for s, j in ranked[:top_k]]
        return {
            "id": row.id,
            **({"ids": list(row.ids)} if row.rows > 1 else {}),
            **_with_tools("prompt", row.context),
            "best": best,
            "response": row.answers[best],
            "score": score,
            "margin": margin,
            "scores": answered.scores,
            **how_read(answered),
            **error_of(answered),
            **({"top": top} if top_k > 1 else {}),
        }

    return Job("best-of", write, {"top_k": top_k}, group_neighbours)


# -- rows with scores --------------------------------------------------------------------------------------------------------


@dataclass
class Counts:
    """What a selection met: answers with a score, those without (by reason, where the file says one), and what came out.

    A row without any answer counts as one without a score. `reason` is the first error that a row of the file says.
    """

    answers: int = 0
    unscored: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    out: int = 0
    prompts: int = 0
    scattered: int = 0

    def add(self, row: AnswerRow) -> None:
        """Count one row's answers."""
        found = sum(not math.isnan(score) for score in row.scores)
        self.answers += found
        self.unscored += len(row.scores) - found if row.scores else 1
        said = row.error or row.values.get("error")
        if not isinstance(said, str):
            return
        self.reason = self.reason or said
        for reason in _REASON.findall(said):
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


@dataclass(frozen=True)
class _ScoredFile:
    """A file of scores as it was when it was checked: what is read of it later is the same, or an error."""

    path: Path
    version: tuple[int, ...]
    how: RowFormat

    @classmethod
    def checked(cls, path: Path, asked: RowFormat) -> _ScoredFile:
        """Raises DataError as `how_scored` does, and for a file that is not there."""
        version = version_of(path)
        return cls(path, version, how_scored(path, asked))

    def rows(self) -> Iterator[AnswerRow]:
        """The rows with their scores. Raises DataError for one that has texts and no place for a score, and for a change."""
        self._require_unchanged()
        for record in records(self.path, self.how.cells):
            row = answer_row(record, self.how)
            yield row if row.error is not None else replace(row, scores=_scores_of(row, f"{self.path}:{row.row}"))
        self._require_unchanged()

    def _require_unchanged(self) -> None:
        if version_of(self.path) != self.version:
            raise self.changed

    @property
    def changed(self) -> DataError:
        """What is said of a file that is not what it was."""
        return DataError(f"{self.path}: was changed while it was read: run this again once nothing writes to it")


def _scores_of(row: AnswerRow, where: str) -> tuple[float, ...]:
    given = row.values.get("scores") if row.many else [row.values.get("score")]
    if ("scores" if row.many else "score") not in row.values:
        raise DataError(f"{where}: has no scores: give a file that `armorm score MODEL FILE --out SCORED` wrote")
    if isinstance(given, list) and len(given) == len(row.answers):
        return tuple(finite(s) for s in given)
    if given is None:
        return (math.nan,) * len(row.answers)
    raise DataError(f"{where}: {len(row.answers)} answers, and scores that don't match: score the file again")


# -- the best part -----------------------------------------------------------------------------------------------------------


def select(
    file: Path,
    *,
    keep_top: float | None = None,
    min_score: float | None = None,
    per_prompt: bool = False,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> tuple[Iterator[dict[str, Any]], Counts]:
    """The best answers as rows of `messages` and `score` (TRL's conversational format), in the file's order.

    `keep_top` is a share of the scored answers, of the whole file or of each prompt's (rounded up, at least one); `min_score`
    is a bound; with both, both hold. Equal scores keep the file's order. The file is read twice: scores first, then texts, and a
    change in between is a DataError; `rows` says how, where the file is not one that was scored with such settings, which then
    hold.
    """
    scored = _ScoredFile.checked(file, rows)
    if keep_top is not None and not 0 < finite(keep_top) <= 1:
        raise DataError(f"`keep_top` is {shown(keep_top)}: give a share above 0 and up to 1, such as 0.2")
    if min_score is not None and not is_finite(min_score):
        raise DataError(f"`min_score` is {shown(min_score)}: give a number that scores can be compared with")
    if keep_top is None and min_score is None:
        raise DataError("nothing to select by: give `keep_top` (a share), `min_score` (a number), or both")
    scores, prompts = array("d"), array("Q")
    counts = Counts()
    for row in scored.rows():
        counts.add(row)
        scores.extend(row.scores)
        prompts.extend([_prompt_key(row)] * len(row.scores))
    values = np.frombuffer(scores, dtype=np.float64) if len(scores) else np.empty(0)
    keys = np.frombuffer(prompts, dtype=np.uint64) if len(prompts) else np.empty(0, dtype=np.uint64)
    kept = ~np.isnan(values)
    counts.prompts = len(np.unique(keys[kept]))
    if keep_top is not None:
        kept &= _top(values, keys if per_prompt else np.zeros_like(keys), keep_top)
    if min_score is not None:
        kept &= values >= min_score
    counts.out = int(kept.sum())
    return _kept_rows(scored, kept), counts


def _top(values: np.ndarray, groups: np.ndarray, share: float) -> Bool[np.ndarray, " n"]:
    # Rank of each answer among its group's scored ones, best first, equals in order; kept while rank < ceil(share · size).
    places = np.flatnonzero(~np.isnan(values))
    kept = np.zeros(len(values), dtype=np.bool_)
    if not len(places):
        return kept
    order = places[np.lexsort((places, -values[places], groups[places]))]
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    limit = np.ceil(share * sizes - 1e-9).clip(min=1)  # 0.2 · 5 is 1, whatever its last binary digit says
    kept[order[rank < np.repeat(limit, sizes)]] = True
    return kept


def _kept_rows(scored: _ScoredFile, kept: np.ndarray) -> Iterator[dict[str, Any]]:
    columns = scored.how.columns
    at, texts = 0, {*_OURS, "id", columns.messages, columns.prompt, columns.response}
    for row in scored.rows():
        if at + len(row.scores) > len(kept):
            raise scored.changed
        for j, score in enumerate(row.scores):
            if kept[at]:
                own = {k: v for k, v in row.values.items() if k not in texts}
                name = f"{row.id}#{j}" if row.many else row.id
                yield {"id": name, **own, **_with_tools("messages", row.conversation(j)), "score": score}
            at += 1
    if at < len(kept):
        raise scored.changed


def _with_tools(name: str, messages: Sequence[Message]) -> dict[str, Any]:
    # As TRL has them: the tools beside the messages.
    tools = messages[0].get("tools")
    turns = [{k: v for k, v in m.items() if k != "tools"} for m in messages]
    return {name: turns, **({"tools": tools} if tools else {})}


# -- pairs -------------------------------------------------------------------------------------------------------------------


def build_pairs(
    file: Path,
    *,
    margin: float = 0.0,
    every: bool = False,
    rows: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> tuple[Iterator[dict[str, Any]], Counts]:
    """Preference pairs in TRL's conversational format: `prompt`, `chosen`, `rejected` as messages, and both scores.

    Answers are a row's list, or the answers of neighbouring rows with the same prompt. A pair is the best and the worst answer,
    or (`every`) any two, the better one chosen; its scores differ by more than 0 and at least `margin`. The same two texts are
    one pair, however often they come. The counts are filled while the rows are read: prompts whose answers stand apart in the
    file are `scattered`.
    """
    if not finite(margin) >= 0:
        raise DataError(f"`margin` is {shown(margin)}: give a difference of scores, 0 or more")
    counts = Counts()
    return _pairs(_ScoredFile.checked(file, rows), margin, every, counts), counts


def _pairs(scored: _ScoredFile, margin: float, every: bool, counts: Counts) -> Iterator[dict[str, Any]]:
    seen, ids = set[int](), set[str]()
    for row in group_neighbours(_counted(scored.rows(), counts)):
        found = [j for j, s in enumerate(row.scores) if not math.isnan(s)]
        if row.error is None:
            key = _prompt_key(row)
            counts.scattered += key in seen
            counts.prompts += key not in seen
            seen.add(key)
        distinct = {bare_text(row.answers[j]): j for j in sorted(found, key=lambda j: (row.scores[j], -j))}  # of equals the best
        ranked = sorted(distinct.values(), key=lambda j: (-row.scores[j], j))
        wanted = combinations(ranked, 2) if every else [(ranked[0], ranked[-1])] if len(ranked) > 1 else []
        name = _name_of(row, ids) if wanted else row.id
        for n, (good, bad) in enumerate(wanted):
            difference = row.scores[good] - row.scores[bad]
            if difference > 0 and difference >= margin:
                counts.out += 1
                yield {
                    "id": f"{name}#{n}" if every else name,
                    **_with_tools("prompt", row.context),
                    "chosen": list(turns_of(row.answers[good])),
                    "rejected": list(turns_of(row.answers[bad])),
                    "score_chosen": row.scores[good],
                    "score_rejected": row.scores[bad],
                }


def _name_of(row: AnswerRow, seen: set[str]) -> Any:
    # An id that stood at an earlier prompt gets the row's number behind it.
    name, key = row.id, str(row.id)
    while key in seen:
        name = f"{name}@{row.row}"
        key = str(name)
    seen.add(key)
    return name


def _counted(rows: Iterator[AnswerRow], counts: Counts) -> Iterator[AnswerRow]:
    for row in rows:
        counts.add(row)
        yield row


def _prompt_key(row: AnswerRow) -> int:
    return code_of(json.dumps(row.context, sort_keys=True).encode())
