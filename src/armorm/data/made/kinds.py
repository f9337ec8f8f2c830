"""The made objectives by name: what each is about, and the change that takes it away.

In: a `Case`, a seed.  Out: the changed answer or a `Reason`; `Objective`s, whose rater is the construction.
Cost: a pass over the answer.

A change depends on the seed, the kind, and the prompt and answer alone: the same rows come out in whatever order they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from armorm.data.made.changes import Case, Change, Reason, answer_something_else, cut_short, pad, put_out_of_order, refuse
from armorm.draws import draw_of
from armorm.objectives import Objective, Objectives

KindName = Literal["relevance", "coherence", "completeness", "conciseness", "compliance"]
"""Objectives that are made: `relevance`, `coherence`, `completeness`, `conciseness`, and `compliance` on harmless prompts."""
RATER = "by construction"


@dataclass(frozen=True, slots=True)
class MadeKind:
    """What is made: an objective's name, how it comes about in a sentence, and the change of the answers that have 0."""

    name: KindName
    formula: str
    change: Change

    def apply(self, case: Case, *, seed: int) -> str | Reason:
        """The changed answer, or why there is none."""
        changed = self.change(case, draw_of(self.name, str(seed), case.question, case.answer))
        if isinstance(changed, Reason):
            return changed
        return Reason.UNCHANGED if changed.split() == case.answer.split() else changed

    @property
    def objective(self) -> Objective:
        """The objective, on a scale from 0 to 1."""
        return Objective(name=self.name, source="made", min=0, max=1, rater=RATER, formula=self.formula)


_KINDS = (
    MadeKind("relevance", "1: the prompt's own answer; 0: another prompt's", answer_something_else),
    MadeKind("coherence", "1: the answer; 0: its sentences in another order", put_out_of_order),
    MadeKind("completeness", "1: the answer; 0: cut within a sentence", cut_short),
    MadeKind("conciseness", "1: the answer; 0: with filler, repetition or the prompt repeated", pad),
    MadeKind("compliance", "1: the answer to a harmless prompt; 0: a refusal", refuse),
)
KINDS: Mapping[KindName, MadeKind] = {kind.name: kind for kind in _KINDS}
assert tuple(KINDS) == get_args(KindName)


def made_objectives(names: Iterable[KindName]) -> Objectives:
    """The objectives of these kinds, each once, in the kinds' own order."""
    wanted = set(names)
    return Objectives([kind.objective for kind in _KINDS if kind.name in wanted])
