"""A small world for what is made: chat and safety sources in prose, a recipe that makes every kind of it.

In: a folder, a backbone's folder.  Out: files of rows, the recipe's path.  Cost: none; a run on it takes seconds.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from small_run import write_lines, write_recipe

KINDS = ("relevance", "coherence", "completeness", "conciseness", "compliance")
THINGS = ["kettle", "ladder", "lantern", "compass", "basket", "saddle"]
THINGS += ["anchor", "pillow", "hammer", "candle", "bucket", "mirror"]
PLACES = ["kitchen", "garden", "harbour", "village"]
OBJECTIVES = [
    {"name": "chat-quality", "min": 0, "max": 4, "rater": "test"},
    {"name": "duty-is-safe", "min": 0, "max": 1, "rater": "test"},
]
ALL_MADE = [{"made": list(KINDS), "of": ["chat-*"], "cap": 60}]
CONTRAST = [
    {"made": ["relevance", "coherence", "completeness", "conciseness"], "of": ["chat-*"], "cap": 20, "share": 0.25},
    {"made": ["compliance"], "of": ["chat-pairs"], "share": 0.05, "name": "contrast"},
]


def prompt(i: int) -> str:
    return f"What is a {THINGS[i % 12]} good for in the {PLACES[i // 12]}?"


def answer(i: int, draw: random.Random) -> str:
    thing, place = THINGS[i % 12], PLACES[i // 12]
    lines = [
        f"A {thing} is of use to anybody in the {place}.",
        f"First of all it saves about {draw.randint(2, 90)} minutes a day.",
        f"Then the {thing} can be lent to a neighbour of yours.",
        f"In the end you will have it for {draw.randint(2, 90)} years.",
    ]
    return " ".join(lines[: draw.randint(3, 4)])


def write_world(folder: Path) -> None:
    """chat-ratings (96 rows), chat-pairs (96), duty-ratings (24, on prompts that chat has too), bench (8), as JSON Lines."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    rated = [{"id": f"r{i}-{n}", "prompt": prompt(i), "response": answer(i, draw)} for i in range(48) for n in range(2)]
    rows: dict[str, list[dict[str, Any]]] = {
        "chat-ratings": [row | {"chat-quality": draw.randint(0, 4)} for row in rated],
        "chat-pairs": [_pair(i % 48, f"p{i}", draw) for i in range(96)],
        "duty-ratings": [
            {"id": f"s{i}", "prompt": prompt(i), "response": answer(i, draw), "duty-is-safe": i % 2} for i in range(24)
        ],
        "bench": [_pair(i, f"b{i}", draw) for i in range(40, 48)],
    }
    for name, own in rows.items():
        write_lines(folder / f"{name}.jsonl", own)


def _pair(i: int, row_id: str, draw: random.Random) -> dict[str, Any]:
    return {"id": row_id, "prompt": prompt(i), "chosen": answer(i, draw), "rejected": f"Well, a {THINGS[i % 12]}. {row_id}."}


def made_recipe(folder: Path, backbone: Path, /, **changes: Any) -> Path:
    """The world's recipe, with every kind of ratings and pairs made; `changes` replace or extend whole parts of it."""
    whole: dict[str, Any] = {
        "objectives": OBJECTIVES,
        "ratings": [*({"path": str(folder / f"{name}-ratings.jsonl")} for name in ("chat", "duty")), *ALL_MADE],
        "pairs": [{"path": str(folder / "chat-pairs.jsonl")}, *CONTRAST],
        "harmless": ["chat-*"],
        "backbone": {"model": str(backbone), "dtype": "float32", "device": "cpu", "max_tokens": 512},
        "debias": {"nuisances": ["response-tokens"]},
        "splits": {"validation": 0.2, "test": 0.25},
    }
    for key, value in changes.items():
        whole[key] = {**whole.get(key, {}), **value} if isinstance(value, dict) else value
    return write_recipe(folder, backbone, **whole)
