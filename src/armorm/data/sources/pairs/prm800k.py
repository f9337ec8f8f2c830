"""PRM800K, phase 2: partial solutions of MATH problems, correct so far against wrong at the last step.

In: records of openai/prm800k's phase2_train.jsonl (GitHub, Git LFS).  Out: at most one pair per record.
Cost: one pass; held are up to four correct solutions per problem, and the wrong ones that still wait for a correct one.

A record is one solution, step by step, each step with one or more candidates that people rated −1 (wrong), 0 (no progress) or +1.
How the released model paired them is not published; this is how it is done here. The record's own path is followed: at every
step the chosen candidate (or the step that the labeller wrote), as long as it is rated 0 or +1. At the first step with a
candidate rated −1 next to one rated +1, or to a labeller's own step, these two part the pair: `chosen` is the path so far and
the good step (the chosen one if it is rated +1, else the labeller's, else the first +1), `rejected` the path so far and the first
wrong step. A 0 is not good enough here.

Most records stop at the first error and have no good candidate there. Such a wrong partial solution of n steps is paired with
the first n steps (or all, if it has fewer) of a correct solution of the same problem, one that is finished and has no step below
0: the one that shares the most first steps with it, the record's own path before those known from other records, the earliest
among equals (note `with-correct-solution`). If none is known yet the wrong one waits for the next, so pairs may come out in
another order than their records. Where that solution takes the very step that is wrong here, the raters disagree and the record
is left out (`raters-disagree`). The steps are joined by new lines.

Candidates that are flagged or not rated are passed over; a step may have none (`completions` is null). A path ends at a
chosen step that is. Left out: `quality-control` and `screening` (records served to every labeller), `bad-problem`, `give-up`,
`no-bad-step`, `no-good-alternative`. A file that is only a Git LFS pointer is the fault `git-lfs-pointer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from armorm.data.cells import number
from armorm.data.files import BadRecord, Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import bad, flat, skip

SOLUTIONS_PER_PROBLEM = 4
Steps = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """What following one record's path gives: the correct path, the good step and the wrong steps, where they are."""

    path: Steps
    complete: bool
    good: Steps | None = None
    wrong: Steps | None = None


