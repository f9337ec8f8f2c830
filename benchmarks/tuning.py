"""How fast a decoder is trained with adapters, and what leaving the casts of their inputs to autocast saves, in one run.

    python benchmarks/tuning.py [--steps 4] [--backbone smollm2]

Trains on the starter set's pairs, with and without, two times each in turn, and prints tokens per second (no padding) of the
faster run and the ratio. The losses must be the same.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from armorm.data.starter import build
from armorm.recipe import BackboneSettings, TuningSettings
from armorm.report.provenance import provenance
from armorm.tuning import loop
from armorm.tuning.loop import Curve, Job
from armorm.tuning.pairs import train_bradley_terry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--backbone", default="smollm2")
    given = parser.parse_args()
    settings = TuningSettings(steps=given.steps + 1, batch_size=8, micro_batch=1, save_every=1000, lora={"dropout": 0})
    backbone = BackboneSettings(model=given.backbone, max_tokens=512)
    pairs = build().pairs[: 8 * (given.steps + 1)]

    def trained(*, casts: bool) -> Curve:
        way = (lambda _model: nullcontext()) if casts else loop._inputs_as_they_are
        with tempfile.TemporaryDirectory() as folder, patch.object(loop, "_inputs_as_they_are", way):
            return train_bradley_terry(pairs, [], Job(backbone, settings, Path(folder) / "out", Path(folder) / "checkpoints"))

    runs: dict[bool, list[Curve]] = {True: [], False: []}
    for casts in (True, False, True, False):
        runs[casts].append(trained(casts=casts))
    losses = {tuple(step["loss"] for step in curve.steps) for found in runs.values() for curve in found}
    fastest = {casts: max(map(_rate, found)) for casts, found in runs.items()}
    facts = provenance()
    print(f"{given.steps} steps of 8 pairs, {given.backbone} in bfloat16; {facts['machine']}; commit {facts['commit']}")
    print(f"inputs cast by the adapters   {fastest[True]:8,.0f} tokens/s")
    print(f"inputs as they are            {fastest[False]:8,.0f} tokens/s  {fastest[False] / fastest[True]:5.2f}x")
    print(f"losses: {'the same' if len(losses) == 1 else 'DIFFERENT'}")


def _rate(curve: Curve) -> float:
    """Tokens per second behind the first step, in which much is allocated."""
    first, last = curve.steps[0], curve.steps[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"])


if __name__ == "__main__":
    main()
