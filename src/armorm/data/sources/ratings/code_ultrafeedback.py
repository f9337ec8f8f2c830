"""CodeUltraFeedback: one of five coding preferences, from 1 to 5, of four answers per prompt, by GPT-3.5.

In: raw records of coseal/CodeUltraFeedback, one per prompt.  Out: one rated answer per response.  Cost: none beyond reading.

A record rates its `preference` alone, so each answer gets one of the five objectives. Annotations come in another order than
the responses and are joined to them by `model`. A response without an annotation (some records have none at all) or rated "N/A"
is skipped as `unrated`. Faults: a preference that is none of the five (`unknown-preference`), a model that answers or is
annotated twice (`duplicate-id`), and an annotation of a model that gave no answer (`missing-field`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from armorm.data.cells import is_absent
from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.scored import UNRATED
from armorm.data.sources.source import bad, each, flat, not_list, skip, text_fault

BY_PREFERENCE = {o.name.removeprefix("code-"): o for o in published_objectives("code-ultrafeedback")}


def responses_of(record: Record) -> tuple[list[tuple[int, str, Any]], list[Found]]:
    """A prompt's responses as place, text and raw rating (None where there is none), and what can't be read.

    Where the list is not empty, the record's instruction is a text and its preference one of the five.
    """
    values = record.values
    if fault := text_fault(record, "instruction", "preference"):
        return [], [fault]
    if values["preference"] not in BY_PREFERENCE:
        known = ", ".join(BY_PREFERENCE)
        return [], [bad(record, "unknown-preference", f"the record's 'preference' is one of {known}")]
    texts, faults = _by_model(record, "responses", "response")
    ratings, more = _by_model(record, "annotations", "rating")
    orphans = [m for m in ratings if m not in texts]
    faults += more + [bad(record, "missing-field", f"model {m[:60]!r} has an annotation, but no response") for m in orphans]
    responses = []
    for place, (model, text) in enumerate(texts.items()):
        if isinstance(text, str):
            responses.append((place, text, ratings.get(model)))
        else:
            faults.append(bad(record, "not-text", "each of 'responses' has a text as 'response'"))
    return responses, faults


def _by_model(record: Record, field: str, value: str) -> tuple[dict[str, Any], list[Found]]:
    # Model → value. A model that comes twice is left out: which of the two is meant can't be known.
    entries = record.values.get(field)
    if field == "annotations" and entries is None:
        return {}, []
    if not isinstance(entries, list):
        return {}, [not_list(record, field, f"objects with 'model' and {value!r}")]
    by_model: dict[str, Any] = {}
    twice: set[str] = set()
    faults: list[Found] = []
    for entry in entries:
        model = entry.get("model") if isinstance(entry, dict) else None
        if not isinstance(model, str):
            faults.append(bad(record, "missing-field", f"each of {field!r} is an object with a text as 'model'"))
        elif model in by_model:
            twice.add(model)
        else:
            by_model[model] = entry.get(value)
    faults += [bad(record, "duplicate-id", f"model {m[:60]!r} stands twice in {field!r}: keep one") for m in sorted(twice)]
    return {m: v for m, v in by_model.items() if m not in twice}, faults


def _answers(record: Record) -> Iterator[Found]:
    responses, faults = responses_of(record)
    for place, text, rating in responses:
        if is_absent(rating):
            yield skip(record, UNRATED)
        else:
            name = BY_PREFERENCE[record.values["preference"]].name
            yield flat(record, place, prompt=record.values["instruction"], response=text, **{name: rating})
    yield from faults


SOURCES = (published_ratings("code-ultrafeedback", each(_answers)),)
