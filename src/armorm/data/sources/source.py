"""What a public data set is: where it lies, what it may be used for, how its records become rows, and what those must hold.

In: a set's facts; raw records and field names.  Out: `RatingSource`, `PairSource`; flat records, or the fault of a raw one.

A source's `unfold` turns the set's own records into flat ones that `data.reading` understands: for ratings `messages` and one
value per objective under the objective's name, as raw as the set has it; for pairs `prompt`, `chosen` and `rejected`, or whole
conversations. It yields a `Skipped` for what the source leaves out on purpose, a `BadRecord` for what it cannot read, and never
raises on a record's content. Texts, roles, scales and ids are checked once, in `data.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal

from armorm.data.files import BadRecord, Found, Record, Skipped
from armorm.objectives import Objective

Unfold = Callable[[Iterable[Found]], Iterator[Found]]
Confidence = Literal["read", "remembered"]
"""How sure a schema is: read in a public card or code, or remembered and checked at run time."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a set's files are.

    `hub`: the data set's id on the Hugging Face hub, empty where it is not there (`url` then says where it is). `subset`: its
    configuration; `data_dir`: a folder in its repository, or a pattern of several; `revision`: a commit, where the newest is not
    the right one. `files`: patterns of this split's files in a local copy ("{split}" stands for its name); without any, those
    whose path names the split.
    """

    hub: str = ""
    split: str = "train"
    subset: str | None = None
    data_dir: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    url: str = ""

    def at(self, split: str | None = None, revision: str | None = None) -> Place:
        """The same set's other split or revision; patterns that name this split alone don't hold there."""
        other = split is not None and split != self.split
        files = tuple(f for f in self.files if "{split}" in f) if other else self.files
        return replace(self, split=split or self.split, revision=revision or self.revision, files=files)


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """What all public sets have.

    `rows`: records as published (0: not known). `repeats`: "drop" what says again what an earlier row said, or "keep" it because
    each row is one annotator's label.
    """

    name: str
    title: str
    place: Place
    licence: str
    rows: int
    unfold: Unfold
    confidence: Confidence = "read"
    repeats: Literal["keep", "drop"] = "drop"


@dataclass(frozen=True, kw_only=True)
class RatingSource(PublicSet):
    """A set of absolutely rated answers; `rater`: who or what gave the ratings."""

    rater: str
    objectives: tuple[Objective, ...]


@dataclass(frozen=True, kw_only=True)
class PairSource(PublicSet):
    """A set of preference pairs; `made` says in a sentence how a pair comes about."""

    made: str


def each(unfold_one: Callable[[Record], Iterable[Found]], *texts: str) -> Unfold:
    """An `unfold` that looks at one record at a time, whose fields `texts` hold texts; bad and skipped ones pass through.

    A record of which nothing comes is counted as one without answers.
    """

    @wraps(unfold_one)
    def unfold(records: Iterable[Found]) -> Iterator[Found]:
        for record in records:
            if not isinstance(record, Record):
                yield record
            elif fault := text_fault(record, *texts):
                yield fault
            else:
                found = iter(unfold_one(record))
                yield next(found, None) or bad(record, "missing-field", "the record holds no answer")
                yield from found

    return unfold


def flat(record: Record, part: int | str = "", *, notes: tuple[str, ...] = (), **values: object) -> Record:
    """A flat record made of a raw one; `part` tells the several flat records of one raw record apart (their ids end in it)."""
    return Record(record.row, dict(values), record.where, notes, str(part))


def skip(record: Record, reason: str) -> Skipped:
    """What the source leaves out on purpose, counted under `reason`."""
    return Skipped(record.row, reason, record.where)


def bad(record: Record, fault: str, remedy: str) -> BadRecord:
    """What cannot be read; the remedy says what the record needs."""
    return BadRecord(record.row, fault, remedy, record.where)


def text_fault(record: Record, *names: str) -> BadRecord | None:
    """The fault of the first of these fields that is absent (`missing-field`) or holds no text (`not-text`)."""
    for name in names:
        value = record.values.get(name)
        if value is None:
            return bad(record, "missing-field", f"fill in the field {name!r}: the set's records have {', '.join(names)}")
        if not isinstance(value, str):
            return bad(record, "not-text", f"give a text in the field {name!r}, not a {type(value).__name__}")
    return None


def answers_fault(record: Record) -> BadRecord | None:
    """The fault of a record whose `chosen` and `rejected` are no lists (`missing-field`) or not of texts alone (`not-text`)."""
    sides = [record.values.get(name) for name in ("chosen", "rejected")]
    if not all(isinstance(side, list) for side in sides):
        return bad(record, "missing-field", "give lists of answers as 'chosen' and 'rejected'")
    if not all(isinstance(answer, str) for side in sides for answer in side or ()):
        return bad(record, "not-text", "give texts in the lists 'chosen' and 'rejected'")
    return None


def not_list(record: Record, field: str, of: str) -> BadRecord:
    """The fault of a record whose field should hold a list."""
    return bad(record, "missing-field", f"the set's records have a list of {of} as {field!r}; is this the published file?")


def id_within(part: str, row_id: Any) -> Any:
    """An id that is unique within a part of the set at best, with the part's name before it; what is no id stays as it is."""
    return f"{part}/{row_id}" if isinstance(row_id, int | str) and row_id != "" else row_id
