"""The probe at the paper's size: eight sets that rate 19 objectives, 585,400 rows of 4,096 numbers, nine strengths, five folds.

    python benchmarks/probe.py [--scale 1.0] [--width 4096] [--times 1] [--folder PLACE]

Writes stores of made-up features (bfloat16, 8 KB a row), then measures, each in a process of its own: one pass over them into the
statistics on disk, the choice of strengths with all probes solved from these, the uncertainty; and against them the public
scripts' way, a scikit-learn Ridge per objective and strength on that objective's rows (without any fold). Such a fit is measured
on two numbers of rows, the larger 40,000, and taken along the line through both to each objective's rows. The features are
removed afterwards.

A scale below 0.4 (at this width) leaves some sets with fewer rows than columns, which takes other ways through the solver.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from generated import FEATURE, scales, write_store
from measuring import Figure, Measured, measure, repeat, write_results

from armorm.features.answers import Answers, open_answers
from armorm.features.spec import FeatureSpec
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.run.context import TEST, RunContext
from armorm.run.coverage import uncertainty_stage
from armorm.run.probe_stage import FittedProbe, fit_probe_stage
from armorm.run.summing import fold_statistics

SETS = {
    "helpsteer": (35_000, range(0, 5)),
    "ultrafeedback": (240_000, range(5, 10)),
    "beavertails": (30_000, range(10, 11)),
    "prometheus": (200_000, range(11, 12)),
    "capybara": (15_000, range(12, 13)),
    "openorca": (13_000, range(13, 14)),
    "code-ultrafeedback": (50_000, range(14, 19)),
    "argilla-math": (2_400, range(6, 7)),
}
"""Rows of each set, and the objectives that it rates: the last shares one of UltraFeedback's."""
K, FOLDS, ALPHAS = 19, 5, [10.0**e for e in range(-4, 5)]
MEASURED = (20_000, 40_000)
FITS = 3
CHECKED = "openorca"
AIM = 20


class Watched:
    """The most memory that this process holds during a block, pages of mapped files (which can be dropped) left out."""

    mib = 0.0

    def __enter__(self) -> Watched:
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("RssAnon:")]
            self.mib = max(self.mib, int(line.split()[1]) / 1024)


def context_of() -> RunContext:
    recipe = {
        "name": "probe",
        "ratings": [{"path": "none"}],
        "pairs": [{"path": "none"}],
        "features": {"response": [FEATURE], "prompt": FEATURE},
        "splits": {"validation": 0.02, "test": 0.02},
        "probe": {"folds": FOLDS, "alphas": ALPHAS},
    }
    return RunContext(Recipe.model_validate(recipe), scales(K), Reporter())


def stores_of(folder: str) -> dict[str, Answers]:
    found = {name: open_answers(Path(folder) / "features" / name) for name in SETS}
    return {name: store for name, store in found.items() if store is not None}


def make(folder: str, scale: float, width: int) -> int:
    """The stores' features in bytes."""
    objectives, place = scales(K), Path(folder) / "features"
    for name, (rows, columns) in SETS.items():
        rated = [objectives.names[column] for column in columns]
        write_store(place, name, int(rows * scale), width, objectives, [rated])
    return sum(file.stat().st_size for file in place.rglob("*.safetensors"))


def sum_rows(folder: str) -> dict[str, float]:
    place = Path(folder) / "statistics"
    shutil.rmtree(place, ignore_errors=True)
    with Watched() as watched:
        fold_statistics(context_of(), stores_of(folder), [FeatureSpec.parse(FEATURE)], folder=place)
    return {"bytes": sum(file.stat().st_size for file in place.rglob("*.safetensors")), "own_mib": watched.mib}


def solve(folder: str) -> dict[str, Any]:
    place = Path(folder)
    with Watched() as watched:
        fitted, facts = fit_probe_stage(place / "probe", context_of(), stores_of(folder), statistics=place / "statistics")
    pearson = [row["pearson"]["value"] for row in facts["objectives"] if row["pearson"]["value"] is not None]
    return {"alphas": fitted.probe.alphas.tolist(), "test_pearson": float(np.mean(pearson)), "own_mib": watched.mib}


def calibrate(folder: str) -> dict[str, Any]:
    place, context = Path(folder), context_of()
    fitted = FittedProbe.load(place / "probe", FOLDS)
    (place / "uncertainty").mkdir()
    with Watched() as watched:
        _, facts = uncertainty_stage(place / "uncertainty", context, fitted, stores_of(folder), statistics=place / "statistics")
    ranks = [part["rank"] for part in facts["parts"]]
    return {"coverage": facts["coverage"]["value"], "ranks": ranks, "own_mib": watched.mib}


