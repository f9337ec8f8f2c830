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

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from armorm.data.cells import is_absent, number
from armorm.data.files import Found, Record
from armorm.data.sources.catalogue import published_pairs
from armorm.data.sources.source import Unfold, bad, each, flat, skip

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


_SCORES: Mapping[str, Scores] = {
    "rlhflow-ultrafeedback": "ground",
    "rlhflow-helpsteer": "ground",
    "rlhflow-shp": "ground",
    "rlhflow-hh-helpful": "none",
    "rlhflow-hh-harmless": "none",
    "rlhflow-pku-saferlhf": "none",
    "rlhflow-argilla-math": "ground",
    "rlhflow-code-ultrafeedback": "ground",
    "rlhflow-prometheus2": "none",
    "rlhflow-capybara": "ground",
    "rlhflow-orca": "none",
    "rlhflow-ultrainteract": "none",
    "rlhflow-helpsteer2": "none",
    "rlhflow-mixture": "none",
    "preference-700k": "beside",
}
_FIELDS = {"rlhflow-argilla-math": ("chosen_rating", "rejected_rating")}
_USUAL_FIELDS = ("chosen_score", "rejected_score")

SOURCES = tuple(published_pairs(name, _unfold(scores, *_FIELDS.get(name, _USUAL_FIELDS))) for name, scores in _SCORES.items())
