"""From a recipe to a reward model: the stages in order. This file is the table of contents.

In: a recipe, a folder.  Out: `Run`: the folder filled, and its results.  Cost: the features; everything after is cheap.

    rows → features → probe → uncertainty → debias → gate → model → bench → report

Each stage is keyed by what went into it: a second run does only what changed, a killed one goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from armorm import __version__
from armorm.data.rows import PreferencePair
from armorm.data.splits import Split
from armorm.data.summary import SourceFacts, summarise
from armorm.errors import StorageError
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.parts import load_debias, load_probe, save_debias
from armorm.objectives import Objectives
from armorm.progress import Reporter
from armorm.recipe import STARTER, Recipe
from armorm.report.provenance import provenance
from armorm.report.run_page import write_run
from armorm.report.run_results import RunResults
from armorm.results import read_result
from armorm.rivals.bradley_terry import BradleyTerry, load_bradley_terry, save_bradley_terry
from armorm.run import fitting
from armorm.run.coverage import abstention_facts, uncertainty_stage
from armorm.run.examples import examples
from armorm.run.extraction import LazyBackbone, Stores, extract_all
from armorm.run.fitting import PairArrays, PairStores, RatingStores, pair_arrays
from armorm.run.methods import Graded, Judged, Method, judge, methods
from armorm.run.percentiles import reference_of
from armorm.run.planted import planted_table
from armorm.run.rows import Rows, read_rows
from armorm.run.stages import Stage, run_stage
from armorm.scoring.uncertainty import Uncertainty

HELD_OUT = "held-out pairs"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the results (what results.json holds), the page, and the stages that had to be computed."""

    folder: Path
    results: RunResults
    report: Path
    computed: tuple[str, ...]


def train(recipe: Recipe, out: Path, *, features: Path | None = None, reporter: Reporter | None = None) -> Run:
    """Run all stages into `out`.

    `features` is where features are kept (default: inside `out`), so that several runs can share them. Raises what the
    stages raise: DataError, BackboneError, FitError, StorageError.
    """
    return Training(recipe, out, features or out / "features", reporter or Reporter()).run()


