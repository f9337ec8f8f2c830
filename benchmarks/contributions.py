"""Do contributions add up? Every pair of a run's benchmarks, on stored features, through the saved model.

    python benchmarks/contributions.py runs/open [--features FOLDER]

For each answer, the sum of the contributions against the score that the model's forward heads give; for each pair, the sum of the
differences against the difference of the scores. Prints the largest gaps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from armorm.features.store import Stored, open_store
from armorm.model.reward_model import RewardModel
from armorm.recipe import load_recipe
from armorm.report.provenance import provenance
from armorm.scoring.explain import difference
from armorm.scoring.score import Score
from armorm.scoring.table import ScoreTable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", type=Path, help="where the run's features are [default: in RUN]")
    given = parser.parse_args()
    run, kept = given.run, given.features or given.run / "features"
    facts = provenance()
    print(f"{facts['machine']}; commit {facts['commit']}")
    model = RewardModel.from_pretrained(run / "model")
    recipe = load_recipe(run / "recipe.yaml")
    for suite in recipe.bench:
        stores = [s for folder in sorted(kept.glob(f"{suite.name}-*")) if (s := open_store(folder))]
        if not stores:
            raise SystemExit(f"{kept}: no finished features of {suite.name}: run the recipe first")
        check(suite.name, model, stores[-1])


def check(name: str, model: RewardModel, stored: Stored) -> None:
    """Print the largest gaps of one benchmark."""
    (chosen, straight), (rejected, other) = (scores(model, stored, side) for side in ("chosen", "rejected"))
    both, heads = [*chosen, *rejected], [*straight, *other]
    gap = max(abs(sum(s.contributions.values()) - x) for s, x in zip(both, heads, strict=True))
    pairs = [difference(a, b) for a, b in zip(chosen, rejected, strict=True)]
    margins = [x - y for x, y in zip(straight, other, strict=True)]
    across = max(abs(sum(t.delta for t in d.terms) - m) for d, m in zip(pairs, margins, strict=True))
    print(
        f"{name}: {len(both):,} answers: |Σ contributions − score| ≤ {gap:.1e}; "
        f"{len(pairs):,} pairs: |Σ differences − score difference| ≤ {across:.1e} (scores in float32, from the model's heads)"
    )


def scores(model: RewardModel, stored: Stored, side: str) -> tuple[list[Score], list[float]]:
    """A side's scores from stored features: taken apart, and straight from the heads."""
    found: list[Score] = []
    straight: list[float] = []
    for block in stored.blocks():
        response, prompt = (
            np.concatenate([np.asarray(block.tensors[f"{name}/{p}"], dtype=np.float32) for p in spec.parts], axis=1)
            for name, spec in ((side, model.response_spec), ("prompt", model.prompt_spec))
        )
        tokens = block.tokens(side)
        heads = model.heads(torch.from_numpy(response), torch.from_numpy(prompt), torch.from_numpy(tokens).float())
        found += ScoreTable.of(model.basis, heads, tokens)
        straight += heads.score.tolist()
    return found, straight


if __name__ == "__main__":
    main()
