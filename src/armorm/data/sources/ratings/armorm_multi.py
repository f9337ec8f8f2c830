"""ArmoRM-Multi-Objective-Data: the released model's own ratings, eight sets merged, 19 columns already mapped to [0, 1].

In: records of RLHFlow/ArmoRM-Multi-Objective-Data-v0.1.  Out: one rated answer per record.  Cost: one pass.

A record has `messages` and any part of the 19 columns; null is a missing rating. NaN, which data frames write for it, counts as
missing too (note `nan-as-missing`). A `dataset` column, which some copies have, is not read. The scale of every objective here
is 0 to 1; its `formula` says how its makers mapped the raw scale: published for HelpSteer and BeaverTails, for the others no
more than that the map is linear. It can't be joined with the raw sets, whose objectives have the same names on other scales.

Some of the merged sets hold one answer several times, once per annotator, so repeated rows stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from armorm.data.files import Found, Record
from armorm.data.sources.source import Place, RatingSource, bad, each, flat
from armorm.objectives import Direction, Objective

_HELPSTEER = ("nvidia/HelpSteer", "human", "(x + 0.5) / 5, x from 0 to 4")
_ULTRAFEEDBACK = ("openbmb/UltraFeedback", "GPT-4", "linear, from 1 to 5")
_CODE = ("coseal/CodeUltraFeedback", "GPT-3.5", "linear, from 1 to 5")
_COLUMNS = {
    "helpsteer-helpfulness": _HELPSTEER,
    "helpsteer-correctness": _HELPSTEER,
    "helpsteer-coherence": _HELPSTEER,
    "helpsteer-complexity": _HELPSTEER,
    "helpsteer-verbosity": _HELPSTEER,
    "ultrafeedback-overall_score": ("openbmb/UltraFeedback", "GPT-4", "linear, from 1 to 10"),
    "ultrafeedback-instruction_following": _ULTRAFEEDBACK,
    "ultrafeedback-truthfulness": _ULTRAFEEDBACK,
    "ultrafeedback-honesty": _ULTRAFEEDBACK,
    "ultrafeedback-helpfulness": _ULTRAFEEDBACK,
    "beavertails-is_safe": ("PKU-Alignment/BeaverTails", "human", "safe 1, unsafe 0"),
    "prometheus-score": ("prometheus-eval/Feedback-Collection", "GPT-4", "linear, from 1 to 5"),
    "argilla-overall_quality": ("argilla/Capybara-Preferences-Filtered", "GPT-4", "linear, from 1 to 5"),
    "argilla-judge_lm": ("argilla/distilabel-intel-orca-dpo-pairs", "GPT-4", "linear, from 1 to 10"),
    "code-complexity": _CODE,
    "code-style": _CODE,
    "code-explanation": _CODE,
    "code-instruction-following": _CODE,
    "code-readability": _CODE,
}
OBJECTIVES = tuple(
    Objective(
        name=name,
        source=source,
        rater=rater,
        formula=formula,
        min=0,
        max=1,
        direction=Direction.NEUTRAL if name == "helpsteer-verbosity" else Direction.HIGHER,
    )
    for name, (source, rater, formula) in _COLUMNS.items()
)


@each
def unfold(record: Record) -> Iterator[Found]:
    """The record's messages and its ratings."""
    values = record.values
    if values.get("messages") is None:
        yield bad(record, "missing-field", "fill in the field 'messages', a list of {'role': …, 'content': …}")
        return
    ratings = {name: values.get(name) for name in _COLUMNS}
    missing = [name for name, value in ratings.items() if isinstance(value, float) and math.isnan(value)]
    ratings.update(dict.fromkeys(missing))
    yield flat(record, "", notes=("nan-as-missing",) if missing else (), messages=values["messages"], **ratings)


SOURCES = (
    RatingSource(
        name="armorm-multi",
        title="ArmoRM-Multi-Objective-Data v0.1",
        place=Place(hub="RLHFlow/ArmoRM-Multi-Objective-Data-v0.1"),
        licence="not stated",
        rows=0,
        rater="as in the eight merged sets: people, GPT-4, GPT-3.5",
        objectives=OBJECTIVES,
        unfold=unfold,
        repeats="keep",
    ),
)