class Training:
    """A run and what it leaves in memory: rows, stores, arrays, methods. `rows` are the recipe's, where they are read already."""

    def __init__(self, recipe: Recipe, out: Path, features: Path, reporter: Reporter, *, rows: Rows | None = None) -> None:
        self.recipe, self.out, self.reporter, self.features = recipe, out, reporter, features
        self.given = rows
        self.objectives: Objectives = recipe.load_objectives()
        response, prompt = recipe.features.parts
        self.backbone = LazyBackbone(recipe.backbone, [*response, *prompt], reporter.say)
        self.done: list[Stage] = []

    def run(self) -> Run:
        """All stages; what is there already is found."""
        self._write_recipe()
        if self.given is None:
            self.reporter.say("reading rows")
        self.rows: Rows = self.given or read_rows(self.recipe, self.objectives, self.reporter)
        self.stores: Stores = extract_all(self.recipe, self.rows, self.features, self.backbone, self.reporter)
        probe = self._stage("probe", {"ratings": self._keys("ratings"), **self._settings("probe", "features")}, self._probe)
        uncertainty = self._stage("uncertainty", {"probe": probe.key}, self._uncertainty)
        debias = self._stage(
            "debias", {"probe": probe.key, "pairs": self._keys("pairs"), **self._settings("debias")}, self._debias
        )
        gate = self._stage("gate", {"debias": debias.key, **self._settings("gate")}, self._gate)
        fitted = {"gate": gate.key, "uncertainty": uncertainty.key}
        model = self._stage("model", {**fitted, "backbone": self.backbone.fingerprint}, self._model)
        bench = self._stage(
            "bench", {**fitted, "suites": self._keys("suites"), **self._settings("bench", "examples")}, self._bench
        )
        facts = {s.folder.name: s.facts for s in (probe, uncertainty, debias, gate, bench)}
        report = self._stage(
            "report", {"model": model.key, "bench": bench.key, "facts": facts}, lambda at: self._report(at, facts)
        )
        results = read_result(RunResults, report.folder / "results.json")
        return Run(self.out, results, report.folder / "report.html", tuple(s.folder.name for s in self.done if s.fresh))

    # -- the stages, in order ------------------------------------------------------------------------------------------------

    def _probe(self, at: Path) -> dict[str, Any]:
        return fitting.fit_probe_stage(at, self.recipe, self.objectives, self.ratings, self.reporter)

    def _uncertainty(self, at: Path) -> dict[str, Any]:
        return uncertainty_stage(at, self.recipe, self.out / "probe", self.objectives, self.ratings, self.reporter)

    def _debias(self, at: Path) -> dict[str, Any]:
        return fitting.fit_debias_stage(at, self.recipe, self.out / "probe", self.ratings, self.pairs, self.reporter)

    def _gate(self, at: Path) -> dict[str, Any]:
        """Two gates: on debiased rewards, and (for the ablation) on raw ones."""
        debias, probe = load_debias(self.out / "debias"), self.out / "probe"
        facts = fitting.fit_gate_stage(at, self.recipe, probe, debias, self.pairs, self.reporter)
        none = Debias.identity(self.objectives)
        save_debias(at / "not-debiased", none)
        raw = fitting.fit_gate_stage(at / "not-debiased", self.recipe, probe, none, self.pairs, self.reporter)
        return {**facts, "single": raw["single"]}

    def _model(self, at: Path) -> dict[str, Any]:
        from armorm.model.reward_model import RewardModel

        probe, feature = load_probe(self.out / "probe")
        debias, gate = load_debias(self.out / "debias"), fitting.load_gates(self.out / "gate")["gate"]
        backbone, renderer = self.backbone.loaded
        response, prompt = FeatureSpec.parse(feature), self.recipe.features.prompt_spec
        model = RewardModel.assemble(backbone, renderer, probe, debias, gate, response=response, prompt=prompt)
        model.uncertainty = Uncertainty.load(self.out / "uncertainty", self.objectives)
        model.reference = reference_of(self.recipe, probe, feature, debias, gate, self.pairs, self.rows)
        model.save_pretrained(at)
        return {"parameters": sum(p.numel() for p in model.parameters())}

    def _bench(self, at: Path) -> dict[str, Any]:
        """Every method on the held-out pairs and on the recipe's suites."""
        probe, feature = load_probe(self.out / "probe")
        debias, gates = load_debias(self.out / "debias"), fitting.load_gates(self.out / "gate")
        rival = fitting.fit_bradley_terry_stage(self.pairs)
        save_bradley_terry(at, rival)
        tried = self._methods(rival)
        suites, lengths, judged = [], [], {}
        for name, pairs in self.suites.items():
            judged[name], table, length = judge(name, self._graded(name, pairs), pairs, tried, seed=self.recipe.seed)
            suites.append(table)
            lengths += length
        gate_by = {
            f"{name}: {s}": w
            for name, p in self.suites.items()
            for s, w in fitting.gate_by(gates["gate"], p.sections, p.prompts).items()
        }
        uncertainty = Uncertainty.load(self.out / "uncertainty", self.objectives)
        assert uncertainty is not None  # its stage came before
        return {
            "suites": suites,
            "length": lengths,
            "abstention": abstention_facts(
                uncertainty, probe, feature, debias, gates["gate"], self.suites, seed=self.recipe.seed
            ),
            "gate_by_section": gate_by,
            "bradley_terry": {"feature": rival.feature, "strength": rival.strength},
            "planted": self._planted(suites),
            "examples": self._examples(judged),
        }

    def _report(self, at: Path, facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
        bench = facts["bench"]
        results = RunResults.model_validate(
            {
                "format": 1,
                **provenance(),
                "name": self.recipe.name,
                "seconds": {"features": self.stores.to_json()["seconds"]} | {s.folder.name: s.seconds for s in self.done},
                "backbone": self._backbone_facts(),
                "data": summarise(self._source_facts(), self.objectives, self.rows.splits(self.recipe)),
                "faults": list(self.rows.faults),
                "probe": {**facts["probe"], "uncertainty": facts["uncertainty"]},
                "debias": facts["debias"] if facts["debias"]["nuisances"] else None,
                "gate": facts["gate"],
                **bench,
                "warnings": [*facts["probe"]["warnings"], *facts["debias"]["warnings"]],
            }
        )
        write_run(results, at)
        return {}

    # -- what the stages left ------------------------------------------------------------------------------------------------

    @property
    def methods(self) -> list[Method]:
        """The method, its ablations and its rivals, after `run`."""
        rival = load_bradley_terry(self.out / "bench")
        assert rival is not None  # its stage came before
        return self._methods(rival)

    def _methods(self, rival: BradleyTerry) -> list[Method]:
        probe, feature = load_probe(self.out / "probe")
        debias, gates = load_debias(self.out / "debias"), fitting.load_gates(self.out / "gate")
        raw = fitting.load_gates(self.out / "gate" / "not-debiased")
        return methods(probe, feature, debias, gates, raw, self._facts("gate")["single"], rival)

    # -- what the stages read ------------------------------------------------------------------------------------------------

    @cached_property
    def ratings(self) -> RatingStores:
        return {n: (self.stores.ratings[n], rows) for n, rows in self.rows.ratings.items()}

    @cached_property
    def pairs(self) -> PairArrays:
        return self._arrays({n: (self.stores.pairs[n], rows) for n, rows in self.rows.pairs.items()})

    @cached_property
    def suites(self) -> dict[str, PairArrays]:
        """The test split of the training pairs, and every suite of the recipe."""
        held_out = self.pairs.take(self.pairs.at(Split.TEST))
        found = {HELD_OUT: held_out} if len(held_out) else {}
        return found | {n: self._arrays({n: (self.stores.suites[n], rows)}) for n, rows in self.rows.suite_pairs.items()}

    def _graded(self, name: str, pairs: PairArrays) -> Graded:
        suite = next((s for s in self.recipe.bench if s.name == name), None)
        return Graded.of_pairs(pairs) if suite is None else Graded.by(suite, self.rows.suites[name])

    def _arrays(self, stores: PairStores) -> PairArrays:
        return pair_arrays(self.recipe, stores)

    # -- small change --------------------------------------------------------------------------------------------------------

    def _stage(self, name: str, inputs: dict[str, Any], compute: Any) -> Stage:
        splits = self.recipe.splits.model_dump()
        common = {"armorm": __version__, "objectives": self.objectives.to_json(), "seed": self.recipe.seed, "splits": splits}
        stage = run_stage(self.out / name, {**common, **inputs}, compute)
        self.reporter.say(f"{name}: {f'{stage.seconds:.1f} s' if stage.fresh else 'as before'}")
        self.done.append(stage)
        return stage

    def _keys(self, kind: str) -> dict[str, str]:
        return {name: stored.folder.name for name, stored in getattr(self.stores, kind).items()}

    def _settings(self, *names: str) -> dict[str, Any]:
        whole = self.recipe.model_dump(mode="json")
        return {name: whole[name] for name in names}

    def _facts(self, name: str) -> dict[str, Any]:
        return next(s.facts for s in self.done if s.folder.name == name)

    def _planted(self, suites: list[dict[str, Any]]) -> dict[str, Any] | None:
        if self.recipe.objectives != STARTER:
            return None
        from armorm.data.starter import build

        probe, feature = load_probe(self.out / "probe")
        off = fitting.permuted_probe(self.recipe, self.objectives, self.ratings, probe, feature)
        test, permuted = (fitting.test_predictions(self.recipe, self.objectives, self.ratings, p, feature) for p in (probe, off))
        debias, gates = load_debias(self.out / "debias"), fitting.load_gates(self.out / "gate")
        held_out, truth = self.suites[HELD_OUT], build(self.recipe.seed).truth
        return planted_table(truth, probe, debias, gates, test, permuted, self._facts("debias"), suites[0], held_out)

    def _examples(self, judged: dict[str, Judged]) -> list[dict[str, Any]]:
        probe, feature = load_probe(self.out / "probe")
        by_id = {r.id: r for rows in (*self.rows.pairs.values(), *self.rows.suite_pairs.values()) for r in rows}
        name = list(judged)[-1] if judged else None
        if name is None or not self.recipe.examples:
            return []
        debias, gate = load_debias(self.out / "debias"), fitting.load_gates(self.out / "gate")["gate"]
        found: dict[str, PreferencePair] = by_id
        return examples(judged[name], found, probe, feature, debias, gate, count=self.recipe.examples)

    def _source_facts(self) -> list[SourceFacts]:
        stores = {"ratings": self.stores.ratings, "pairs": self.stores.pairs, "bench": self.stores.suites}
        return [replace(f, truncated=stores[f.kind][f.name].manifest["truncated"]) for f in self.rows.facts]

    def _backbone_facts(self) -> dict[str, Any]:
        manifest = self.stores.all[0].manifest["backbone"]
        return {
            "model": self.recipe.backbone.model,
            "dtype": self.recipe.backbone.dtype,
            "layers": self._depth(),
            "width": manifest["width"],
            **self.stores.to_json(),
        }

    def _depth(self) -> int | str:
        layers = {p.layer for parts in self.recipe.features.parts for p in parts}
        return "all" if "final" in layers else int(np.max([int(x) for x in layers]))

    def _write_recipe(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "recipe.yaml").write_text(self.recipe.to_yaml(), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{self.out}: can't be written: {error.strerror}; choose another --out") from error
