"""How far a score moves with what stands beside it, and what an exact one costs.

    python benchmarks/batch_mates.py [--answers 60] [--fit 240] [--batch-tokens 4096] [--words N] [--out FILE.json]

Answers of the starter set (with `--words`, their first words) are scored alone, all in one call (batched by length, prompts
shared), and exactly in one call, with the embedded SmolLM2 in float32 and bfloat16. The probe is fitted on other answers' planted
qualities, the gate is random. Prints the largest and the mean difference to the score alone, also in standard deviations of the
scores, the pairs of answers to one prompt whose order differs, and how much longer exact scoring takes. `--out` writes the same
as JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sklearn.linear_model import RidgeCV

from armorm.data.rows import RatedResponse
from armorm.data.starter import build
from armorm.disk import write_json
from armorm.features.backbone import DType, load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.probe import Probe
from armorm.model.layouts.own import assemble
from armorm.model.reward_model import RewardModel
from armorm.rendering import Renderer
from armorm.report.provenance import provenance

RESPONSE, PROMPT = FeatureSpec.parse("18:mean"), FeatureSpec.parse("24:last")
MAX_TOKENS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--fit", type=int, default=240, help="answers that the probe is fitted on")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--words", type=int, help="how many words an answer keeps")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    texts = {row.messages[-1]["content"]: row for row in sorted(build().ratings, key=lambda row: (row.group, row.id))}
    rows = list(texts.values())
    measured, known = [shorten(row, given.words) for row in rows[: given.answers]], rows[-given.fit :]
    fitted = fit(known)
    facts = provenance() | {"torch": torch.__version__, "transformers": transformers.__version__}
    print(f"{facts['machine']}; torch {torch.__version__}, transformers {transformers.__version__}; commit {facts['commit']}")
    prompts = len({row.group for row in measured})
    if given.words:
        print(f"of each answer, the first {given.words} words")
    print(f"{len(measured)} answers to {prompts} prompts, SmolLM2-135M; difference to the score alone")
    results = {dtype: measure(model_of(fitted, dtype), measured, given.batch_tokens) for dtype in ("float32", "bfloat16")}
    for dtype, found in results.items():
        print(
            f"{dtype:9} beside others: at most {found['largest']:.1e}, mean {found['mean']:.1e} (scores' std "
            f"{found['std']:.3f}); {found['turned']} of {found['pairs']} pairs turned; exact: at "
            f"most {found['exact_largest']:.0e}, {found['ratio']:.2f} times the time"
        )
    if given.out:
        write_json(given.out, {**facts, "answers": len(measured), "words": given.words, "prompts": prompts, "by_dtype": results})


def shorten(row: RatedResponse, words: int | None) -> RatedResponse:
    """An answer's first words; all of them where none are counted."""
    if words is None:
        return row
    *context, answer = row.messages
    text = " ".join(str(answer["content"]).split()[:words])
    return replace(row, messages=(*context, {"role": "assistant", "content": text}))


def fit(rows: Sequence[RatedResponse]) -> Fitted:
    """A probe on planted qualities, and a random gate whose inputs have the features' spread."""
    data, backbone = build(), load_backbone("smollm2")
    renderer = Renderer(backbone.tokenizer, max_tokens=MAX_TOKENS)
    found = extract([r.messages for r in rows], backbone, renderer, response=RESPONSE.parts, prompt=PROMPT.parts)
    ridge = RidgeCV(alphas=np.logspace(0, 8, 17)).fit(found.response["18:mean"], [data.truth.qualities[r.id] for r in rows])
    probe = Probe(data.objectives, ridge.coef_, ridge.intercept_, np.full(len(data.objectives), float(ridge.alpha_)))
    draw, width = np.random.default_rng(0), backbone.width
    spread = float(np.std(found.prompt["24:last"]))
    layers = [draw.normal(size=(64, width)) / (spread * width**0.5), draw.normal(size=(len(data.objectives), 64)) / 8]
    biases = tuple(np.zeros(len(layer), dtype=np.float32) for layer in layers)
    gate = Gate(data.objectives, tuple(layer.astype(np.float32) for layer in layers), biases, 1.0, 1.0)
    return Fitted(probe, str(RESPONSE), Debias.identity(data.objectives), gate)


def model_of(fitted: Fitted, dtype: DType) -> RewardModel:
    """The parts on the embedded decoder in a type."""
    backbone = load_backbone("smollm2", dtype=dtype)
    return assemble(backbone, Renderer(backbone.tokenizer, max_tokens=MAX_TOKENS), fitted, prompt=PROMPT)


def measure(model: RewardModel, rows: Sequence[RatedResponse], batch_tokens: int) -> dict[str, Any]:
    """Scores alone, beside others and exactly: their differences, and the seconds of the last two (the faster of two runs)."""
    conversations = [row.messages for row in rows]
    usual, exact = model.engine(batch_tokens=batch_tokens), model.engine(exact=True)
    alone = np.array([usual.score([one]).scores[0] for one in conversations])
    twice = [[timed(lambda e=engine: e.score(conversations).scores) for engine in (usual, exact)] for _ in range(2)]  # in turn
    (beside, _), (by_itself, _) = twice[0]
    seconds, exact_seconds = (min(turn[way][1] for turn in twice) for way in (0, 1))
    pairs = [(i, j) for i, j in combinations(range(len(rows)), 2) if rows[i].group == rows[j].group]
    return {
        "largest": float(np.abs(beside - alone).max()),
        "mean": float(np.abs(beside - alone).mean()),
        "std": float(alone.std()),
        "pairs": len(pairs),
        "turned": int(sum((alone[i] > alone[j]) != (beside[i] > beside[j]) for i, j in pairs)),
        "exact_largest": float(np.abs(by_itself - alone).max()),
        "seconds": seconds,
        "exact_seconds": exact_seconds,
        "ratio": exact_seconds / seconds,
    }


def timed(score: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What it gives, and the seconds it takes."""
    start = time.perf_counter()
    found = score()
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
