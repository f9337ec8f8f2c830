"""How time and memory of each stage grow with the rows.

    python benchmarks/growth.py [--million] [--width 256] [--steps 200] [--folder DIR]

n ratings and n pairs for n = 10,000 and 100,000 (with --million also 1,000,000), every stage of the product behind the features
in a process of its own, on stores of generated features. Prints seconds, peak memory, and the exponents that fit them: 1 is in
step with the rows, 2 with their square; of memory what an idle process has is taken off. The gate is small (256 wide) and makes
the same steps at every size. The reading of rows is taken from what rows.py measured last. Writes results/growth.json and
results/growth.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from generated import FEATURE, scales, write_pairs, write_store
from measuring import Figure, Measured, measure, results_folder, write_results

from armorm.data.splits import Split
from armorm.features.answers import Answers, open_answers
from armorm.fit.debias import Debias
from armorm.fit.method import Fitted
from armorm.fit.parts import load_debias
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.report.plots import ACCENT, SECOND, curve_grid, inline, standalone, styled
from armorm.rivals.bradley_terry import load_bradley_terry, save_bradley_terry
from armorm.run.context import RunContext
from armorm.run.coverage import uncertainty_stage
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.examples import reference_of
from armorm.run.gate_stage import Gates, fit_gate_stage
from armorm.run.methods import Graded, fit_bradley_terry_stage, judge_suite, methods
from armorm.run.pairs import SuiteArrays, pair_arrays
from armorm.run.probe_stage import FittedProbe, fit_probe_stage

SIZES, MILLION, SHARD_ROWS = (10_000, 100_000), 1_000_000, 4096
OBJECTIVES = scales(19)
PATTERNS = [OBJECTIVES.names[:5], OBJECTIVES.names[5:10], OBJECTIVES.names[10:12], OBJECTIVES.names[12:]]


class Ground:
    """What a stage finds: stores, a recipe, the stages before it."""

    def __init__(self, folder: str, steps: int) -> None:
        self.folder = Path(folder)
        self.context = RunContext(Recipe.model_validate(recipe(self.folder, steps)), OBJECTIVES, Reporter(quiet=True))
        self.none = Debias.identity(OBJECTIVES)

    @property
    def ratings(self) -> dict[str, Answers]:
        return {"ratings": self._store("ratings")}

    @property
    def pairs(self) -> Any:
        return pair_arrays(self.context, {"pairs": self._store("pairs")})

    @property
    def probe(self) -> FittedProbe:
        return FittedProbe.load(self.folder / "probe", self.context.recipe.probe.folds)

    @property
    def debias(self) -> Debias:
        return load_debias(self.folder / "debias")

    @property
    def gates(self) -> Gates:
        return Gates.load(self.folder / "gate")

    def _store(self, name: str) -> Answers:
        found = open_answers(self.folder / name)
        if found is None:
            raise SystemExit(f"{self.folder / name}: the store is not finished")
        return found


def recipe(folder: Path, steps: int) -> dict[str, Any]:
    """Of stages at the product's defaults, but for a small gate."""
    return {
        "name": "growth",
        "ratings": [{"path": str(folder / "ratings.jsonl")}],
        "pairs": [{"path": str(folder / "pairs.jsonl")}],
        "features": {"response": [FEATURE], "prompt": FEATURE},
        "debias": {"nuisances": [OBJECTIVES.names[0]]},
        "gate": {"hidden": 256, "hidden_layers": 2, "steps": steps, "patience": None},
    }


def write(folder: str, rows: int, width: int) -> None:
    """Stores of ratings and pairs."""
    place = Path(folder)
    write_store(place, "ratings", rows, width, OBJECTIVES, PATTERNS, shard_rows=SHARD_ROWS)
    write_pairs(place, "pairs", rows, width, OBJECTIVES, shard_rows=SHARD_ROWS)


# -- the stages, each called in a process of its own ------------------------------------------------------------


def idle(_folder: str, _steps: int) -> None:
    """What a process has before it does anything."""


