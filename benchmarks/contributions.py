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

from armorm.features.answers import Answers, open_answers
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
        stores = [s for folder in sorted(kept.glob(f"{suite.name}-*")) if (s := open_answers(folder))]
        if not stores:
            raise SystemExit(f"{kept}: no finished features of {suite.name}: run the recipe first")
        check(suite.name, model, stores[-1])


def check(name: str, model: RewardModel, stored: Answers) -> None:
    """Print the largest gaps of one benchmark: of its answers, and of each item's first two."""
    found, heads = scores(model, stored)
    gap = max(abs(sum(s.contributions.values()) - x) for s, x in zip(found, heads, strict=True))
    sizes = stored.sizes()
    firsts = (np.cumsum(sizes) - sizes)[sizes > 1].tolist()
    across = max(abs(sum(t.delta for t in difference(found[i], found[i + 1]).terms) - (heads[i] - heads[i + 1])) for i in firsts)
    print(
        f"{name}: {len(found):,} answers: |Σ contributions − score| ≤ {gap:.1e}; "
        f"{len(firsts):,} pairs: |Σ differences − score difference| ≤ {across:.1e} (scores in float32, from the model's heads)"
    )


def scores(model: RewardModel, stored: Answers) -> tuple[list[Score], list[float]]:
    """All answers' scores from stored features: taken apart, and straight from the heads."""
    found: list[Score] = []
    straight: list[float] = []
    sizes = stored.sizes()
    for rows in stored.blocks():
        response = stored.features(model.response_spec, rows).astype(np.float32)
        prompt = np.repeat(stored.prompts(model.prompt_spec, rows).astype(np.float32), sizes[rows], axis=0)
        tokens = stored.tokens(rows)
        heads = model.heads(torch.from_numpy(response), torch.from_numpy(prompt), torch.from_numpy(tokens).float())
        found += ScoreTable.of(model.basis, heads, tokens)
        straight += heads.score.tolist()
    return found, straight


if __name__ == "__main__":
    main()
