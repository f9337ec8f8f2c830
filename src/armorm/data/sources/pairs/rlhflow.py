"""The "standard" preference sets of RLHFlow, already paired, and two mixtures of such sets.

In: records of the RLHFlow/…-standard sets, pair_data_v2_80K_wsafety and hendrydong/preference_700K.
Out: one pair per record.  Cost: one pass.

`chosen` and `rejected` are whole conversations that differ in the last turn. Their makers keep alternating, non-empty dialogues
with one context; every pair here is checked for the same, and counted by its fault if it is none.

In the sets that were paired by scores (`chosen_score` and `rejected_score`; Argilla-Math: `chosen_rating` and `rejected_rating`)
the scores must say what the pair says: equal ones are left out as `tie`, a rejected score above the chosen one as `reversed`. A
score that is null or "N/A" leaves the preference without a ground: `unrated`, left out (CodeUltraFeedback's pairs were made by
comparing texts, where "N/A" beats every number). Another text is a fault (`score-not-a-number`). A copy without these columns is
read as it stands (note `no-scores`). In the mixtures the scores of some parts are placeholders, so only `reversed` is left out
there; equal ones are kept with the note `equal-scores`, others that say nothing with `score-na`.

Two ids are misspelt on the hub ("distibalel") and one is written Helpsteer. pair_data_v2_80K_wsafety holds about 800,000 pairs.
PKU-SafeRLHF's standard set does not say whether its pairs are by safety or by quality: `pku-safer` and `pku-better` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from armorm.data.cells import is_absent, number
from armorm.data.files import Found, Record
from armorm.data.sources.source import PairSource, Place, Unfold, bad, each, flat, skip

Scores = Literal["ground", "beside", "none"]
"""What a set's scores are: the ground of its pairs, beside the point (mixtures), or not there."""


def _unfold(scores: Scores, chosen_score: str, rejected_score: str) -> Unfold:
    @each
    def unfold(record: Record) -> Iterator[Found]:
        values = record.values
        if missing := [name for name in ("chosen", "rejected") if values.get(name) is None]:
            yield bad(record, "missing-field", f"fill in the field {missing[0]!r}, a list of {{'role': …, 'content': …}}")
            return
        notes: tuple[str, ...] = ()
        if scores != "none":
            verdict = _verdict(values, chosen_score, rejected_score)
            if verdict == "score-not-a-number" and scores == "ground":
                yield bad(record, verdict, f"give numbers in the fields {chosen_score!r} and {rejected_score!r}, or nothing")
                return
            if verdict == "reversed" or (scores == "ground" and verdict in ("tie", "unrated")):
                yield skip(record, verdict)
                return
            noted = {"tie": "equal-scores", "unrated": "score-na", "score-not-a-number": "score-na", "no-scores": "no-scores"}
            notes = (noted[verdict],) if verdict in noted else ()
        yield flat(record, notes=notes, chosen=values["chosen"], rejected=values["rejected"])

    return unfold


def _verdict(values: dict[str, Any], chosen_score: str, rejected_score: str) -> str:
    if chosen_score not in values and rejected_score not in values:
        return "no-scores"
    given = [values.get(chosen_score), values.get(rejected_score)]
    if any(_is_not_available(value) for value in given):
        return "unrated"
    high, low = map(number, given)
    if high is None or low is None:
        return "score-not-a-number"
    return "reversed" if high < low else "tie" if high == low else "agree"


def _is_not_available(value: Any) -> bool:
    return is_absent(value) or str(value).strip().casefold() == "nan"


def _source(
    name: str,
    hub: str,
    rows: int,
    scores: Scores,
    made: str,
    fields: tuple[str, str] = ("chosen_score", "rejected_score"),
    *,
    remembered: bool = False,
) -> PairSource:
    return PairSource(
        name=name,
        title=hub.split("/")[1],
        place=Place(hub=hub),
        licence="not stated",
        rows=rows,
        made=made,
        unfold=_unfold(scores, *fields),
        confidence="remembered" if remembered else "read",
    )


SOURCES = (
    _source(
        "rlhflow-ultrafeedback",
        "RLHFlow/UltraFeedback-preference-standard",
        340_025,
        "ground",
        "all pairs of four answers by the mean of GPT-4's four ratings, ties left out",
    ),
    _source(
        "rlhflow-helpsteer",
        "RLHFlow/Helpsteer-preference-standard",
        37_131,
        "ground",
        "pairs of answers to one prompt by a score of people's ratings",
    ),
    _source(
        "rlhflow-shp",
        "RLHFlow/SHP-standard",
        93_300,
        "ground",
        "two comments on one post, score ratio above 2, at most five pairs per post",
    ),
    _source("rlhflow-hh-helpful", "RLHFlow/HH-RLHF-Helpful-standard", 115_000, "none", "a crowd worker's choice of two answers"),
    _source(
        "rlhflow-hh-harmless",
        "RLHFlow/HH-RLHF-Harmless-and-RedTeam-standard",
        42_300,
        "none",
        "a crowd worker's choice of two answers",
    ),
    _source(
        "rlhflow-pku-saferlhf",
        "RLHFlow/PKU-SafeRLHF-30K-standard",
        26_900,
        "none",
        "people's choice of two answers, by safety or by quality: not stated",
    ),
    _source(
        "rlhflow-argilla-math",
        "RLHFlow/Argilla-Math-DPO-standard",
        2_420,
        "ground",
        "two solutions of one task by GPT-4's ratings",
        ("chosen_rating", "rejected_rating"),
    ),
    _source(
        "rlhflow-code-ultrafeedback",
        "RLHFlow/CodeUltraFeedback-standard",
        50_156,
        "ground",
        "pairs of four programs by GPT-3.5's ratings, compared as texts",
    ),
    _source(
        "rlhflow-prometheus2",
        "RLHFlow/Prometheus2-preference-standard",
        200_000,
        "none",
        "GPT-4's preference between two answers under a rubric",
    ),
    _source(
        "rlhflow-capybara",
        "RLHFlow/Capybara-distibalel-Filter-standard",
        14_811,
        "ground",
        "two last answers to one dialogue by GPT-4's ratings",
    ),
    _source(
        "rlhflow-orca",
        "RLHFlow/Orca-distibalel-standard",
        6_930,
        "none",
        "two answers to one instruction by GPT-4's ratings",
        remembered=True,
    ),
    _source(
        "rlhflow-ultrainteract",
        "RLHFlow/UltraInteract-filtered-standard",
        162_000,
        "none",
        "correct and wrong actions in one reasoning task",
        remembered=True,
    ),
    _source(
        "rlhflow-helpsteer2",
        "RLHFlow/Helpsteer2-standard",
        0,
        "none",
        "pairs of answers to one prompt by a score of people's ratings",
        remembered=True,
    ),
    _source(
        "rlhflow-mixture",
        "RLHFlow/pair_data_v2_80K_wsafety",
        800_000,
        "none",
        "a mixture of preference sets with safety data",
        remembered=True,
    ),
    _source(
        "preference-700k",
        "hendrydong/preference_700K",
        700_000,
        "beside",
        "a mixture of eight preference sets, filtered by score gaps",
    ),
)
