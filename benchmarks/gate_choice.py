"""By which criterion the gate's penalty is chosen best: planted worlds of few sources, judged on sources that nobody chose by.

    python benchmarks/gate_choice.py [--worlds 40] [--json FILE]

A world has five sources of 120 pairs. Which objective counts depends on the prompt alike everywhere (`general`), or on the
source alone (`local`), or on both (`mixed`); a source can be told by its prompts. The strengths of `fit.gate_choice` are tried
by leaving out each source, and then trained on all five and judged on twenty new sources of 200 pairs, which is the truth. Each
criterion's regret is what its choice loses in accuracy on the new sources against the best strength.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from armorm.fit.debias import DebiasedRewards
from armorm.fit.gate import fit_gate
from armorm.fit.gate_choice import STRENGTHS, KlChoice, choose_kl, parts_to_leave_out
from armorm.fit.gate_settings import GateSettings
from armorm.fit.gate_training import accuracy
from armorm.objectives import Objective, Objectives

SOURCES, PAIRS, NEW, NEW_PAIRS, K, D = 5, 120, 20, 200, 4, 12
OBJECTIVES = Objectives([Objective(name=f"objective-{i}", min=0, max=1) for i in range(K)])
SETTINGS = GateSettings(
    hidden=16, hidden_layers=1, steps=120, batch_size=128, learning_rate=1e-2, evaluate_every=20, start="one-weight", kl="auto"
)
WORLDS = {"general": (2.0, 0.0), "local": (0.0, 2.0), "mixed": (1.0, 1.0), "neither": (0.0, 0.0)}
"""How far the prompt, and how far the source moves the logits of the true weights."""


class World:
    """Sources whose pairs follow true weights softmax(base + prompt's part + source's part)."""

    def __init__(self, prompt: float, source: float, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.base, self.map = self.rng.normal(size=K), self.rng.normal(size=(2, K))
        self.prompt, self.source = prompt, source

    def pairs(self, sources: int, pairs: int) -> tuple[np.ndarray, DebiasedRewards, DebiasedRewards, np.ndarray]:
        rng, which = self.rng, np.repeat(np.arange(sources), pairs)
        places, own = 2 * rng.normal(size=(sources, D - 2)), rng.normal(size=(sources, K))
        prompts = np.concatenate([rng.normal(size=(len(which), 2)), places[which] + rng.normal(size=(len(which), D - 2))], axis=1)
        logits = self.base + self.prompt * prompts[:, :2] @ self.map + self.source * own[which]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        one, two = rng.normal(size=(2, len(which), K))
        better = rng.uniform(size=len(which)) < 1 / (1 + np.exp(-1.5 * (weights * (one - two)).sum(axis=1)))
        chosen, rejected = (np.where(better[:, None], a, b) for a, b in ((one, two), (two, one)))
        return prompts, DebiasedRewards(chosen), DebiasedRewards(rejected), which


def tried_on(world: World, seed: int) -> tuple[KlChoice, np.ndarray]:
    """The choice on five sources, and each strength's true accuracy, over new sources alike."""
    prompts, chosen, rejected, which = world.pairs(SOURCES, PAIRS)
    validation = np.arange(len(which)) % 6 == 0
    sources, groups = [f"s{i}" for i in which], [str(i) for i in range(len(which))]
    args = (prompts, chosen, rejected, validation, OBJECTIVES)
    parts = parts_to_leave_out(prompts, sources, groups, seed=seed)
    choice = choose_kl(*args, parts=parts, sources=sources, groups=groups, settings=SETTINGS, seed=seed)
    new, better, worse, of = world.pairs(NEW, NEW_PAIRS)
    truth = []
    for strength in STRENGTHS:
        gate = fit_gate(*args, settings=replace(SETTINGS, kl=strength), seed=seed).gate
        right = (gate.weights_for(new) * (better.values - worse.values)).sum(axis=1)
        truth.append(np.mean([accuracy(right[of == i]) for i in range(NEW)]))
    return choice, np.array(truth)


def strongest_within(scores: np.ndarray, *, paired: bool) -> int:
    """The one-standard-error rule; `scores` [s r], lower is better."""
    best = int(np.argmin(scores.mean(axis=1)))
    spread = scores - scores[best] if paired else np.broadcast_to(scores[best], scores.shape)
    error = spread.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    return int(np.flatnonzero(scores.mean(axis=1) - scores[best].mean() <= error).max())


CRITERIA = {
    "accuracy, best": lambda c: int(np.argmax(c.accuracies.mean(axis=1))),
    "accuracy, one paired error": lambda c: strongest_within(-c.accuracies, paired=True),
    "log-loss, best": lambda c: c.best,
    "log-loss, one error of the mean": lambda c: strongest_within(c.losses, paired=False),
    "log-loss, one paired error (ours)": lambda c: c.chosen,
    "always no penalty": lambda _: 0,
    "always no gate": lambda c: len(c.strengths) - 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (prompt, source) in WORLDS.items():
        trials = [tried_on(World(prompt, source, seed), seed) for seed in range(given.worlds)]
        print(f"{name}: best strength's accuracy {np.mean([truth.max() for _, truth in trials]):.3f}", flush=True)
        for criterion, pick in CRITERIA.items():
            regrets = 100 * np.array([truth.max() - truth[pick(choice)] for choice, truth in trials])
            numbers = {
                "regret": regrets.mean(),
                "error": regrets.std(ddof=1) / np.sqrt(len(regrets)),
                "worst tenth": np.quantile(regrets, 0.9),
                "strength": float(np.median([pick(choice) for choice, _ in trials])),
            }
            found.setdefault(name, {})[criterion] = {key: round(float(value), 3) for key, value in numbers.items()}
            print(f"  {criterion:36s} " + "  ".join(f"{key} {value:.2f}" for key, value in numbers.items()), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
