"""Debiasing, cross-fitted rewards, percentiles and the benchmark's scores on stored pairs: time and memory at two sizes.

    python benchmarks/after_the_probe.py [--pairs 40000] [--width 2048] [--times 3]

Stores are written as an extraction writes them, with features that are made up; each stage runs in a process of its own on half
of the pairs and on all of them, several times, of which the median counts. Linear is a ratio of 2; memory should grow by rewards
and labels alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, measure, write_results

from armorm.conversation import Conversation
from armorm.data.rows import PreferencePair
from armorm.data.splits import Split
from armorm.features.answers import open_answers
from armorm.features.extract import Features
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, write_answers
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import Recipe
from armorm.rivals.fixed import GatedRewards, LongerWins
from armorm.run.context import RunContext
from armorm.run.debias_stage import fit_debias_stage
from armorm.run.examples import reference_of
from armorm.run.gate_stage import average_weights, cross_fit
from armorm.run.methods import Method, score_suite
from armorm.run.pairs import PairArrays, SuiteArrays, pair_arrays
from armorm.run.probe_stage import FittedProbe

K, FEATURE = 19, "final:last"
OBJECTIVES = Objectives([Objective(name=f"o{i}", min=0, max=1) for i in range(K)])
STAGES = ("debias", "cross_fitted", "average_weights", "reference", "scores")


def write_data(folder: str, pairs: int, width: int) -> None:
    """A store of pairs in bfloat16, its features from a pool of normal numbers."""
    rows = [_pair(i) for i in range(pairs)]
    parts, pool = FeatureSpec.parse(FEATURE).parts, np.random.default_rng(0).normal(size=(1024, width)).astype(np.float32)
    settings = ExtractionSettings(parts, parts, store_dtype="bfloat16")

    def compute(conversations: Sequence[Conversation], _tick: Callable[[int], None]) -> Features:
        n = len(conversations)
        own = {FEATURE: np.roll(pool, np.random.default_rng(len(conversations[0][0]["content"])).integers(width), axis=1)[:n]}
        count = np.arange(n) % 100 + 1
        return Features(own, own, count, count, np.zeros(n, dtype=bool), n)

    facts = {"source": "pairs", "backbone": {"name": "none", "fingerprint": "none", "width": width}}
    write_answers(Path(folder), rows, facts, settings, compute)


def _pair(i: int) -> PreferencePair:
    context = ({"role": "user", "content": f"question {i} " + "word " * (i % 50)},)
    return PreferencePair(f"p{i}", f"g{i}", "pairs", context, f"answer {i}", f"other {i}")


def opened(folder: str) -> tuple[RunContext, PairArrays]:
    recipe = {"name": "n", "ratings": [{"path": "r"}], "pairs": [{"path": "p"}]}
    features = {"response": [FEATURE], "prompt": FEATURE, "store_dtype": "bfloat16"}
    more = {"splits": {"validation": 0.02, "test": 0.1}, "probe": {"folds": 5}, "debias": {"nuisances": ["o4"]}}
    context = RunContext(Recipe.model_validate({**recipe, "features": features, **more}), OBJECTIVES, Reporter(quiet=True))
    store = open_answers(Path(folder))
    assert store is not None
    return context, pair_arrays(context, {"pairs": store})


def parts(width: int) -> tuple[FittedProbe, Fitted]:
    rng = np.random.default_rng(1)
    probe = Probe(OBJECTIVES, rng.normal(size=(K, width)) / width, np.zeros(K), np.ones(K))
    shapes = [(1024, width), (1024, 1024), (1024, 1024), (K, 1024)]
    layers = tuple(rng.normal(size=shape).astype(np.float32) / shape[1] for shape in shapes)
    gate = Gate(OBJECTIVES, layers, tuple(np.zeros(shape[0], np.float32) for shape in shapes), 1.0, 1.0)
    return FittedProbe(probe, FEATURE, (probe,) * 5), Fitted(probe, FEATURE, Debias.identity(OBJECTIVES), gate)


def stage(name: str, folder: str, width: int) -> float:
    """The seconds of one stage, its store opened and its shards checked."""
    context, pairs = opened(folder)
    fitted_probe, fitted = parts(width)
    pairs.prompts, pairs.chosen(FEATURE)
    start = time.perf_counter()
    if name == "debias":
        with tempfile.TemporaryDirectory() as at:
            fit_debias_stage(Path(at), context, fitted_probe, {}, pairs)
    elif name == "cross_fitted":
        cross_fit(fitted_probe, fitted.debias, pairs.chosen(FEATURE), pairs.folds)
    elif name == "average_weights":
        average_weights(fitted.gate, pairs.sections, pairs.prompts)
    elif name == "reference":
        reference_of(fitted, pairs, seed=0)
    else:
        suite = SuiteArrays.of_pairs(pairs.take(pairs.at(Split.TEST)))
        score_suite(suite, [Method(GatedRewards(fitted, "ours", "ours"), FEATURE), Method(LongerWins(), FEATURE)])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    facts: dict[str, Any] = {"settings": vars(given)}
    with tempfile.TemporaryDirectory() as at:
        sizes = {given.pairs // 2: str(Path(at) / "half"), given.pairs: str(Path(at) / "all")}
        for pairs, folder in sizes.items():
            measure(write_data, folder, pairs, given.width)
        for name in STAGES:
            rounds = [[measure(stage, name, folder, given.width) for folder in sizes.values()] for _ in range(given.times)]
            half, whole = (statistics.median(one.value for one in side) for side in zip(*rounds, strict=True))
            facts[name] = {
                "seconds": [half, whole],
                "peak_mib": [max(one.peak_mib for one in side) for side in zip(*rounds, strict=True)],
                "growth": whole / half,
            }
            print(name, json.dumps(facts[name]), flush=True)
    size = f"{given.pairs:,} pairs, width {given.width}"
    figures = [
        Figure(f"{name.replace('_', ' ')}, {size}", facts[name]["seconds"][1], "s", "half the pairs", facts[name]["seconds"][0])
        for name in STAGES
    ]
    write_results("after_the_probe", facts, figures)


if __name__ == "__main__":
    main()