def one_ridge(folder: str, rows: int) -> float:
    """Seconds of a fit on so many rows of the largest set (the median of a few strengths)."""
    from sklearn.linear_model import Ridge

    context, store = context_of(), stores_of(folder)["ultrafeedback"]
    features = store.features(FeatureSpec.parse(FEATURE), slice(0, rows))
    ratings = context.objectives.to_unit(store.ratings(context.objectives, slice(0, rows)))[:, 5].astype(np.float32)
    seconds = []
    for alpha in ALPHAS[-FITS:]:
        start = time.perf_counter()
        Ridge(alpha=alpha, fit_intercept=False).fit(features, ratings)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def errors(folder: str) -> dict[str, float]:
    """Of one set's probe, against everything in double precision: its gram matrix, weights and predictions."""
    context, store = context_of(), stores_of(folder)[CHECKED]
    (column,) = SETS[CHECKED][1]
    spec, statistics = FeatureSpec.parse(FEATURE), Path(folder) / "statistics"
    folds = fold_statistics(context, stores_of(folder), [spec], folder=statistics)[spec]
    ours, fitted = [fold.shared((column,)) for fold in folds], FittedProbe.load(Path(folder) / "probe", FOLDS)
    gram = sum(one.gram for one in ours)
    train = context.folds(store.groups) != TEST
    X = store.features(spec)[train].astype(np.float64)
    y = context.objectives.to_unit(store.ratings(context.objectives))[train, column]
    exact = X.T @ X
    size = np.sqrt(np.diag(exact))
    weights = np.linalg.solve(exact + fitted.probe.alphas[column] * np.eye(len(exact)), X.T @ y)
    off = fitted.probe.weights[column] - weights
    return {
        "gram": float((np.abs(gram - exact) / np.outer(size, size)).max()),
        "weights": float(np.linalg.norm(off) / np.linalg.norm(weights)),
        "predictions": float(np.std(X @ off) / np.std(X @ weights)),
    }


def public_seconds(fits: dict[int, float], scale: float) -> float:
    """All fits of the public scripts' way: the line through two measured fits, at every objective's rows, for every strength."""
    (few, less), (many, more) = sorted(fits.items())
    slope = max(more - less, 0.0) / (many - few)
    rated = [sum(int(rows * scale) for rows, columns in SETS.values() if column in columns) for column in range(K)]
    return len(ALPHAS) * sum(more + slope * (rows - many) for rows in rated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--times", type=int, default=1, help="rounds of summing and solving; the median of each counts")
    parser.add_argument("--folder", type=Path, default=None, help="where the features are written for the time being")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        report(folder, given.scale, given.width, given.times)


def report(folder: str, scale: float, width: int, times: int) -> None:
    made = measure(make, folder, scale, width)
    rows = sum(int(rows * scale) for rows, _ in SETS.values())
    told(f"{rows:,} rows, width {width}, {K} objectives, {made.value / 1e9:.1f} GB of features", made)
    summed = repeat(sum_rows, folder, times=times)[times // 2]
    told(f"statistics, {summed.value['bytes'] / 1e9:.1f} GB on disk", summed)
    solved = repeat(solve, folder, times=times)[times // 2]
    told("strengths and probes", solved)
    fits = {n: measure(one_ridge, folder, n).value for n in (int(n * min(scale * 4, 1)) for n in MEASURED)}
    theirs = public_seconds(fits, scale)
    ours = summed.seconds + solved.seconds
    print(f"public scripts' way, {len(ALPHAS) * K} fits: {theirs:,.0f} s (scaled; by rows, one fit: {fits} s)")
    print(f"ours {ours:,.1f} s: {theirs / ours:.1f} x (aim: {AIM} x)", flush=True)
    precise = measure(errors, folder).value
    print(f"against float64: {precise}", flush=True)
    calibrated = measure(calibrate, folder)
    told(f"uncertainty: {calibrated.value}", calibrated)
    stages = {"statistics": summed, "solving": solved, "uncertainty": calibrated}
    peak = max(m.value["own_mib"] for m in stages.values())
    facts = {
        "rows": rows,
        "width": width,
        "seconds": {"statistics": summed.seconds, "solving": solved.seconds, "uncertainty": calibrated.seconds, "public": theirs},
        "peak_mib": {name: m.peak_mib for name, m in stages.items()},
        "own_mib": {name: m.value["own_mib"] for name, m in stages.items()},
        "fit_seconds": {str(n): seconds for n, seconds in fits.items()},
        "public_way": "a fit on two numbers of rows measured, taken along their line to each objective's rows",
        "error": precise,
        "probe": solved.value,
        "uncertainty": calibrated.value,
    }
    figures = [
        Figure("probe: statistics and solving", ours, "s", "a Ridge per objective and strength (scaled)", theirs, f"≥ {AIM} ×"),
        Figure("probe and uncertainty: peak memory, mapped files left out", peak, "MiB", aim="≤ 4096 MiB"),
        Figure("probe: uncertainty", calibrated.seconds, "s"),
    ]
    write_results("probe" if scale == 1 and width == 4096 else "probe-small", facts, figures)


def told(what: str, measured: Measured) -> None:
    own = f", without mapped files {measured.value['own_mib']:,.0f} MiB" if isinstance(measured.value, dict) else ""
    print(f"{what}: {measured.seconds:,.1f} s, peak {measured.peak_mib:,.0f} MiB{own}", flush=True)


if __name__ == "__main__":
    main()
