"""The paper's Table 1 on one's own backbone and data: `armorm compare`.

In: a recipe with a `compare` part, a run's folder.  Out: results.json, compare.md, compare.tex, compare.svg, report.html in its
`compare/`.  Cost: the run, the decoders that are trained, and a forward pass per answer or two per pair for what reads texts.
Every step is kept: a second call computes only what changed, a stopped one goes on. The table is on disk while the comparison
runs, with what is there by then.

    run → methods on its features → ablations → trained decoders → the method on those → judges → the table
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from armorm.bench.aggregate import figures, paired
from armorm.bench.outcomes import Outcomes
from armorm.bench.published import published
from armorm.bench.run import Scores
from armorm.compare.ablations import fit_without_masking, load_without_masking, rival_methods
from armorm.compare.contenders import FAMILIES, Arena, Contender, Suites, from_features, training_costs
from armorm.data.benchmarks.registry import benchmark
from armorm.data.rows import BenchmarkItem
from armorm.disk import folder_name, passing_folder
from armorm.errors import RecipeError
from armorm.fit.quality import mean_quality
from armorm.judge_settings import JudgeSettings
from armorm.owner import owning_folder
from armorm.progress import Reporter
from armorm.recipe import Recipe, Suite
from armorm.report.compare_page import FILES, write_compare
from armorm.report.compare_results import CompareResults
from armorm.report.provenance import provenance
from armorm.run.extraction import LazyBackbone
from armorm.run.methods import MAIN, RIVAL, Graded
from armorm.run.probe_stage import predict_test
from armorm.run.rows import read_rows
from armorm.run.stages import Stage, run_stage
from armorm.run.train import ROWS, Training
from armorm.run.tune import tune
from armorm.sums import require_ours
from armorm.tuning_settings import TrainingObjective

FORMAT = 1
EVERY_SECONDS = 20.0
"""The table so far is written when a step ends and the last writing is so long ago."""
FROZEN = "frozen"
TRAINED_RIVAL = "bradley-terry-trained"
TRAINED: dict[TrainingObjective, tuple[str, str]] = {
    "bradley-terry": (TRAINED_RIVAL, "Bradley–Terry, decoder trained"),
    "pairwise": ("pairwise", "pairwise preference model"),
}
BACKBONES: dict[TrainingObjective | None, str] = {
    None: "frozen, same rows",
    "bradley-terry": "Bradley–Terry-initialised",
    "regression": "trained by eq. (1)",
}
ON_TRAINED = (MAIN, RIVAL, "armorm-no-gate", "fitted-weights")
"""What is shown of the run on a trained decoder, beside the same on the frozen one with the same rows."""


def compare(recipe: Recipe, out: Path, *, features: Path | None = None, reporter: Reporter | None = None) -> CompareResults:
    """Every method on the same items; writes the table in all its forms into `out`/compare and returns its content.

    `out` is the run's folder, `features` where its features are kept. Raises RecipeError for a recipe without suites, and what
    the run, the training and the judges raise. A judge that can't be asked is left out, with the reason in the table.
    """
    if not recipe.bench:
        raise RecipeError("bench: missing; a comparison needs at least one suite to compare on")
    own = {*FAMILIES, TRAINED_RIVAL, *(name for name, _ in TRAINED.values()), "fitted-weights"}
    taken = {folder_name(name).casefold() for name in own | {f"fixed-{w.name}" for w in recipe.compare.fixed_weights}}
    if clash := [j.name for j in recipe.compare.judges if folder_name(j.name).casefold() in taken]:
        raise RecipeError(f"compare.judges: {', '.join(clash)}: another method of the table is called so: give it another name")
    require_ours(out / "compare", FILES)
    with owning_folder(out), passing_folder(out / ROWS) as rows:
        return _Comparison(recipe, out, features or out / "features", rows, reporter or Reporter()).run()


class _Comparison:
    def __init__(self, recipe: Recipe, out: Path, features: Path, rows: Path | None, reporter: Reporter) -> None:
        self.recipe, self.out, self.reporter = recipe, out, reporter
        self.at = out / "compare"
        reporter.say("reading rows")
        renderer = LazyBackbone(recipe.backbone, [], reporter.say).renderer
        self.rows = read_rows(recipe, recipe.load_objectives(), reporter, renderer=renderer, folder=rows)
        self.main = Training(recipe, out, features, reporter, rows=self.rows)
        self.variants: dict[str, Training] = {}  # stages 1 to 3 again, by backbone

    def run(self) -> CompareResults:
        start = written = time.perf_counter()
        self.main.run()
        found, steps = list[Contender](), list(self._steps())
        for place, (_, contenders) in enumerate(steps, start=1):
            found += contenders()
            if steps[place:] and time.perf_counter() - written > EVERY_SECONDS:
                self._write(found, start, missing=[name for name, _ in steps[place:]])
                written = time.perf_counter()
        return self._write(found, start)

    def _write(self, found: Sequence[Contender], start: float, missing: Sequence[str] = ()) -> CompareResults:
        results = self._results(found, missing, start)
        write_compare(results, self.at)
        return results.model_copy(update={"folder": str(self.at)})

    # -- the contenders, in order --------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[str, Callable[[], list[Contender]]]]:
        """What is computed and kept as one, by name."""
        settings, how = self.recipe.compare, "adapters" if self.recipe.tuning.lora else "all weights"
        yield "methods on stored features", self._on_features
        for objective in settings.train:
            if objective in TRAINED:
                name, label = TRAINED[objective]
                yield name, partial(self._trained, objective, name, f"{label} ({how})")
        decoders = [o for o in settings.train if o in BACKBONES]
        for decoder in [None, *decoders] if decoders else []:
            yield f"stages 1 to 3, {BACKBONES[decoder]}", partial(self._on_decoder, decoder)
        for judge in settings.judges:
            yield judge.name, partial(self._judged, judge)

    def _on_features(self) -> list[Contender]:
        """What the run compares anyway, weights that no prompt changes, and the probe without masking."""
        main, at, fixed = self.main, self.at / "not-masked", self.recipe.compare.fixed_weights
        stores, feature = main.stores, main.probe.value.feature
        fit = partial(fit_without_masking, main.context, stores.ratings, main.pairs, feature=feature, padded=stores.padded)
        stage = run_stage(at, {"gate": main.gates.key}, fit, load_without_masking)
        rivals = rival_methods(main.probe.value, main.pairs, fixed=fixed, unmasked=[stage.value])
        return [from_features(main, m, self.suites, FROZEN, whole=self.whole) for m in (*main.methods, *rivals)]

    def _trained(self, objective: TrainingObjective, name: str, label: str) -> list[Contender]:
        """A rival whose decoder is trained."""
        return [self.arena.trained(objective, name, label, self._tuned(objective))]

    def _judged(self, judge: JudgeSettings) -> list[Contender]:
        return [self.arena.judge(judge)]

    def _on_decoder(self, objective: TrainingObjective | None) -> list[Contender]:
        """Stages 1 to 3 on a decoder that was trained, or (None) on the frozen one, all on the same rows."""
        name, model, before = objective or "frozen", self.recipe.backbone.model, None
        if objective is not None:
            tuned = self._tuned(objective)
            model, before = str(tuned.folder / "model"), training_costs(tuned)
        training = self._again(name, model)
        self.variants[BACKBONES[objective]] = training
        rivals = rival_methods(training.probe.value, training.pairs)
        return [
            from_features(training, method, self.suites, BACKBONES[objective], variant=name, before=before)
            for method in (*training.methods, *rivals)
            if method.scorer.name in ON_TRAINED
        ]

    # -- what they are made of -----------------------------------------------------------------------------------------------

    @cached_property
    def suites(self) -> Suites:
        """The items that all methods are judged on."""
        rows, settings = self.rows, self.recipe.compare
        small = rows.capped(ratings=None, pairs=None, items=settings.items, seed=self.recipe.seed)
        return {name: tuple(items) for name, items in small.suites.items()}

    @cached_property
    def whole(self) -> Suites:
        """All items of the suites that are capped: methods on the run's own features judge them at no cost."""
        return {name: tuple(items) for name, items in self.rows.suites.items() if len(items) > len(self.suites[name])}

    @cached_property
    def arena(self) -> Arena:
        return Arena(self.recipe, self.suites, self.at, self.reporter)

    def _again(self, name: str, model: str) -> Training:
        settings = self.recipe.compare
        recipe = self.recipe.model_copy(
            update={
                "name": f"{self.recipe.name}: {name}",
                "backbone": self.recipe.backbone.model_copy(update={"model": model}),
                "features": settings.features or self.recipe.features,
                "examples": 0,
            }
        )
        caps = {"ratings": settings.rows.ratings, "pairs": settings.rows.pairs, "items": settings.items}
        rows = self.rows.capped(**caps, seed=self.recipe.seed)
        self.reporter.say(f"stages 1 to 3 on {model}")
        out = self.at / "decoders" / name
        training = Training(recipe, out, out / "features", self.reporter, rows=rows)
        training.run()
        return training

    def _tuned(self, objective: TrainingObjective) -> Stage[None]:
        folder = self.out / "tuned" / objective
        return tune(self.recipe, objective, folder, rows=self.rows, reporter=self.reporter)

    # -- the table -----------------------------------------------------------------------------------------------------------

    def _results(self, found: Sequence[Contender], missing: Sequence[str], start: float) -> CompareResults:
        names = {c.method for c in found if not c.skipped}
        references = [name for name in (RIVAL, TRAINED_RIVAL) if name in names]
        return CompareResults.model_validate(
            {
                "format": FORMAT,
                **provenance(),
                "name": self.recipe.name,
                "seed": self.recipe.seed,
                "backbone": {"model": self.recipe.backbone.model, "dtype": self.recipe.backbone.dtype},
                "references": references,
                "suites": [table for suite in self.recipe.bench for table in self._tables(suite, found, references)],
                "methods": found,
                "probes": self._probes(),
                "notes": [*([f"Not computed yet: {', '.join(missing)}."] if missing else []), *self._notes()],
                "seconds": round(time.perf_counter() - start, 1),
            }
        )

    def _tables(self, suite: Suite, found: Sequence[Contender], references: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The suite's table; where its items are capped, one more of all of them, with the methods that scored those."""
        name, title = suite.name, benchmark(suite.benchmark).title if suite.benchmark else suite.name
        scores = {c.method: c.scores[name] for c in found if not c.skipped}
        yield {"name": name, "title": title} | self._table(suite, self.suites[name], scores, references)
        if name in self.whole:
            scores = {c.method: c.whole[name] for c in found if name in c.whole}
            known = [r for r in references if r in scores]
            yield {"name": f"{name}: all", "title": title, "whole": True} | self._table(suite, self.whole[name], scores, known)

    def _table(
        self, suite: Suite, items: Sequence[BenchmarkItem], scores: Mapping[str, Sequence[Scores]], references: Sequence[str]
    ) -> dict[str, Any]:
        seed, graded = self.recipe.seed, Graded.by(suite, items)
        official = graded.aggregates[0]
        worth = {method: graded.outcomes(found) for method, found in scores.items()}
        aggregates = {name: figures(one, [official], seed=seed).official for name, one in worth.items()}

        def row(name: str, one: Outcomes) -> dict[str, Any]:
            tests = {r: None if r == name else paired(one, worth[r], official, seed=seed) for r in references}
            own = aggregates[name]
            return {"method": name, "overall": own.overall, "sections": own.sections, "versus": tests}

        return {
            "rule": graded.rule.value,
            "n": len(items),
            "of": len(self.rows.suites[suite.name]),
            "groups": len({item.group for item in items}),
            "sections": list(dict.fromkeys(section for own in aggregates.values() for section in own.sections)),
            "missing": next((own.missing for own in aggregates.values()), ()),
            "methods": [row(name, one) for name, one in worth.items()],
            "published": published(suite.benchmark or "rewardbench-prior"),
        }

    def _probes(self) -> list[dict[str, Any]]:
        """Held-out quality of the probe on each decoder that was tried on the same rows; of the run's own where none was."""
        runs = list(self.variants.items()) or [(FROZEN, self.main)]
        tested = [predict_test(t.context, t.stores.ratings, t.probe.value.probe, t.probe.value.feature) for _, t in runs]
        first, seed = tested[0], self.recipe.seed
        means = mean_quality([t.rewards for t in tested], first.raw, self.main.objectives, first.groups, seed=seed)
        rows = []
        for place, ((backbone, training), mean) in enumerate(zip(runs, means, strict=True)):
            facts = training.probe.facts
            quality = {key: {o["name"]: o[key] for o in facts["objectives"]} for key in ("pearson", "n")}
            gain = mean.gain if place else None
            rows.append({"backbone": backbone, "feature": facts["feature"], **quality, "mean": mean.pearson, "gain": gain})
        return rows

    def _notes(self) -> list[str]:
        settings, rows = self.recipe.compare, self.rows
        found = [
            f"All methods are judged on the same items of each suite{f', at most {settings.items}' if settings.items else ''}; "
            "intervals and tests draw whole prompts."
        ]
        trained = [o for o in settings.train if o in BACKBONES]
        if trained and (settings.rows.ratings or settings.rows.pairs):
            small = rows.capped(ratings=settings.rows.ratings, pairs=settings.rows.pairs, items=None, seed=self.recipe.seed)
            n = [sum(map(len, kind.values())) for kind in (rows.ratings, rows.pairs, small.ratings, small.pairs)]
            found.append(
                f"Stages 1 to 3 on trained decoders, and on the frozen one beside them, saw {n[2]:,} rated answers and {n[3]:,} "
                f"pairs; the other rows saw {n[0]:,} and {n[1]:,}. The decoders themselves were trained on the training side of "
                "the latter, for as many steps as the table of costs says."
            )
        if self.whole:
            found.append("Tables of all items hold the methods on the run's own features, to which more items cost nothing.")
        if any(s.benchmark is None for s in self.recipe.bench):
            found.append("The published rows are the paper's Table 1, on the whole of RewardBench and other backbones.")
        return found
