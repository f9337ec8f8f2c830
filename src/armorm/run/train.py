"""From a recipe to a reward model: the stages in order. This file is the table of contents.

In: a recipe, a folder.  Out: `Run`: the folder filled, and its results.  Cost: the features; everything after is cheap.

    rows → features → probe → uncertainty → debias → gate → preference → model → bench → report

Each stage is keyed by what went into it: a second run does only what changed, a killed one goes on where it was. A stage hands
its value on to the next ones; one that is found finished is read once. No row's text stays in memory behind the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from armorm import __version__
from armorm.data.splits import Split
from armorm.data.summary import summarise
from armorm.disk import digest_of, passing_folder, write_marked
from armorm.errors import CheckpointError
from armorm.features.backbone import device_of
from armorm.features.spec import FINAL
from armorm.fit.debias import Debias
from armorm.fit.gate_training import device_of as gate_device_of
from armorm.fit.method import Fitted
from armorm.fit.parts import load_debias, load_preference
from armorm.fit.preference import Preference
from armorm.objectives import Objectives
from armorm.owner import owning_folder
from armorm.progress import Reporter
from armorm.recipe import HELD_OUT, PREFERRED, STARTER, UNSEEN, Recipe
from armorm.report.provenance import provenance
from armorm.report.run_page import write_run
from armorm.report.run_results import RunResults
from armorm.results import read_result
from armorm.rivals.bradley_terry import BradleyTerry, load_bradley_terry, save_bradley_terry
from armorm.run.context import RunContext
from armorm.run.coverage import uncertainty_stage
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.examples import examples, reference_of
from armorm.run.extraction import LazyBackbone, Stores, extract_all
from armorm.run.gate_stage import Gates, average_weights, fit_gate_stage
from armorm.run.methods import Graded, Judged, Method, fit_bradley_terry_stage, judge_suite, methods, over_sections
from armorm.run.pairs import PairArrays, SuiteArrays, pair_arrays, prompts_elsewhere
from armorm.run.planted import Evidence, planted_table
from armorm.run.preference_stage import confidence_facts, fit_preference_stage, measured
from armorm.run.preferred_stage import fit_preferred_stage, without_errors
from armorm.run.probe_stage import FittedProbe, fit_permuted_probe, fit_probe_stage, predict_test
from armorm.run.rows import Rows, read_rows
from armorm.run.stages import FILE as STAGE
from armorm.run.stages import Stage, read_nothing, require_stage_folder, run_stage
from armorm.run.unseen import judge_unseen
from armorm.scoring.uncertainty import Uncertainty
from armorm.sums import NAME as SUMS
from armorm.sums import UNFINISHED, read_own_list, read_sums, save_sums

RECIPE = "recipe.yaml"
ROWS = "rows"
"""Where rows are while they are extracted."""
STAGES = ("probe", "uncertainty", "debias", "gate", "preference", "model", "bench", "report")

STATISTICS = "statistics"
"""The folder of what `summing` keeps: a stage per source of ratings and feature candidate."""
Value = TypeVar("Value")
Facts = dict[str, Any]


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """The names of a run's stages behind the features, in order, which are their folders'."""
    return (*STAGES[:2], PREFERRED.name, *STAGES[2:]) if recipe.preferred else STAGES


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
    stages raise: DataError (also for a folder that holds something else, or that another process writes), BackboneError,
    FitError, CheckpointError, StorageError.
    """
    with owning_folder(out):
        return Training(recipe, out, features or out / "features", reporter or Reporter()).run()


@dataclass(frozen=True, eq=False)
class BothGates:
    """The gates on debiased rewards, and (for the ablation) those on raw ones."""

    debiased: Gates
    raw: Gates

    @classmethod
    def load(cls, folder: Path) -> BothGates:
        return cls(Gates.load(folder), Gates.load(folder / "not-debiased"))


