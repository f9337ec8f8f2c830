"""Answers with scores → preference pairs, and the checks that several sets share.

In: a raw record, its prompt, its answers with their scores.  Out: flat records of pairs, with ties and unrated answers counted.
Cost: all pairs of one prompt's answers.

A score is a number or the reason why there is none: "unrated" where the set says so (nothing, "N/A"), which leaves pairs out on
purpose, or the name of a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from armorm.data.cells import is_absent, number
from armorm.data.files import BadRecord, Found, Record, Skipped
from armorm.data.sources.source import bad, flat, skip
from armorm.objectives import Objective

UNRATED = "unrated"


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer to a prompt; `part` tells it apart from the prompt's other answers."""

    part: int | str
    text: str
    score: float | str


def score_of(value: Any, objective: Objective) -> float | str:
    """A rating on the objective's scale, or why it is none."""
    if is_absent(value):
        return UNRATED
    score = number(value)
    if score is None:
        return "rating-not-a-number"
    return score if objective.min <= score <= objective.max else "rating-off-scale"


def all_pairs(record: Record, prompt: str, answers: Sequence[Scored], notes: tuple[str, ...] = ()) -> Iterator[Found]:
    """Every two answers to a prompt, the higher score first; `record` lends its row number and its file.

    Two equal scores are skipped as a tie; where an answer has no score, each of its pairs is skipped or faulty. A prompt with
    fewer than two answers is skipped as a single answer.
    """
    if len(answers) < 2:
        yield skip(record, "single-answer")
    for one, other in combinations(answers, 2):
        yield _pair(record, prompt, one, other, notes)


def _pair(record: Record, prompt: str, one: Scored, other: Scored, notes: tuple[str, ...]) -> Found:
    if isinstance(one.score, str) or isinstance(other.score, str):
        return _without_score(record, one.score, other.score)
    if one.score == other.score:
        return skip(record, "tie")
    first, second = (one, other) if one.score > other.score else (other, one)
    return flat(record, f"{first.part}-{second.part}", notes=notes, prompt=prompt, chosen=first.text, rejected=second.text)


def against_ratings(record: Record, chosen: float | str, rejected: float | str) -> Skipped | BadRecord | None:
    """Why a set's own chosen answer is not rated above its rejected one, or None if it is."""
    if isinstance(chosen, str) or isinstance(rejected, str):
        return _without_score(record, chosen, rejected)
    if chosen > rejected:
        return None
    return skip(record, "tie" if chosen == rejected else "reversed")


def _without_score(record: Record, *scores: float | str) -> Skipped | BadRecord:
    faults = [s for s in scores if isinstance(s, str) and s != UNRATED]
    return bad(record, faults[0], "give both answers ratings on the set's scale") if faults else skip(record, UNRATED)
