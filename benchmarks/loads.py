"""What the decoder's pass is measured on: unrelated conversations, pairs that share prompts, and sixteen answers to each prompt.

In: a renderer and the folder with the real data; or a number of tokens, for made-up ids of the same lengths.  Out: rendered
conversations by load.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from itertools import pairwise
from pathlib import Path

from armorm.features.backbone import Backbone
from armorm.rendering import Rendered, Renderer

PROMPT, ANSWER, BEST_OF = 512, 64, 16
UNRELATED, PAIRS, BEST = "unrelated conversations", "pairs", "best of 16"


def loads_of(backbone: Backbone, *, size: int) -> dict[str, list[Rendered]]:
    """Real texts where ARMORM_DATA names their folder and the decoder has a tokenizer, made-up ids elsewhere."""
    if backbone.tokenizer is None or "ARMORM_DATA" not in os.environ:
        return made_up_loads(int(backbone.model.get_input_embeddings().weight.shape[0]), size=size)
    return real_loads(Renderer(backbone.tokenizer, max_tokens=1024), size=size)


def real_loads(renderer: Renderer, *, size: int, seed: int = 0) -> dict[str, list[Rendered]]:
    """Loads of about `size` tokens each (the last: eight times as many) from the helpful pairs, drawn by `seed`."""
    place = Path(os.environ["ARMORM_DATA"]) / "pairs" / "hh-helpful-train.jsonl.gz"
    with gzip.open(place, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    random.Random(seed).shuffle(rows)
    chosen, rejected = ([renderer.render(row[side]) for row in rows] for side in ("chosen", "rejected"))
    prompts = [r.prompt for r in chosen if len(r.prompt) >= PROMPT]
    answers = [r.answer[:ANSWER] for r in (*chosen, *rejected) if len(r.answer) >= ANSWER]
    closing = chosen[0].closing
    return _loads(list(zip(chosen, rejected, strict=True)), prompts, answers, closing, size)


def made_up_loads(tokens: int, *, size: int, seed: int = 0) -> dict[str, list[Rendered]]:
    """The same with random ids below `tokens`, and lengths like those of the helpful pairs."""
    draw = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, tokens) for _ in range(length))

    def length(median: float) -> int:
        return max(8, min(900, round(draw.lognormvariate(0, 0.7) * median)))

    start, closing = ids(24), (2, 5)
    pairs = []
    for _ in range(400):
        prompt = start + ids(length(110))
        pairs.append(tuple(Rendered(prompt, ids(length(50)), closing) for _ in range(2)))
    return _loads(pairs, [start + ids(PROMPT - 24) for _ in range(64)], [ids(ANSWER) for _ in range(1024)], closing, size)


def _loads(pairs, prompts, answers, closing, size) -> dict[str, list[Rendered]]:
    groups = max(1, size // (PROMPT + ANSWER * BEST_OF))
    starts = pairwise(range(0, (groups + 1) * BEST_OF, BEST_OF))
    best = [
        Rendered(p[:24] + p[24 - PROMPT :], a, closing) for p, (i, j) in zip(prompts, starts, strict=False) for a in answers[i:j]
    ]
    return {
        UNRELATED: _up_to([chosen for chosen, _ in pairs], size),
        PAIRS: _up_to([r for pair in pairs for r in pair], size),
        BEST: best,
    }


def _up_to(rendered: list[Rendered], size: int) -> list[Rendered]:
    taken, total = [], 0
    for r in rendered:
        if total >= size:
            break
        taken.append(r)
        total += len(r)
    return taken[: len(taken) // 2 * 2]
