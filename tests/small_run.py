"""A whole run in small: two sources of ratings on different scales, pairs, a benchmark with sections, a recipe.

In: a folder, a backbone's folder.  Out: the recipe's path.  Cost: none; training on it takes seconds.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from armorm.conversation import Conversation
from armorm.data.rows import texts_of
from armorm.features.answers import Answers, open_answers
from armorm.features.extract import Features
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, Row, write_answers

Outcome = tuple[int, str, str]
"""What a command gave: exit code, stdout, stderr."""
Armorm = Callable[..., Outcome]
"""The command line, called in this process with its words (the fixture `armorm`)."""
TUNING = {
    "steps": 8,
    "batch_size": 4,
    "micro_batch": 2,
    "save_every": 2,
    "evaluate": 0,
    "learning_rate": 1e-3,
    "lora": {"rank": 2, "dropout": 0.3},
}
"""Of a training in seconds. Dropout, so that one that goes on without its random state ends otherwise."""
PROMPTS = 60
GOOD, BAD, FILLER = "fine thank you", "return x", "hello how are you"
OBJECTIVES = [
    {"name": "panel-quality", "min": 0, "max": 4, "rater": "test"},
    {"name": "panel-verbosity", "min": 0, "max": 4, "direction": "neutral", "rater": "test"},
    {"name": "judge-quality", "min": 1, "max": 10, "rater": "test"},
]


def write_rows(folder: Path, *, shuffled: bool = False, items: int = 24) -> None:
    """ratings-panel, ratings-judge (120 rows together), pairs (80 rows) and bench (`items`) as JSON Lines, objectives as JSON.

    Quality is the share of good words in an answer; the panel likes length too. `shuffled` permutes the ratings over the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    panel, judge = [], []
    for i in range(PROMPTS):
        for n, rows in enumerate((panel, judge)):
            answer, quality, length = _answer(draw)
            ratings = _panel(quality, length, i) if n == 0 else {"judge-quality": str(round(1 + 9 * quality))}
            rows.append({"id": f"r{i}-{n}", "prompt": _prompt(i), "response": answer, **ratings})
    for rows, names in ((panel, ("panel-quality", "panel-verbosity")), (judge, ("judge-quality",))):
        if shuffled:
            given = [{n: r.pop(n) for n in names if n in r} for r in rows]
            draw.shuffle(given)
            for row, ratings in zip(rows, given, strict=True):
                row.update(ratings)
    judge.append({"id": "broken", "prompt": _prompt(0), "response": "fine", "judge-quality": "11"})
    pairs = [_pair(draw, i % PROMPTS, f"p{i}") for i in range(80)]
    bench = [_pair(draw, PROMPTS + i, f"b{i}") | {"section": ("chat", "code")[i % 2]} for i in range(items - 1)]
    bench.append(_pair(draw, 0, "b-seen") | {"section": "chat"})
    for name, rows in (("ratings-panel", panel), ("ratings-judge", judge), ("pairs", pairs), ("bench", bench)):
        write_lines(folder / f"{name}.jsonl", rows)
    (folder / "objectives.json").write_text(json.dumps(OBJECTIVES), encoding="utf-8")


def write_recipe(folder: Path, backbone: Path, /, **changes: Any) -> Path:
    """The rows' recipe; `changes` replace or extend whole parts of it (dicts are merged)."""
    recipe: dict[str, Any] = {
        "name": "small",
        "backbone": {"model": str(backbone), "dtype": "float32", "device": "cpu", "max_tokens": 256},
        "objectives": str(folder / "objectives.json"),
        "ratings": [{"path": str(folder / "ratings-*.jsonl")}],
        "pairs": [{"path": str(folder / "pairs.jsonl")}],
        "bench": [{"name": "small-bench", "source": {"path": str(folder / "bench.jsonl")}}],
        "splits": {"validation": 0.15, "test": 0.2},
        "features": {"response": ["2:mean", "final:last"], "prompt": "2:last", "store_dtype": "float32"},
        "probe": {"folds": 3},
        "debias": {"nuisances": ["panel-verbosity"]},
        "gate": {"hidden": 16, "hidden_layers": 1, "steps": 40, "batch_size": 32, "evaluate_every": 10},
        "examples": 4,
    }
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def open_stores(folder: Path, rows: Mapping[str, Any]) -> dict[str, Answers]:
    """The stores of a finished run's sources, by the name of the source; `rows` tells namesakes apart by their number."""
    opened = {}
    for name, own in rows.items():
        (opened[name],) = [s for p in folder.glob(f"{name}-*") if (s := open_answers(p)) and len(s) == len(own)]
    return opened


def planted_store(
    home: Path, rows: Sequence[Row], response: np.ndarray, prompt: np.ndarray, tokens: np.ndarray, *, shard_rows: int = 512
) -> Answers:
    """A store of made-up features at final:last, written as the extraction writes it: responses [a d], prompts [n v]."""
    parts = FeatureSpec.parse("final:last").parts
    settings = ExtractionSettings(parts, parts, store_dtype="float32", shard_rows=shard_rows)
    sizes = [len(texts_of(row)[1]) for row in rows]
    repeated, done = np.repeat(prompt, sizes, axis=0), 0

    def compute(conversations: Sequence[Conversation], _tick: Callable[[int], None]) -> Features:
        nonlocal done
        at, n = slice(done, done + len(conversations)), len(conversations)
        done += n
        zeros = np.zeros(n, np.int64)
        parts = {"final:last": response[at].astype(np.float32)}, {"final:last": repeated[at].astype(np.float32)}
        return Features(*parts, tokens[at].astype(np.int64), zeros, zeros.astype(bool), n)

    facts = {"source": home.name, "backbone": {"name": "none", "fingerprint": "none", "width": response.shape[1]}}
    return write_answers(home, rows, facts, settings, compute)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _panel(quality: float, length: float, i: int) -> dict[str, int]:
    ratings = {"panel-quality": round(4 * min(1.0, 0.7 * quality + 0.3 * length)), "panel-verbosity": round(4 * length)}
    if i % 5 == 0:  # a label is missing here and there
        del ratings[("panel-quality", "panel-verbosity")[i % 2]]
    return ratings


def _answer(draw: random.Random) -> tuple[str, float, float]:
    words = draw.randint(2, 14)
    quality = draw.random()
    chosen = [GOOD if draw.random() < quality else BAD for _ in range(words)]
    return " ".join(chosen), chosen.count(GOOD) / words, (words - 2) / 12


def _pair(draw: random.Random, i: int, row_id: str) -> dict[str, Any]:
    one, two = _answer(draw), _answer(draw)
    while abs(one[1] - two[1]) < 0.1:
        two = _answer(draw)
    chosen, rejected = (one, two) if one[1] > two[1] else (two, one)
    return {"id": row_id, "prompt": _prompt(i), "chosen": chosen[0], "rejected": rejected[0]}


def _prompt(i: int) -> str:
    return f"{FILLER} {i} + {i % 7} is?"
