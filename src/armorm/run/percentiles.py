"""What the model usually says, from the training pairs: kept beside it for percentiles and for prompts that open the gate alike.

In: fitted parts, training pairs as arrays, their rows.  Out: `Reference`.  Cost: matrix products over the training pairs.
"""

from __future__ import annotations

import numpy as np

from armorm.data.splits import Split
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.recipe import Recipe
from armorm.run.fitting import PairArrays, computed_nuisances
from armorm.run.rows import Rows
from armorm.scoring.reference import Reference


def reference_of(
    recipe: Recipe, probe: Probe, feature: str, debias: Debias, gate: Gate, pairs: PairArrays, rows: Rows
) -> Reference:
    """Rewards and scores of all answers of the training and validation pairs, and their prompts' gates."""
    known = pairs.take(pairs.at(Split.TRAIN, Split.VALIDATION))
    gates = gate.weights_for(known.prompts)
    sides = (known.chosen[feature], known.rejected[feature])
    rewards = [probe.predict(side.response) for side in sides]
    debiased = [
        debias.apply(r, computed_nuisances(debias.computed, side.tokens)).values for r, side in zip(rewards, sides, strict=True)
    ]
    scores = np.concatenate([(gates * values).sum(axis=1) for values in debiased])
    questions = {(name, row.id): row.context[-1]["content"] for name, found in rows.pairs.items() for row in found}
    prompts = [questions[place] for place in zip(known.sources, known.ids, strict=True)]
    return Reference.of(
        probe.objectives.names,
        np.concatenate(rewards),
        scores,
        prompts=prompts,
        sources=known.sources,
        gates=gates,
        seed=recipe.seed,
    )
