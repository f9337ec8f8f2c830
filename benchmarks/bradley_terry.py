"""The Bradley–Terry rival on pairs that are read from disk, against scikit-learn on a copy of all differences.

    python benchmarks/bradley_terry.py [--pairs 60000] [--width 4096] [--rival-pairs 8000] [--times 3]

Two sizes of ours (all pairs, and half of them) show that time grows with the pairs and memory does not. On `--rival-pairs` both
fit all strengths, in turn, several times, of which the median counts: scikit-learn one by one to its usual tolerance, in float64,
the way that this project did before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, Measured, measure, write_results
from planted_columns import column, write_column
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from armorm.features.columns import Column
from armorm.rivals import logistic
from armorm.rivals.bradley_terry import STRENGTHS, fit_bradley_terry

LEAD = 1.5
"""How far winners are ahead, in deviations of a feature: a perfect judge orders 86 of 100 pairs right."""


def sides(folder: str, pairs: int, width: int) -> tuple[Column, Column]:
    """Both sides' features: winners and losers stand in turn."""
    whole = column(Path(folder), width)
    return whole.take(2 * np.arange(pairs)), whole.take(2 * np.arange(pairs) + 1)


def validating(pairs: int) -> np.ndarray:
    return np.arange(pairs) % 50 == 0


def write_data(folder: str, pairs: int, width: int) -> None:
    write_column(Path(folder), 2 * pairs, width, seed=1, lead=LEAD)


def ours(folder: str, pairs: int, width: int) -> dict[str, Any]:
    """Fit all strengths; count passes over the pairs."""
    passes, follow = 0, logistic._follow

    def counting(*given: Any) -> Any:
        nonlocal passes
        passes += 1
        return follow(*given)

    logistic._follow = counting
    start = time.perf_counter()
    found = fit_bradley_terry([("x", *sides(folder, pairs, width))], validating(pairs))
    facts = {"seconds": time.perf_counter() - start, "passes": passes, "strength": found.strength}
    return facts | {"weights": found.weights.tolist(), "loss": loss_of(folder, pairs, width, found.weights)}


def one_by_one(folder: str, pairs: int, width: int) -> dict[str, Any]:
    """scikit-learn's logistic regression for each strength, on a copy of all differences; the best on the validating pairs."""
    start = time.perf_counter()
    chosen, rejected = (side.rows(np.arange(pairs)).astype(np.float64) for side in sides(folder, pairs, width))
    difference, held_out = chosen - rejected, validating(pairs)
    train = difference[~held_out]
    scale, found = train.std(axis=0), []
    X, y = train / scale, np.arange(len(train)) % 2 == 0
    X[1::2] *= -1  # every pair once, which makes two classes
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            w = LogisticRegression(C=strength, fit_intercept=False, max_iter=300).fit(X, y).coef_[0] / scale
        found.append((float(np.logaddexp(0, -(difference[held_out] @ w)).mean()), strength, w))
    loss, strength, weights = min(found, key=lambda one: one[0])
    return {"seconds": time.perf_counter() - start, "strength": strength, "weights": weights.tolist(), "loss": loss}


def loss_of(folder: str, pairs: int, width: int, weights: np.ndarray) -> float:
    """The mean log-loss on the validating pairs."""
    chosen, rejected = (side.take(np.flatnonzero(validating(pairs))) for side in sides(folder, pairs, width))
    margins = chosen.over(lambda x: x @ weights) - rejected.over(lambda x: x @ weights)
    return float(np.logaddexp(0, -margins).mean())


def told(name: str, found: Measured) -> dict[str, Any]:
    facts = {key: value for key, value in found.value.items() if key != "weights"} | {"peak_mib": found.peak_mib}
    print(name, json.dumps(facts), flush=True)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--rival-pairs", type=int, default=8_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    width, few = given.width, given.rival_pairs
    with tempfile.TemporaryDirectory() as at:
        folder = str(Path(at) / "data")
        measure(write_data, folder, given.pairs, width)
        rounds = [(measure(ours, folder, few, width), measure(one_by_one, folder, few, width)) for _ in range(given.times)]
        alike, rival = (sorted(way, key=lambda one: one.value["seconds"])[given.times // 2] for way in zip(*rounds, strict=True))
        facts: dict[str, Any] = {"ours_few": told("ours, few", alike), "one_by_one": told("scikit-learn, few", rival)}
        for name, pairs in (("half", given.pairs // 2), ("all", given.pairs)):
            facts[f"ours_{name}"] = told(f"ours, {pairs:,}", measure(ours, folder, pairs, width))
    one, other = (np.array(m.value["weights"]) for m in (alike, rival))
    facts["largest_weight_difference"] = float(np.abs(one - other).max() / np.abs(other).max())
    facts["ratio"] = rival.value["seconds"] / alike.value["seconds"]
    facts["growth"] = facts["ours_all"]["seconds"] / facts["ours_half"]["seconds"]
    print(f"{facts['ratio']:.2f}x faster on {few:,} pairs; twice the pairs take {facts['growth']:.2f}x the time")
    size, whole = f"{given.pairs:,} pairs, width {width}", facts["ours_all"]
    figures = [
        Figure(
            f"Bradley–Terry, {few:,} pairs, width {width}", alike.value["seconds"], "s", "scikit-learn", rival.value["seconds"]
        ),
        Figure(f"Bradley–Terry, {size}", whole["seconds"], "s", "half the pairs", facts["ours_half"]["seconds"]),
        Figure(f"Bradley–Terry, {size}: peak memory", whole["peak_mib"], "MiB", aim="at most 3,072"),
    ]
    write_results("bradley_terry", facts | {"settings": vars(given)}, figures)


if __name__ == "__main__":
    main()
