"""What a recipe makes of its sources' answers: further sources of ratings and pairs, of training prompts alone.

In: a recipe, its other sources in order and in their joined groups.  Out: `SourceFacts` of what is made, in order.
Cost: for each entry a pass over its origins' texts and one over the chosen ones; one without texts to find prompts about safety.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt64

from armorm.data.made.choosing import Chosen, Origin, choose, survey
from armorm.data.made.harmless import safety_prompts
from armorm.data.made.kinds import KindName
from armorm.data.made.naming import MadeEntry, is_named
from armorm.data.made.rows import made_pairs, made_ratings
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import Split, group_code, group_name, split_of
from armorm.data.stored_rows import RowFolder, StoredRows
from armorm.data.summary import SourceFacts
from armorm.errors import DataError, RecipeError
from armorm.numbers import shorten
from armorm.recipe import Recipe
from armorm.rendering import Renderer
from armorm.run.rendered import Rendered

Groups = UInt64[np.ndarray, " g"]


def make_rows(
    recipe: Recipe,
    facts: Sequence[SourceFacts],
    folder: RowFolder,
    renderer: Renderer | None,
    say: Callable[[str], None] = lambda _line: None,
) -> list[SourceFacts]:
    """The sources that the recipe makes. `facts` are those of all others, without prompts of benchmarks, in order.

    Raises RecipeError for a name that is no source's, DataError where nothing can be made, StorageError.
    """
    origins = _origins(recipe, [f for f in facts if f.kind != "bench"])
    making, found = _Making(recipe, folder, renderer), list[SourceFacts]()
    for entry in recipe.made:
        own = [origin for origin in origins if is_named(origin.name, entry.of)]
        if strange := [name for name in entry.of if not any(is_named(origin.name, (name,)) for origin in origins)]:
            there = ", ".join(sorted({origin.name for origin in origins}))
            raise RecipeError(f"{entry.rows}: made of {strange[0]!r}, which no source is called: name some of {there}")
        say(f"making {', '.join(entry.names)}")
        found += making.of(entry, own)
    return found


def _origins(recipe: Recipe, facts: Sequence[SourceFacts]) -> list[Origin]:
    groups = np.unique(np.concatenate([np.empty(0, np.uint64), *(_groups(f) for f in facts)]))
    test = groups[[_is_test(group, recipe) for group in groups.tolist()]]
    safety, harmless = np.empty(0, np.uint64), tuple(recipe.harmless)
    if any("compliance" in entry.kinds for entry in recipe.made):
        _check_named(harmless, facts)
        safety = np.unique(np.concatenate([safety, *(safety_prompts(f.name, _rows(f).outlines()) for f in facts)]))
    return [Origin(f.name, _rows(f), test, safety, harmless) for f in facts]


def _is_test(group: int, recipe: Recipe) -> bool:
    splits = recipe.splits
    return split_of(group_name(group), seed=recipe.seed, validation=splits.validation, test=splits.test) is Split.TEST


def _check_named(harmless: Sequence[str], facts: Sequence[SourceFacts]) -> None:
    names = {f.name for f in facts} | {name for f in facts for row in _rows(f).outlines() for name in (row.section, row.subset)}
    if strange := [one for one in harmless if not any(is_named(name, (one,)) for name in names)]:
        there = shorten(", ".join(sorted(names - {""})), 1000)
        raise RecipeError(f"harmless: {strange[0]!r} is neither a source nor a section of one: there are {there}")


@dataclass(frozen=True)
class _Making:
    recipe: Recipe
    folder: RowFolder
    renderer: Renderer | None

    def of(self, entry: MadeEntry, origins: Sequence[Origin]) -> Iterator[SourceFacts]:
        """A source for each kind."""
        surveys = [survey(origin, entry.kinds, seed=self.recipe.seed) for origin in origins]
        for i, (name, kind) in enumerate(entry.names.items()):
            yield self._source(entry, name, kind, origins, choose(surveys, i, entry.most))

    def _source(self, entry: MadeEntry, name: str, kind: KindName, origins: Sequence[Origin], chosen: Chosen) -> SourceFacts:
        left, groups, rendered = Counter(chosen.left), array("Q"), Rendered(name, self.renderer)
        make: Any = made_ratings if entry.rows == "ratings" else made_pairs

        def rows() -> Iterator[RatedResponse | PreferencePair]:
            for origin, places in zip(origins, chosen.places, strict=True):
                for row in rendered.kept(make(origin, places, kind, name, left, seed=self.recipe.seed)):
                    groups.append(group_code(row.group))
                    yield row

        stored: StoredRows[Any] = self.folder.store(entry.rows, rows())
        each = 2 if entry.rows == "ratings" else 1
        drops = {reason: each * n for reason, n in left.items() if n} | dict(rendered.counts)
        if not stored:
            of = ", ".join(origin.name for origin in origins)
            raise DataError(f"{name}: nothing can be made of {of} (left out: {drops}): name other sources, or leave {kind} out")
        total = each * sum(len(origin.rows) for origin in origins)
        ordered = stored.grouped(np.array(groups, np.uint64)).ordered()
        return SourceFacts(name, entry.rows, total, ordered, drops, dict(rendered.notes))


def _rows(facts: SourceFacts) -> StoredRows[Any]:
    assert isinstance(facts.rows, StoredRows)
    return facts.rows


def _groups(facts: SourceFacts) -> Groups:
    groups = _rows(facts).groups
    assert groups is not None
    return np.unique(groups)
