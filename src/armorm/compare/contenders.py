"""The methods of a comparison: each with its scores of the same items, and what it took to make and to ask it.

In: finished runs, trained decoders, judges; the items.  Out: `Contender`s.  Cost: none for methods on stored features; a forward
pass per answer, or two per pair, for the others. What is scored is kept, so a comparison that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from armorm.bench.position import position_bias
from armorm.bench.run import Scores, as_json, as_scores, judge_items
from armorm.data.rows import BenchmarkItem
from armorm.disk import folder_name
from armorm.errors import ArmormError, StorageError
from armorm.judge_settings import JudgeSettings
from armorm.progress import Reporter, counting
from armorm.recipe import Recipe
from armorm.rivals.judge.judges import PairwiseJudge, PointwiseJudge, judge_of
from armorm.rivals.pairwise import PairwiseModel
from armorm.rivals.sequence_head import SequenceHead
from armorm.run.methods import MAIN, RIVAL, Method, score_suite
from armorm.run.stages import Stage, forget_stage, key_of, read_nothing, run_stage
from armorm.run.train import Training
from armorm.scorers import PairScorer, Scorer
from armorm.tuning_settings import TrainingObjective

Suites = Mapping[str, Sequence[BenchmarkItem]]
Costs = dict[str, Any]

FAMILIES = {MAIN: "armorm", RIVAL: "bradley-terry", "length": "baseline", "single": "baseline"}
FAMILIES |= dict.fromkeys(("uniform", "uniform-raw", "armorm-no-gate", "armorm-not-debiased"), "ablation")


@dataclass(frozen=True)
class Contender:
    """One method: `MethodFacts` are read from it. `scores` by suite, an array for each item; `training` and `scoring` (by suite)
    say what it took.

    `whole` has the scores of all items of capped suites, from methods that they cost nothing. `skipped` says why there are none.
    """

    method: str
    label: str
    family: str
    backbone: str
    note: str = ""
    scores: Mapping[str, Sequence[Scores]] = field(default_factory=dict)
    whole: Mapping[str, Sequence[Scores]] = field(default_factory=dict)
    training: Costs | None = None
    scoring: Mapping[str, Costs] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = None
    position: Mapping[str, Any] | None = None
    skipped: str | None = None


# -- methods on stored features -----------------------------------------------------------------------------------------------


def from_features(
    training: Training,
    method: Method,
    suites: Suites,
    backbone: str,
    *,
    whole: Suites | None = None,
    variant: str = "",
    before: Costs | None = None,
) -> Contender:
    """A method on the features of a finished run. `variant` tells runs apart; `before` is what the decoder's training took."""
    scores, everything, scoring = {}, {}, {}
    for suite in training.recipe.bench:
        stored, answers = training.stores.suites[suite.name], training.suites[suite.name]
        both = score_suite(answers, [method])[method.scorer.name]
        by_id = {item.id: one for item, one in zip(answers.items, answers.by_item(*both), strict=True)}
        scores[suite.name] = [by_id[item.id] for item in suites[suite.name]]
        if whole and suite.name in whole:
            everything[suite.name] = [by_id[item.id] for item in whole[suite.name]]
        share = len(suites[suite.name]) / len(stored)
        scoring[suite.name] = {
            "seconds": round(stored.seconds * share, 1),
            "tokens_in": round(stored.manifest["tokens"] * share),
            "tokens_out": 0,
            "answers": sum(len(item.answers) for item in suites[suite.name]),
        }
    name = method.scorer.name
    family = FAMILIES.get(name) or ("ablation" if name.startswith(MAIN) else "regression")
    reads_ratings = family not in ("bradley-terry", "baseline")
    cost = None if family == "baseline" else _added(before, _feature_costs(training, ratings=reads_ratings))
    about = (f"{name}@{variant}" if variant else name, method.scorer.label, family, backbone)
    return Contender(*about, scores=scores, whole=everything, training=cost, scoring=scoring)


def _feature_costs(training: Training, *, ratings: bool) -> Costs:
    stores = [*training.stores.pairs.values(), *(training.stores.ratings.values() if ratings else ())]
    stages = (training.probe, training.debias, training.gates) if ratings else ()
    return {
        "seconds": round(sum(s.seconds for s in stores) + sum(stage.seconds for stage in stages), 1),
        "tokens": sum(s.manifest["tokens"] for s in stores),
        "steps": None,
        "examples": sum(map(len, stores)),
    }


def _added(one: Costs | None, other: Costs) -> Costs:
    if one is None:
        return other
    both = {k: round((one[k] or 0) + (other[k] or 0), 1) for k in ("seconds", "tokens", "examples")}
    return {**both, "steps": one["steps"]}


def training_costs(tuned: Stage[None]) -> Costs:
    """What the training of a decoder took."""
    return {k: tuned.facts[k] for k in ("seconds", "tokens", "steps", "examples")}