def unfold(records: Iterable[Found]) -> Iterator[Found]:
    """One pair, one fault or one reason per record."""
    correct: dict[bytes, list[Steps]] = {}
    waiting: dict[bytes, list[tuple[Record, Steps]]] = {}
    for record in _without_pointers(records):
        if not isinstance(record, Record):
            yield record
            continue
        walk = _walk(record) if (reason := _left_out(record.values)) is None else skip(record, reason)
        if not isinstance(walk, Walk):
            yield walk
            continue
        problem = record.values["question"]["problem"]
        key = blake2b(problem.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        own = [walk.path] if _is_correct(record, walk) else []
        if walk.wrong is None:
            yield skip(record, "no-bad-step")
        elif walk.good is not None:
            yield _pair(record, problem, walk.good, walk.wrong)
        elif known := [*own, *correct.get(key, [])]:
            yield _with_solution(record, problem, known, walk.wrong)
        else:
            waiting.setdefault(key, []).append((Record(record.row, {}, record.where), walk.wrong))
        if own and len(correct.setdefault(key, [])) < SOLUTIONS_PER_PROBLEM:
            correct[key] += own
            for late, wrong in waiting.pop(key, []):
                yield _with_solution(late, problem, own, wrong)
    for late, _ in (one for several in waiting.values() for one in several):
        yield skip(late, "no-good-alternative")


def _left_out(values: Mapping[str, Any]) -> str | None:
    if values.get("is_quality_control_question") is True:
        return "quality-control"
    if values.get("is_initial_screening_question") is True:
        return "screening"
    label = values.get("label")
    finish = label.get("finish_reason") if isinstance(label, Mapping) else None
    return {"bad_problem": "bad-problem", "give_up": "give-up"}.get(finish) if isinstance(finish, str) else None


def _walk(record: Record) -> Walk | BadRecord:
    question, label = record.values.get("question"), record.values.get("label")
    if not isinstance(question, Mapping) or not isinstance(question.get("problem"), str):
        return bad(record, "missing-field", "fill in the field 'question' with its text 'problem'")
    steps = label.get("steps") if isinstance(label, Mapping) else None
    if not isinstance(steps, list):
        return bad(record, "missing-field", "fill in the field 'label' with its list 'steps'")
    path: Steps = ()
    good: Steps | None = None
    wrong: Steps | None = None
    for i, step in enumerate(steps):
        if not _is_step(step):
            needs = "its list 'completions' (each with text and rating) and the number 'chosen_completion'"
            return bad(record, "not-a-step", f"give label.steps[{i}] {needs}")
        bads, taken = _candidates(step, -1), _taken(step)
        better = _good_step(step, taken)
        if bads and good is None and (wrong is None or better is not None):
            good, wrong = (*path, better) if better is not None else None, (*path, bads[0])
        if taken is None:
            return Walk(path, False, good, wrong)
        path = (*path, taken)
    return Walk(path, bool(path), good, wrong)


def _is_step(step: Any) -> bool:
    if not isinstance(step, Mapping) or not isinstance(step.get("completions"), list | None):
        return False
    candidates, chosen = step.get("completions") or [], step.get("chosen_completion")
    if not all(isinstance(c, Mapping) and isinstance(c.get("text"), str) for c in candidates):
        return False
    return chosen is None or number(chosen) in range(len(candidates))


def _candidates(step: Mapping[str, Any], rating: int) -> list[str]:
    return [c["text"] for c in step.get("completions") or [] if _rating(c) == rating]


def _rating(candidate: Mapping[str, Any]) -> float | None:
    return None if candidate.get("flagged") is True else number(candidate.get("rating"))


def _good_step(step: Mapping[str, Any], taken: str | None) -> str | None:
    goods, own = _candidates(step, 1), _own(step)
    return taken if taken in goods else own if own is not None else goods[0] if goods else None


def _own(step: Mapping[str, Any]) -> str | None:
    # The step that the labeller wrote: a text, or an object with one.
    own = step.get("human_completion")
    text = own.get("text") if isinstance(own, Mapping) else own
    return text if isinstance(text, str) and text.strip() else None


def _taken(step: Mapping[str, Any]) -> str | None:
    # The step by which the path goes on; None where it ends or is not known to be right.
    chosen = step.get("chosen_completion")
    if chosen is None:
        return _own(step)
    candidate = step["completions"][int(chosen)]
    return candidate["text"] if _rating(candidate) in (0, 1) else None


def _is_correct(record: Record, walk: Walk) -> bool:
    return walk.complete and record.values["label"].get("finish_reason") == "solution"


def _with_solution(record: Record, problem: str, known: list[Steps], wrong: Steps) -> Found:
    def shared(steps: Steps) -> int:
        return next((i for i, (a, b) in enumerate(zip(steps, wrong, strict=False)) if a != b), min(len(steps), len(wrong)))

    good = max(known, key=shared)[: len(wrong)]
    return skip(record, "raters-disagree") if good == wrong else _pair(record, problem, good, wrong, "with-correct-solution")


def _pair(record: Record, problem: str, good: Steps, wrong: Steps, *notes: str) -> Record:
    return flat(record, notes=notes, prompt=problem, chosen="\n".join(good), rejected="\n".join(wrong))


def _without_pointers(records: Iterable[Found]) -> Iterator[Found]:
    # A Git LFS pointer stands for its file as three lines that are no JSON: one fault for all of them.
    pointers: dict[str, bool] = {}
    for record in records:
        if isinstance(record, BadRecord) and record.fault == "not-json":
            first = record.where not in pointers
            if pointers.setdefault(record.where, _is_pointer(record.where)):
                if first:
                    yield BadRecord(record.row, "git-lfs-pointer", _POINTER_REMEDY, record.where)
                continue
        yield record


_POINTER_REMEDY = (
    "fetch the file itself: this is the pointer that Git LFS leaves in its place (install git-lfs and run `git lfs pull` in the "
    "clone)"
)


def _is_pointer(where: str) -> bool:
    try:
        with Path(where).open("rb") as stream:
            return stream.read(64).startswith(b"version https://git-lfs.github.com/spec")
    except (OSError, ValueError):
        return False


SOURCES = (published_pairs("prm800k", unfold),)