def probe(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    fit_probe_stage(ground.folder / "probe", ground.context, ground.ratings)


def uncertainty(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    uncertainty_stage(ground.folder / "uncertainty", ground.context, ground.probe, ground.ratings)


def debias(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    fit_debias_stage(ground.folder / "debias", ground.context, ground.probe, ground.ratings, ground.pairs)


def gate(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    fit_gate_stage(ground.folder / "gate", ground.context, ground.probe, ground.debias, ground.pairs)


def reference(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    probe = ground.probe
    fitted = Fitted(probe.probe, probe.feature, ground.debias, ground.gates.gate)
    reference_of(fitted, ground.pairs, seed=0).save(ground.folder)


def bradley_terry(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    save_bradley_terry(ground.folder, fit_bradley_terry_stage(ground.pairs, [FEATURE]))


def bench(folder: str, steps: int) -> None:
    ground = Ground(folder, steps)
    rival = load_bradley_terry(ground.folder)
    if rival is None:
        raise SystemExit(f"{folder}: there is no Bradley–Terry model")
    tried = methods(ground.probe, ground.debias, ground.gates, ground.gates, rival)
    pairs = ground.pairs
    suite = SuiteArrays.of_pairs(pairs.take(pairs.at(Split.TEST)))
    judge_suite("held out", Graded.by(None, suite.items), suite, tried, seed=0)


STAGES = (probe, uncertainty, debias, gate, reference, bradley_terry, bench)


# -- what is made of them -------------------------------------------------------------------------------------


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """How a value grows between the two largest sizes: in step with rows to this power. None where it hardly does."""
    (small, large), (low, high) = list(pairwise(sizes))[-1], list(pairwise(values))[-1]
    return round(math.log(high / low) / math.log(large / small), 2) if low > 0 and high > 0 else None


def measured(sizes: Sequence[int], width: int, steps: int, parent: Path | None) -> dict[str, list[Measured]]:
    """Every stage at every size, by name."""
    found: dict[str, list[Measured]] = {stage.__name__: [] for stage in (idle, *STAGES)}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            written = measure(write, folder, size, width)
            print(f"{size:,} ratings and pairs written in {written.seconds:.1f} s", flush=True)
            for stage in (idle, *STAGES):
                one = measure(stage, folder, steps)
                found[stage.__name__].append(one)
                print(f"  {stage.__name__:14} {one.seconds:8.2f} s  {one.peak_mib:8.0f} MiB", flush=True)
    return found


def rows_read(idle_mib: float) -> dict[str, dict[str, Any]]:
    """The same of reading rows, as rows.py measured it, where it did."""
    place = results_folder() / "rows.json"
    if not place.is_file():
        return {}
    found = json.loads(place.read_text(encoding="utf-8"))["sizes"]
    sizes = [one["ratings"] + one["pairs"] for one in found]
    seconds, above = [one["seconds"]["read"] for one in found], [round(one["peak_mib"] - idle_mib, 1) for one in found]
    powers = {"time": exponent(sizes, seconds), "memory": exponent(sizes, above)}
    return {"rows": {"sizes": sizes, "seconds": seconds, "mib": above, "exponents": powers}}


def summary(sizes: Sequence[int], found: Mapping[str, Sequence[Measured]]) -> dict[str, dict[str, Any]]:
    """Seconds, memory above an idle process, and their exponents, by stage."""
    base = [one.peak_mib for one in found["idle"]]
    stages = {}
    for name in (stage.__name__ for stage in STAGES):
        seconds = [round(one.seconds, 3) for one in found[name]]
        above = [round(one.peak_mib - idle, 1) for one, idle in zip(found[name], base, strict=True)]
        grown = above[-1] - above[-2] > 0.05 * base[-1]
        powers = {"time": exponent(sizes, seconds), "memory": exponent(sizes, above) if grown else 0.0}
        stages[name] = {"sizes": [*sizes], "seconds": seconds, "mib": above, "exponents": powers}
    return rows_read(base[0]) | stages


@styled
def picture(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Small panels: seconds of each stage, then memory, over the rows; both axes logarithmic."""
    titles = [f"{name}, {unit}" for unit in ("s", "MiB") for name in stages]
    figure, grid = curve_grid([title.replace("_", " ") for title in titles], "rows")
    curves = [(stage["sizes"], stage[kind]) for kind in ("seconds", "mib") for stage in stages.values()]
    for place, (axes, (sizes, curve)) in enumerate(zip(grid, curves, strict=True)):
        axes.loglog(sizes, [max(value, 0.01) for value in curve], "o-", color=ACCENT if place < len(stages) else SECOND)
        axes.minorticks_off()
    return standalone(inline(figure, "seconds and memory of each stage over the rows"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    sizes = [*SIZES, MILLION] if given.million else [*SIZES]
    stages = summary(sizes, measured(sizes, given.width, given.steps, given.folder))
    print(f"{'stage':14} {'time ~ rows^':>12} {'memory ~ rows^':>14}")
    for name, stage in stages.items():
        print(f"{name:14} {stage['exponents']['time']!s:>12} {stage['exponents']['memory']!s:>14}")
    figures = [
        Figure(f"growth of {name.replace('_', ' ')}: exponent of {what} in rows", power, "", aim="at most 1")
        for name, stage in stages.items()
        for what, power in stage["exponents"].items()
        if power is not None
    ]
    facts = {"rows": sizes, "width": given.width, "steps": given.steps, "objectives": len(OBJECTIVES), "stages": stages}
    written = write_results("growth", facts, figures)
    written.with_suffix(".svg").write_text(picture(stages), encoding="utf-8")


if __name__ == "__main__":
    main()