class Training:
    """A run, and what it leaves in memory: stores, stages with their values, pairs and suites without their texts.

    `rows` are the recipe's, where they are read already.
    """

    stores: Stores
    probe: Stage[FittedProbe]
    rewards: Stage[FittedProbe]
    uncertainty: Stage[Uncertainty]
    debias: Stage[Debias]
    gates: Stage[BothGates]
    preference: Stage[Preference | None]
    rival: Stage[BradleyTerry]

    def __init__(self, recipe: Recipe, out: Path, features: Path, reporter: Reporter, *, rows: Rows | None = None) -> None:
        self.recipe, self.out, self.features = recipe, out, features
        self.context = RunContext(recipe, recipe.load_objectives(), reporter)
        response, prompt = recipe.features.parts
        self.backbone = LazyBackbone(recipe.backbone, [*response, *prompt], reporter.say)
        self._rows = rows
        self._seconds: dict[str, float] = {}
        self._computed: list[str] = []

    @property
    def objectives(self) -> Objectives:
        return self.context.objectives

    def run(self) -> Run:
        """All stages; what is there already is found."""
        self._begin()
        about = self._extract()
        inputs = {"ratings": self._keys("ratings"), **self._settings("probe", "features")}
        self.probe = self._stage("probe", inputs, self._fit_probe, lambda at: FittedProbe.load(at, self.recipe.probe.folds))
        self.uncertainty = self._stage("uncertainty", {"probe": self.probe.key}, self._calibrate, self._load_uncertainty)
        self.probe = replace(self.probe, value=replace(self.probe.value, statistics=None))
        self.rewards = self._learn_preferred() if self.recipe.preferred else self.probe
        inputs = {"probe": self.rewards.key, "pairs": self._keys("pairs"), **self._settings("debias")}
        inputs |= {} if self.stores.padded is None else {"padded": self.stores.padded.key}
        self.debias = self._stage("debias", inputs, self._debias, load_debias)
        inputs = {"debias": self.debias.key, **self._settings("gate"), **self._shares()}
        self.gates = self._stage("gate", inputs, self._fit_gates, BothGates.load)
        self.preference = self._stage("preference", {"gate": self.gates.key}, self._fit_preference, self._load_preference)
        fitted = {"gate": self.gates.key, "uncertainty": self.uncertainty.key, "preference": self.preference.key}
        model = self._stage("model", {**fitted, "backbone": self.backbone.fingerprint}, self._save_model, read_nothing)
        inputs = {**fitted, "suites": self._keys("suites"), **self._settings("bench", "examples", *self._unseen())}
        self.rival = self._stage("bench", inputs, self._bench, _load_rival)
        learnt = (self.rewards,) if self.recipe.preferred else ()
        stages = (self.probe, self.uncertainty, *learnt, self.debias, self.gates, self.preference, self.rival)
        facts = {stage.folder.name: stage.facts for stage in stages}
        inputs = {"model": model.key, "bench": self.rival.key, "facts": facts, "about": about, "name": self.recipe.name}
        report = self._stage("report", inputs, lambda at: self._report(at, facts, about), read_nothing)
        results = read_result(RunResults, report.folder / "results.json")
        self._finish()
        return Run(self.out, results, report.folder / "report.html", tuple(self._computed))

    def _begin(self) -> None:
        """Raises DataError, before anything is computed, where something else would be replaced; BackboneError or FitError for a
        device that is not here and that something has still to be computed on.

        The folder's list says of each file what it was until the whole is finished again; of a recipe that is another one now,
        that it is not finished.
        """
        known = read_own_list(self.out)
        for name in stages_of(self.recipe):
            require_stage_folder(self.out / name)
        if not self.features.exists():
            device_of(self.recipe.backbone.device)
        if not (self.out / "gate").exists():
            gate_device_of(self.recipe.gate.device)
        write_marked(self.out / RECIPE, self.recipe.to_yaml())
        if known.get(RECIPE, UNFINISHED) not in (UNFINISHED, digest_of(self.out / RECIPE)):
            save_sums(self.out, {**known, RECIPE: UNFINISHED})

    def _finish(self) -> None:
        """A list of the whole: the recipe, and the stages' and stores' own lists."""
        stores = [store.folder / "manifest.json" for store in self.stores.all if store.folder.is_relative_to(self.out)]
        lists = [self.out / RECIPE, *(self.out / name / SUMS for name in stages_of(self.recipe)), *stores]
        sums = {place.relative_to(self.out).as_posix(): digest_of(place) for place in lists}
        save_sums(self.out, sums | dict(self._lists_of_statistics()))

    def _lists_of_statistics(self) -> Iterator[tuple[str, str]]:
        # What this run had no need to read may be damaged: its line stays as it was, for `verify` to find.
        known, place = read_sums(self.out), self.out / STATISTICS
        there = {file.parent for name in (STAGE, SUMS) for file in place.rglob(name)}
        there |= {(self.out / name).parent for name in known if name.startswith(f"{STATISTICS}/")}
        for folder in sorted(folder for folder in there if folder.is_dir()):
            name = (folder / SUMS).relative_to(self.out).as_posix()
            with suppress(CheckpointError):
                if STAGE in read_sums(folder):
                    yield name, digest_of(folder / SUMS)
                    continue
            if name in known:
                yield name, known[name]

    # -- the stages, in order ------------------------------------------------------------------------------------------------

    def _extract(self) -> Facts:
        """Rows into the stores; what the report says of the rows, which are let go."""
        rows, self._rows = self._rows, None
        if rows is not None:
            return self._store(rows)
        self.context.reporter.say("reading rows")
        renderer, reporter = self.backbone.renderer, self.context.reporter
        with passing_folder(self.out / ROWS) as folder:
            return self._store(read_rows(self.recipe, self.objectives, reporter, renderer=renderer, folder=folder))

    def _store(self, rows: Rows) -> Facts:
        self.stores = extract_all(self.recipe, rows, self.features, self.backbone, self.context.reporter)
        kinds = {"ratings": self.stores.ratings, "pairs": self.stores.pairs, "bench": self.stores.suites}
        sources = [replace(f, truncated=kinds[f.kind][f.name].manifest["truncated"]) for f in rows.facts]
        return {"data": summarise(sources, self.objectives, rows.splits(self.recipe)), "faults": list(rows.faults)}

    def _fit_probe(self, at: Path) -> tuple[FittedProbe, Facts]:
        return fit_probe_stage(at, self.context, self.stores.ratings, statistics=self.out / STATISTICS)

    def _calibrate(self, at: Path) -> tuple[Uncertainty, Facts]:
        statistics = self.out / STATISTICS
        return uncertainty_stage(at, self.context, self.probe.value, self.stores.ratings, statistics=statistics)

    def _learn_preferred(self) -> Stage[FittedProbe]:
        """A probe with an objective more, which the stages behind it read."""
        inputs = {"probe": self.probe.key, "pairs": self._keys("pairs"), "weigh": self.recipe.gate.weigh, **self._shares()}
        given = self.context, self.probe.value, self.pairs
        return self._stage(
            PREFERRED.name,
            inputs,
            lambda at: fit_preferred_stage(at, *given),
            lambda at: FittedProbe.load(at, self.recipe.probe.folds),
        )

    def _debias(self, at: Path) -> tuple[Debias, Facts]:
        stores = self.stores
        return fit_debias_stage(at, self.context, self.rewards.value, stores.ratings, self.pairs.natural, padded=stores.padded)

    def _fit_gates(self, at: Path) -> tuple[BothGates, Facts]:
        """Two gates: on debiased rewards, and (for the ablation) on raw ones."""
        given = self.context, self.rewards.value
        elsewhere = prompts_elsewhere(self.context, self.stores.ratings, self.pairs)
        debiased, facts = fit_gate_stage(at, *given, self.debias.value, self.pairs, elsewhere=elsewhere)
        none = Debias.identity(self.rewards.value.probe.objectives)
        raw, _ = fit_gate_stage(at / "not-debiased", *given, none, self.pairs, elsewhere=elsewhere, kl=facts.get("kl"))
        return BothGates(debiased, raw), {**facts, "single": raw.best_objective}

    def _fit_preference(self, at: Path) -> tuple[Preference | None, Facts]:
        return fit_preference_stage(at, self.rewards.value, self.debias.value, self.gates.value.debiased.gate, self.pairs.natural)

    def _save_model(self, at: Path) -> tuple[None, Facts]:
        from armorm.model.layouts.own import assemble

        fitted, (backbone, renderer) = self.fitted, self.backbone.load()
        model = assemble(backbone, renderer, fitted, prompt=self.recipe.features.prompt_spec)
        model.uncertainty = without_errors(self.uncertainty.value) if self.recipe.preferred else self.uncertainty.value
        model.preference = self.preference.value
        natural = self.pairs.natural
        model.config.measured = measured(fitted, natural.take(natural.at(Split.TEST)), self.probe.facts["objectives"])
        model.reference = reference_of(fitted, natural, seed=self.recipe.seed)
        model.save_pretrained(at)
        return None, {"parameters": sum(p.numel() for p in model.parameters())}

    def _bench(self, at: Path) -> tuple[BradleyTerry, Facts]:
        """Every method on the held-out pairs and on the recipe's suites."""
        candidates = [str(spec) for spec in self.recipe.features.candidates]
        rival = fit_bradley_terry_stage(self.pairs, candidates, weigh=self.recipe.gate.weigh, shares=self.recipe.pair_shares)
        save_bradley_terry(at, rival)
        tried, seed, gate = self._methods(rival), self.recipe.seed, self.fitted.gate
        settings = {suite.name: suite for suite in self.recipe.bench}
        found = {
            name: judge_suite(name, Graded.by(settings.get(name), suite.items), suite, tried, seed=seed)
            for name, suite in self.suites.items()
        }
        everywhere = self._judge_everywhere(at, found, tried) if self._unseen() else {}
        tables = [one.table for one in found.values()]
        pairs = {name: suite.pairs for name, suite in self.suites.items()}
        return rival, {
            "suites": tables,
            **everywhere,
            "length": [row for one in found.values() for row in one.lengths],
            **confidence_facts(self.preference.value, self.fitted, pairs, seed=seed),
            "gate_by_section": {
                f"{name}: {section}": weights
                for name, suite in self.suites.items()
                for section, weights in average_weights(gate, [i.section or name for i in suite.items], suite.prompts).items()
            },
            "bradley_terry": {"feature": rival.feature, "strength": rival.strength},
            "planted": self._planted(tables),
            "examples": examples(self.fitted, list(pairs.values())[-1], count=self.recipe.examples) if pairs else [],
        }

    def _judge_everywhere(self, at: Path, found: dict[str, Judged], tried: Sequence[Method]) -> Facts:
        """The sources that can be left out as a suite more in `found`, and all methods over all sections."""
        unseen = judge_unseen(at, self.context, self.probe.value, self.debias.value, self.pairs, self.stores)
        if unseen.judged is not None:
            found[UNSEEN] = unseen.judged
        return {"all_sections": over_sections(found, tried, seed=self.recipe.seed), "warnings": list(unseen.warnings)}

    def _report(self, at: Path, facts: Mapping[str, Facts], about: Facts) -> tuple[None, Facts]:
        results = RunResults.model_validate(
            {
                "format": 1,
                **provenance(),
                "name": self.recipe.name,
                "seconds": {"features": self.stores.to_json()["seconds"], **self._seconds},
                "backbone": self._backbone_facts(),
                **about,
                "probe": {**facts["probe"], "uncertainty": facts["uncertainty"]},
                "debias": facts["debias"] if facts["debias"]["nuisances"] else None,
                "preferred": facts.get(PREFERRED.name),
                "gate": facts["gate"],
                "preference": facts["preference"],
                **facts["bench"],
                "warnings": [line for stage in facts.values() for line in stage.get("warnings", ())],
            }
        )
        write_run(results, at)
        return None, {}

    # -- what the stages left ------------------------------------------------------------------------------------------------

    @cached_property
    def fitted(self) -> Fitted:
        """The method, after its stages."""
        probe = self.rewards.value
        return Fitted(probe.probe, probe.feature, self.debias.value, self.gates.value.debiased.gate)

    @property
    def methods(self) -> list[Method]:
        """The method, its ablations and its rivals, after `run`."""
        return self._methods(self.rival.value)

    def _methods(self, rival: BradleyTerry) -> list[Method]:
        return methods(self.rewards.value, self.debias.value, self.gates.value.debiased, self.gates.value.raw, rival)

    # -- what the stages read ------------------------------------------------------------------------------------------------

    @cached_property
    def pairs(self) -> PairArrays:
        return pair_arrays(self.context, self.stores.pairs)

    @cached_property
    def suites(self) -> dict[str, SuiteArrays]:
        """The test split of the training pairs, and every suite of the recipe."""
        held_out = self.pairs.take(self.pairs.at(Split.TEST))
        found = {HELD_OUT: SuiteArrays.of_pairs(held_out)} if len(held_out) else {}
        return found | {n: SuiteArrays.of_store(self.context, n, store) for n, store in self.stores.suites.items()}

    # -- small change --------------------------------------------------------------------------------------------------------

    def _stage(
        self,
        name: str,
        inputs: Facts,
        compute: Callable[[Path], tuple[Value, Facts]],
        read: Callable[[Path], Value],
    ) -> Stage[Value]:
        splits = self.recipe.splits.model_dump()
        common = {"armorm": __version__, "objectives": self.objectives.to_json(), "seed": self.recipe.seed, "splits": splits}
        stage = run_stage(self.out / name, {**common, **inputs}, compute, read, self.context.reporter.alarm)
        self.context.reporter.say(f"{name}: {f'{stage.seconds:.1f} s' if stage.fresh else 'as before'}")
        self._seconds[name] = stage.seconds
        if stage.fresh:
            self._computed.append(name)
        return stage

    def _keys(self, kind: str) -> list[tuple[str, str]]:
        # In order: batches and tables follow it.
        return [(name, store.key) for name, store in getattr(self.stores, kind).items()]

    def _settings(self, *names: str) -> Facts:
        whole = self.recipe.model_dump(mode="json")
        del whole["gate"]["device"]  # decides speed and rounding
        whole["debias"], whole["features"] = self.recipe.debias.to_key(), self.recipe.features.to_key()
        return {name: whole[name] for name in names}

    def _shares(self) -> Facts:
        return {"shares": self.recipe.pair_shares} if self.recipe.pair_shares else {}

    def _unseen(self) -> tuple[str, ...]:
        # The setting's name where it is switched on: what is not asked for is no part of a key
        return ("unseen_sources",) if self.recipe.unseen_sources else ()

    def _load_uncertainty(self, at: Path) -> Uncertainty:
        return _there(Uncertainty.load(at, self.objectives), at / "uncertainty.json")

    def _load_preference(self, at: Path) -> Preference | None:
        return load_preference(at, self.rewards.value.probe.objectives)

    def _planted(self, tables: list[Facts]) -> Facts | None:
        if self.recipe.objectives != STARTER:
            return None
        from armorm.data.starter import build

        probe, ratings = self.probe.value, self.stores.ratings
        off = fit_permuted_probe(self.context, ratings, probe)
        test, permuted = (predict_test(self.context, ratings, p, probe.feature) for p in (probe.probe, off))
        evidence = Evidence(test, permuted, self.debias.facts, tables[0], self.suites[HELD_OUT].pairs)
        return planted_table(build(self.recipe.seed).truth, self.debias.value, self.gates.value.debiased, evidence)

    def _backbone_facts(self) -> Facts:
        layers = {p.layer for parts in self.recipe.features.parts for p in parts}
        return {
            "model": self.recipe.backbone.model,
            "dtype": self.recipe.backbone.dtype,
            "layers": "all" if FINAL in layers else max(map(int, layers)),
            "width": self.stores.all[0].manifest["backbone"]["width"],
            **self.stores.to_json(),
        }


def _load_rival(at: Path) -> BradleyTerry:
    return _there(load_bradley_terry(at), at / "bradley-terry.json")


def _there(part: Value | None, place: Path) -> Value:
    if part is None:
        raise CheckpointError(f"{place}: is missing: remove the folder and train again")
    return part
