"""UltraFeedback: four aspects from 1 to 5 and an overall score from 1 to 10 of four answers per prompt, by GPT-4.

In: raw records of openbmb/UltraFeedback, one per prompt.  Out: one rated answer per completion.  Cost: none beyond reading.

Ratings are texts; "N/A" is no rating (note `rating-na`), a missing aspect or missing annotations are none either, and an answer
without any rating is skipped as `unrated`. The overall score stands by itself: where it can't be right, it alone is left out.

- Files from before 2023-12-29 have critiques of 1 stored as 10. The pinned revision is the corrected one. In any other copy a 10
  whose aspects' mean is 2 or less is taken for such a 1 and left out (note `overall-score-bug`); the mean and not the stored
  `fine-grained_score` decides. Wrong tens with a higher mean can't be told from right ones.
- Critiques such as 85/100 were stored as 85: above 10 it is left out (note `overall-score-above-10`), and so is a value below 1
  (note `overall-score-below-1`). Fractions are kept.

The note `fewer-than-four` counts answers to prompts with fewer than four of them; a prompt without any is skipped as
`no-answers`. The note `truthful-qa` counts answers to prompts of TruthfulQA. They are kept: they spoil no suite but TruthfulQA
itself, and a recipe that names it as a benchmark keeps its prompts out of training.

The principle and the custom system prompt that a completion was sampled under are not part of the conversation: they differ
between the answers to one prompt, and the public pairs have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from armorm.data.cells import is_absent, number
from armorm.data.files import BadRecord, Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.scored import UNRATED, score_of
from armorm.data.sources.source import bad, each, flat, not_list, skip, text_fault

OVERALL, *_RATED = published_objectives("ultrafeedback")
BY_ASPECT = {objective.name.removeprefix("ultrafeedback-"): objective for objective in _RATED}
ANSWERS = 4


def completions_of(record: Record) -> tuple[list[tuple[int, Mapping[str, Any], dict[str, Any]]], list[Found]]:
    """A prompt's completions, each with its place and its raw ratings by aspect, and what can't be read or is not there."""
    if fault := text_fault(record, "instruction"):
        return [], [fault]
    completions = record.values.get("completions")
    if not isinstance(completions, list):
        return [], [not_list(record, "completions", "four answers with their annotations")]
    read: list[tuple[int, Mapping[str, Any], dict[str, Any]]] = []
    rest: list[Found] = [] if completions else [skip(record, "no-answers")]
    for place, completion in enumerate(completions):
        ratings = _ratings(record, completion)
        if isinstance(ratings, BadRecord):
            rest.append(ratings)
        else:
            read.append((place, completion, ratings))
    return read, rest


def notes_of(record: Record) -> tuple[str, ...]:
    """What is to be counted about a prompt's answers, whatever they are used for."""
    fewer = ("fewer-than-four",) if len(record.values["completions"]) < ANSWERS else ()
    return (*fewer, "truthful-qa") if record.values.get("source") == "truthful_qa" else fewer


def fine_grained(ratings: Mapping[str, Any]) -> float | str:
    """The mean of the aspects' ratings that there are, or why there is none."""
    scores = [score_of(ratings[name], aspect) for name, aspect in BY_ASPECT.items()]
    faults = [s for s in scores if isinstance(s, str) and s != UNRATED]
    numbers = [s for s in scores if not isinstance(s, str)]
    if faults:
        return faults[0]
    return sum(numbers) / len(numbers) if numbers else UNRATED


def _ratings(record: Record, completion: Any) -> dict[str, Any] | BadRecord:
    if not isinstance(completion, Mapping) or not isinstance(completion.get("response"), str):
        return bad(record, "missing-field", "each of 'completions' is an object with a text as 'response'")
    annotations = completion.get("annotations")
    if not isinstance(annotations, Mapping | None):
        return bad(record, "missing-field", "a completion's 'annotations' is an object with the four aspects")
    annotated = {name: (annotations or {}).get(name) for name in BY_ASPECT}
    for name, aspect in annotated.items():
        if not isinstance(aspect, Mapping | None):
            return bad(record, "missing-field", f"the annotation of {name!r} is an object with a 'Rating'")
    return {name: (aspect or {}).get("Rating") for name, aspect in annotated.items()}


def _overall(value: Any, ratings: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    # The score as it stands, or None and the note that says why it can't be right.
    score = number(value)
    if score is None:
        return value, ()
    mean = fine_grained(ratings)
    if score > OVERALL.max:
        return None, ("overall-score-above-10",)
    if score < OVERALL.min:
        return None, ("overall-score-below-1",)
    if score == OVERALL.max and isinstance(mean, float) and mean <= 2:
        return None, ("overall-score-bug",)
    return value, ()


def _answers(record: Record) -> Iterator[Found]:
    completions, rest = completions_of(record)
    for place, completion, aspects in completions:
        overall, notes = _overall(completion.get("overall_score"), aspects)
        if is_absent(overall) and all(map(is_absent, aspects.values())):
            yield skip(record, UNRATED)
            continue
        yield flat(
            record,
            place,
            notes=(*notes, *notes_of(record)),
            prompt=record.values["instruction"],
            response=completion["response"],
            **{OVERALL.name: overall, **{BY_ASPECT[name].name: value for name, value in aspects.items()}},
        )
    yield from rest


SOURCES = (published_ratings("ultrafeedback", each(_answers)),)
