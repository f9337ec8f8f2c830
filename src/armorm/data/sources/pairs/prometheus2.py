"""Preference-Collection (Prometheus 2): two answers to an instruction, compared by GPT-4 under a rubric.

In: records of prometheus-eval/Preference-Collection.  Out: one pair per record.  Cost: one pass.

The prompt is `orig_instruction`, the answers are `orig_response_A` and `orig_response_B`, and `orig_preference` ("A" or "B")
names the preferred one. The judge's whole prompt (`instruction`, `output`) and the rubric are no part of the conversation, as in
Feedback-Collection. Where both `orig_score_A` and `orig_score_B` are numbers (or written as text) they must agree with the
preference: `label-against-scores` and `tie` are left out. A score that is there and no number is noted (`score-na`), the
preference then stands alone. Another word than A or B is a fault (`unknown-label`).
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.cells import number
from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import bad, each, flat, skip


def _pair(record: Record) -> Iterator[Found]:
    values = record.values
    better = values["orig_preference"].strip()
    if better not in ("A", "B"):
        yield bad(record, "unknown-label", "give 'A' or 'B' in the field 'orig_preference'")
        return
    worse = "B" if better == "A" else "A"
    given = [values.get(f"orig_score_{side}") for side in (better, worse)]
    high, low = map(number, given)
    if high is not None and low is not None and high <= low:
        yield skip(record, "tie" if high == low else "label-against-scores")
        return
    unread = any(score is None and value is not None for score, value in zip((high, low), given, strict=True))
    yield flat(
        record,
        notes=("score-na",) if unread else (),
        prompt=values["orig_instruction"],
        chosen=values[f"orig_response_{better}"],
        rejected=values[f"orig_response_{worse}"],
    )


_TEXTS = ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference")
SOURCES = (published_pairs("prometheus2", each(_pair, *_TEXTS)),)
