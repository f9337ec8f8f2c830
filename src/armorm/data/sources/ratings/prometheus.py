"""Feedback-Collection (Prometheus): answers that GPT-4 wrote to fit a score from 1 to 5 under a rubric.

In: records of prometheus-eval/Feedback-Collection.  Out: one rated answer per record.  Cost: one pass; the hub's file is one
.json file of 1 GB, which is held in memory where it is a list.

The conversation is `orig_instruction` and `orig_response`, the rating is `orig_score`. `instruction` and `output` hold the whole
prompt of the judge and its verdict: they teach a judge to write feedback, and are not read. The rubric (`orig_criteria` and five
descriptions) is no part of the conversation either: a reward model meets answers without a rubric, so what is learnt is the
score averaged over rubrics. One answer may therefore come back with another score; both rows stay.

The score is a text ("3") in some copies and a number in others: both are read. One outside 1 to 5 faults the row. The scale is
mapped by bin centres, as HelpSteer's is; how the released model mapped it is not published.
"""

from __future__ import annotations

from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_objectives, published_ratings
from armorm.data.sources.source import bad, each, flat

(SCORE,) = published_objectives("prometheus")


def _answer(record: Record) -> Iterator[Found]:
    values = record.values
    if values.get("orig_score") is None:
        yield bad(record, "no-rating", "fill in the field 'orig_score', a number from 1 to 5")
    else:
        yield flat(
            record,
            prompt=values["orig_instruction"],
            response=values["orig_response"],
            **{SCORE.name: values["orig_score"]},
        )


SOURCES = (published_ratings("prometheus", each(_answer, "orig_instruction", "orig_response")),)
