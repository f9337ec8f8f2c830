"""The synthetic starter set: prompts, graded answers, simulated ratings and preferences whose truth is known.

In: a seed.  Out: `Starter`.  Cost: about a second; no network, no torch.

Truth first: every answer has a level per quality, drawn independently of each other and of the domain, and a text composed
to show it.  Simulated sources then rate answers with noise and a bias towards padding; preferences weigh the true
qualities with weights that differ by domain, and a few of them are flipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from armorm.conversation import Message, prompt_group
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.starter import compose, domains
from armorm.data.starter.prompt import Draw, Prompt
from armorm.objectives import Direction, Objective, Objectives

PROMPTS_PER_DOMAIN = 120
ANSWERS_PER_PROMPT = 4
PAIRS_PER_PROMPT = 3
FLIPPED = 0.04
"""Share of preferences that go against the truth."""
SMALLEST_GAP = 0.06
"""Smallest difference in true utility between the two answers of a pair."""
_LOOSENESS = 0.1
"""How loosely pairs are chosen for conflict between the domains (in utility); without end it would be any pair."""

_RATER = "simulated (synthetic starter set)"
# Name → (source, ends of the raw scale, true unit rating of each level)
_QUALITIES: Mapping[str, tuple[str, tuple[float, float], tuple[float, ...]]] = {
    "warmth": ("starter-panel", (0, 4), (0.15, 0.5, 0.85)),
    "detail": ("starter-panel", (0, 4), (0.15, 0.5, 0.85)),
    "verbosity": ("starter-panel", (0, 4), (0.1, 0.5, 0.9)),
    "confidence": ("starter-judge", (1, 10), (0.15, 0.5, 0.85)),
    "steps": ("starter-judge", (1, 10), (0.15, 0.5, 0.85)),
    "correctness": ("starter-judge", (1, 10), (0.15, 0.85)),
    "code-style": ("starter-code", (1, 5), (0.15, 0.5, 0.85)),
    "safety": ("starter-safety", (0, 1), (0.15, 0.5, 0.85)),
}
NUISANCE = "verbosity"
_BIAS = {"starter-panel": 0.35, "starter-judge": 0.45, "starter-code": 0.35, "starter-safety": 0.4}
_NOISE = {"starter-panel": 0.1, "starter-judge": 0.1, "starter-code": 0.1, "starter-safety": 0.15}
# How readily a source takes up an answer; where a domain is its own, readily.
_READY = {"starter-panel": 1.0, "starter-judge": 1.0, "starter-code": 0.0, "starter-safety": 0.8}
_READY_AT_HOME = {("starter-code", "code"): 4.0, ("starter-safety", "safety"): 3.0}
_TWICE_RATED = 0.85
"""Share of the answers that two sources rate; the others are rated by one."""
_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "chat": {"warmth": 0.7, "safety": 0.1, "detail": 0.1, "correctness": 0.1},
    "facts": {"detail": 0.6, "confidence": 0.25, "correctness": 0.15},
    "math": {"steps": 0.7, "correctness": 0.15, "confidence": 0.15},
    "code": {"code-style": 0.65, "steps": 0.2, "detail": 0.15},
    "safety": {"safety": 0.75, "warmth": 0.15, "detail": 0.1},
}
_WRITERS = {
    "chat": domains.everyday,
    "facts": domains.facts,
    "math": domains.sums,
    "code": domains.programs,
    "safety": domains.requests,
}


@dataclass(frozen=True, slots=True)
class Truth:
    """What was planted. All ratings are in [0, 1], in the objectives' order.

    `qualities`: true ratings by row id; `weights`: the weights over the objectives that made a domain's preferences (they
    are non-negative and sum to 1); `domain_of`: domain by prompt group; `shown`: the objectives that the text shows (a wrong
    figure looks like a right one); `bias`: how much a source's ratings of everything but the nuisance rise per unit of
    padding; `flipped`: the pairs whose preference goes against the truth. Outside code the true code style is 0.5.
    """

    qualities: Mapping[str, Float[np.ndarray, " k"]]
    weights: Mapping[str, Float[np.ndarray, " k"]]
    domain_of: Mapping[str, str]
    shown: frozenset[str]
    nuisance: str
    bias: Mapping[str, float]
    flipped: frozenset[str]


@dataclass(frozen=True, slots=True)
class Starter:
    """The synthetic starter set and its truth."""

    objectives: Objectives
    ratings: tuple[RatedResponse, ...]
    pairs: tuple[PreferencePair, ...]
    truth: Truth


@dataclass(frozen=True, slots=True)
class _Answer:
    id: str
    text: str
    truth: Float[np.ndarray, " k"]


@dataclass(frozen=True, slots=True)
class _Question:
    # A prompt with its graded answers; `key` seeds what is drawn about it.
    key: str
    domain: str
    group: str
    context: tuple[Message, ...]
    answers: tuple[_Answer, ...]


def build(seed: int = 0) -> Starter:
    """The whole set. The same seed gives the same rows and truth, another seed other answers, ratings and preferences."""
    of = _objectives()
    weights = {domain: of.row({**dict.fromkeys(of.names, 0.0), **some}) for domain, some in _WEIGHTS.items()}
    questions = [question for domain in _WRITERS for question in _questions(domain, seed)]
    rated = [(row, answer.truth) for q in questions for answer in q.answers for row in _rate(q, answer, of)]
    pairs = [pair for q in questions for pair in _prefer(q, weights)]
    truth = Truth(
        qualities={row.id: quality for row, quality in rated},
        weights=weights,
        domain_of={q.group: q.domain for q in questions},
        shown=frozenset(of.names) - {"correctness"},
        nuisance=NUISANCE,
        bias=dict(_BIAS),
        flipped=frozenset(pair.id for pair, flipped in pairs if flipped),
    )
    return Starter(of, tuple(row for row, _ in rated), tuple(pair for pair, _ in pairs), truth)


def _objectives() -> Objectives:
    return Objectives(
        [
            Objective(
                name=name,
                source=source,
                min=low,
                max=high,
                direction=Direction.NEUTRAL if name == NUISANCE else Direction.HIGHER,
                rater=_RATER,
            )
            for name, (source, (low, high), _) in _QUALITIES.items()
        ]
    )


def _questions(domain: str, seed: int) -> list[_Question]:
    questions = []
    for i, prompt in enumerate(_WRITERS[domain](PROMPTS_PER_DOMAIN, Draw(f"{seed}/{domain}"))):
        context = (Message(role="user", content=prompt.text),)
        key = f"{seed}/{domain}/{i}"
        answers = _answers(f"starter-{domain}-{i:03d}", prompt, Draw(key))
        questions.append(_Question(key, domain, prompt_group(context), context, answers))
    return questions


def _answers(stem: str, prompt: Prompt, draw: Draw) -> tuple[_Answer, ...]:
    answers: dict[str, _Answer] = {}
    while len(answers) < ANSWERS_PER_PROMPT:
        levels = {name: draw.below(len(units)) for name, (_, _, units) in _QUALITIES.items()}
        text = compose.answer(prompt, levels, draw)
        answers.setdefault(text, _Answer(f"{stem}-{len(answers)}", text, _true_ratings(prompt, levels)))
    return tuple(answers.values())


def _true_ratings(prompt: Prompt, levels: Mapping[str, int]) -> Float[np.ndarray, " k"]:
    units = {name: units[levels[name]] for name, (_, _, units) in _QUALITIES.items()}
    if not prompt.programs[0]:
        units["code-style"] = 0.5
    return np.array(list(units.values()), dtype=np.float64)


def _rate(question: _Question, answer: _Answer, of: Objectives) -> list[RatedResponse]:
    # observed = clip(round(scale(truth + bias * (verbosity - 1/2) + noise)))
    draw = Draw(f"{question.key}/{answer.id}/ratings")
    padding = answer.truth[of.column(NUISANCE)] - 0.5
    messages = (*question.context, Message(role="assistant", content=answer.text))
    rows = []
    for source in _raters(question.domain, draw):
        ratings = {}
        for objective, true in zip(of, answer.truth, strict=True):
            if objective.source == source:
                lean = 0.0 if objective.name == NUISANCE else _BIAS[source] * padding
                raw = objective.from_unit(float(true) + lean + draw.normal(_NOISE[source]))
                ratings[objective.name] = float(np.clip(np.round(raw), objective.min, objective.max))
        rows.append(RatedResponse(f"{answer.id}-{source}", question.group, source, messages, ratings))
    return rows


def _raters(domain: str, draw: Draw) -> list[str]:
    # One or two sources, by how readily each takes up an answer of this domain.
    ready = {source: _READY_AT_HOME.get((source, domain), usual) for source, usual in _READY.items()}
    found: list[str] = []
    for _ in range(2 if draw.unit() < _TWICE_RATED else 1):
        found.append(draw.weighted(ready))
        ready[found[-1]] = 0.0
    return sorted(found)


def _prefer(question: _Question, weights: Mapping[str, Float[np.ndarray, " k"]]) -> list[tuple[PreferencePair, bool]]:
    # Of all pairs of answers, those on which the domain's weights and the others' disagree most; a few are
    # flipped, and say so.
    draw = Draw(f"{question.key}/pairs")
    own = weights[question.domain]
    others = np.mean([w for domain, w in weights.items() if domain != question.domain], axis=0)
    ranked: list[tuple[float, _Answer, _Answer]] = []
    for one, two in combinations(question.answers, 2):
        gap = own @ (one.truth - two.truth)
        if abs(gap) >= SMALLEST_GAP:
            better, worse = (one, two) if gap > 0 else (two, one)
            ranked.append((others @ (better.truth - worse.truth) + draw.normal(_LOOSENESS), better, worse))
    ranked.sort(key=lambda entry: entry[0])
    drawn = [(better, worse, draw.unit() < FLIPPED) for _, better, worse in ranked[:PAIRS_PER_PROMPT]]
    return [(_pair(question, better, worse, flipped), flipped) for better, worse, flipped in drawn]


def _pair(question: _Question, better: _Answer, worse: _Answer, flipped: bool) -> PreferencePair:
    chosen, rejected = (worse, better) if flipped else (better, worse)
    first, second = sorted((better.id, worse.id))
    return PreferencePair(
        id=f"{first}-{second.rsplit('-', 1)[1]}",
        group=question.group,
        source="starter-pairs",
        context=question.context,
        chosen=chosen.text,
        rejected=rejected.text,
        section=question.domain,
    )