# -- methods that read the texts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arena:
    """Where methods that read the texts are asked: the items, and the folder in which their scores are kept."""

    recipe: Recipe
    suites: Suites
    folder: Path
    reporter: Reporter

    def trained(self, objective: TrainingObjective, name: str, label: str, tuned: Stage[None]) -> Contender:
        """A trained decoder: a Bradley–Terry model, or one that says which of two shown answers is better ("pairwise")."""
        s, settings = self.recipe.backbone, self.recipe.tuning.of(objective)
        how: dict[str, Any] = {"dtype": s.dtype, "device": s.device, "batch_tokens": self.recipe.features.batch_tokens}
        note = f"{tuned.facts['steps']} steps of {settings.batch_size} pairs"
        model: Callable[..., Scorer | PairScorer] = partial(SequenceHead, max_tokens=s.max_tokens)
        if objective == "pairwise":
            note += "; both orders averaged"
            model = partial(PairwiseModel, label=label, max_tokens=max(s.max_tokens, settings.max_tokens or 0))
        folder = str(tuned.folder / "model")
        found = self._stage(name, {"model": tuned.key}, lambda: self._asked(name, model(name, folder, **how)))
        return self._contender(found, name, label, objective, "trained", note=note, training=training_costs(tuned))

    def judge(self, settings: JudgeSettings) -> Contender:
        """A language model as judge; one that can't be asked at all is left out with the reason."""
        backbone = settings.model or settings.local or ""
        try:
            judge = self._judge_of(settings)
            found = self._stage(settings.name, {"judge": judge.fingerprint}, lambda: self._asked(settings.name, judge))
        except StorageError:
            raise
        except ArmormError as error:
            self.reporter.warn(f"{settings.name} is left out: {error}")
            return Contender(settings.name, settings.name, "judge", backbone, skipped=str(error))
        if (found.facts["usage"] or {}).get("failed"):
            forget_stage(found.folder)  # what failed is asked again next time
            self.reporter.warn(
                f"{settings.name}: {found.facts['usage']['failed']} requests failed; the next call asks them again"
            )
        return self._contender(found, settings.name, judge.label, "judge", backbone)

    def _judge_of(self, settings: JudgeSettings) -> PairwiseJudge | PointwiseJudge | PairwiseModel:
        if settings.local is None or settings.verdict == "reply":
            return judge_of(settings, self.folder / "replies")
        return PairwiseModel(
            settings.name,
            settings.local,
            label=f"{settings.local} as judge (log-probabilities)",
            dtype=settings.dtype,
            device=settings.device,
            batch_tokens=settings.batch_tokens,
            max_tokens=2 * self.recipe.backbone.max_tokens,
        )

    def _stage(self, name: str, inputs: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> Stage[None]:
        asked = key_of({n: [repr((i.id, i.context, i.chosen, i.rejected)) for i in items] for n, items in self.suites.items()})
        folder = self.folder / "methods" / folder_name(name)
        inputs = {**inputs, "items": asked, "seed": self.recipe.seed}
        return run_stage(folder, inputs, lambda _at: (None, compute()), read_nothing)

    def _asked(self, name: str, scorer: Scorer | PairScorer) -> dict[str, Any]:
        facts: dict[str, Any] = {"scores": {}, "scoring": {}, "position": {}}
        for suite, items in self.suites.items():
            kept = None if hasattr(scorer, "usage") else self._kept_at(name, suite)
            resumed = kept is not None and kept.exists()
            before, start = _spent(scorer), time.perf_counter()
            with self.reporter.bar(f"{name}: {suite}", len(items)) as advance:
                scores, compared = judge_items(items, scorer, kept=kept, progress=counting(advance, "items"))
            after, seconds = _spent(scorer), round(time.perf_counter() - start, 1)
            facts["scores"][suite] = [as_json(one) for one in scores]
            facts["scoring"][suite] = {
                # what an earlier, stopped run did is not in this one's clock
                "seconds": None if resumed or after["cached"] > before["cached"] else seconds,
                **{key: None if resumed else after[key] - before[key] for key in ("tokens_in", "tokens_out")},
                "answers": sum(len(item.answers) for item in items),
            }
            if compared is not None:
                groups = [item.group for item in items]
                facts["position"][suite] = position_bias(compared, groups, seed=self.recipe.seed).to_json()
        usage = getattr(scorer, "usage", None)
        return {**facts, "usage": None if usage is None else usage.to_json()}

    def _kept_at(self, name: str, suite: str) -> Path:
        return self.folder / "kept" / folder_name(name) / f"{folder_name(suite)}.jsonl"

    def _contender(self, found: Stage[None], name: str, label: str, family: str, backbone: str, **more: Any) -> Contender:
        scores = {suite: [as_scores(one) for one in rows] for suite, rows in found.facts["scores"].items()}
        facts: dict[str, Any] = {key: found.facts[key] or None for key in ("usage", "position")}
        return Contender(name, label, family, backbone, scores=scores, scoring=found.facts["scoring"], **facts, **more)


def _spent(scorer: Any) -> dict[str, int]:
    # Tokens read and written so far, and replies that were there before.
    usage = getattr(scorer, "usage", None)
    if usage is None:
        return {"tokens_in": scorer.tokens, "tokens_out": 0, "cached": 0}
    one, old = usage.tokens, usage.cached_tokens
    return {"tokens_in": one.read + old.read, "tokens_out": one.written + old.written, "cached": usage.from_cache}
