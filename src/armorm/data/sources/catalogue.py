"""What is published about the public sets: `catalogue.json`, one entry per set, with its ratings, its pairs or both.

In: a set's name, and how its records become rows.  Out: its objectives, its `RatingSource`, its `PairSource`.
Cost: the file is read once.

An objective has its set's hub id as `source`, its set's `rater` and its `licence`, where it does not say others.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from armorm.data.sources.source import PairSource, RatingSource, Unfold
from armorm.objectives import Objective

CATALOGUE: dict[str, dict[str, Any]] = json.loads(resources.files(__package__).joinpath("catalogue.json").read_text("utf-8"))


@cache
def published_objectives(name: str) -> tuple[Objective, ...]:
    """What a set's answers are rated on, in the order of its entry."""
    facts = CATALOGUE[name]
    shared = {"source": facts["place"]["hub"], "rater": facts["rater"], "licence": facts["licence"]}
    return tuple(Objective.model_validate({**shared, **objective}) for objective in facts["objectives"])


def published_ratings(name: str, unfold: Unfold) -> RatingSource:
    """A set of rated answers, as its entry says."""
    facts = {**CATALOGUE[name], "name": name, "objectives": published_objectives(name), "unfold": unfold}
    return TypeAdapter(RatingSource).validate_python(facts)


def published_pairs(name: str, unfold: Unfold) -> PairSource:
    """A set of preference pairs, as its entry says."""
    return TypeAdapter(PairSource).validate_python({**CATALOGUE[name], "name": name, "unfold": unfold})
