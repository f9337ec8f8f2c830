"""Rows of any number in bounded memory: sources written, read, grouped, capped and put in order by the real `read_rows`.

    python benchmarks/rows.py [--sizes 2000,4000,8000] [--paper] [--folder FOLDER]

A size is a number of rows in all: 585 of 1,370 are ratings, the others pairs, as in the paper (`--paper` adds its 585,000 and
785,000 rows: about 6 GB of texts, for which `--folder` needs 16 GB). Texts have the lengths of the data in ARMORM_DATA where it
is given, else log-normal ones; prompts have several answers, and some are joined by a group that a source names. Each size is
read in a process of its own; printed are seconds, rows per second, peak memory, and the seconds of another pass over all texts
(the keys of the feature stores) and of one without texts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Figure, measure, write_results

from armorm.data.splits import components
from armorm.data.stored_rows import outlines
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, labels_key, store_key
from armorm.recipe import Recipe
from armorm.run.rows import read_rows

RATINGS, PAIRS, ITEMS = 585_000, 785_000, 3_000
PROMPT, ANSWER = (700.0, 1.2), (1300.0, 0.8)
"""Median and log-scale deviation of lengths in characters, where there are no data to take them from."""
OBJECTIVES = [{"name": f"quality-{i}", "min": 0, "max": 10} for i in range(19)]
FILES = 3
VOCABULARY, POOL = 30_000, 2**24


class Texts:
    """Texts with the lengths wanted, cut from words that are as frequent as words are."""

    def __init__(self, seed: int, lengths: dict[str, list[int]]) -> None:
        self.rng = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmwfgypbvk"))
        words = ["".join(self.rng.choice(letters, n)) for n in self.rng.integers(2, 11, VOCABULARY)]
        ranks = np.minimum(self.rng.zipf(1.2, POOL // 6), VOCABULARY) - 1
        self.pool = " ".join(words[rank] for rank in ranks.tolist())
        self.lengths = lengths

    def cut(self, kind: str, n: int) -> list[str]:
        """So many texts of a kind."""
        if found := self.lengths.get(kind):
            lengths = self.rng.choice(found, n)
        else:
            median, deviation = PROMPT if kind == "prompt" else ANSWER
            lengths = np.exp(self.rng.normal(np.log(median), deviation, n))
        lengths = np.clip(lengths, 8, 200_000).astype(int)
        starts = self.rng.integers(0, len(self.pool) - 200_000, n)
        return [self.pool[a : a + length] for a, length in zip(starts.tolist(), lengths.tolist(), strict=True)]


def real_lengths() -> dict[str, list[int]]:
    """Lengths of prompts and answers in the folder that ARMORM_DATA names; none without it."""
    found: dict[str, list[int]] = {"prompt": [], "answer": []}
    if folder := os.environ.get("ARMORM_DATA"):
        for file in sorted(Path(folder).glob("ratings/*.jsonl.gz")):
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for messages in (json.loads(line).get("messages") or [] for line in lines):
                    if messages:
                        found["prompt"].append(sum(len(m["content"]) for m in messages[:-1]))
                        found["answer"].append(len(messages[-1]["content"]))
    return {kind: lengths for kind, lengths in found.items() if lengths}


def write_sources(folder: Path, ratings: int, pairs: int) -> int:
    """Ratings, pairs and a benchmark as JSON Lines; returns their bytes. The same sizes give the same bytes."""
    texts = Texts(0, real_lengths())
    folder.mkdir(parents=True)
    size = 0
    for kind, n in (("ratings", ratings), ("pairs", pairs), ("bench", min(ITEMS, pairs // 20 + 1))):
        for part in range(FILES if kind != "bench" else 1):
            place = folder / f"{kind}-{part}.jsonl"
            rows = n // FILES + (part < n % FILES) if kind != "bench" else n
            with place.open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(row) + "\n" for row in _rows(texts, kind, part, rows))
            size += place.stat().st_size
    return size


def _rows(texts: Texts, kind: str, part: int, n: int) -> Iterator[dict[str, Any]]:
    # Two or three answers in a row share a prompt; one prompt in fifty has a group that joins it to others.
    rng, done = texts.rng, 0
    while done < n:
        size = min(2_000, n - done)
        prompts, answers, others = texts.cut("prompt", size // 2 + 1), texts.cut("answer", size), texts.cut("answer", size)
        for i in range(size):
            row: dict[str, Any] = {"id": f"{kind}-{part}-{done + i}", "prompt": prompts[i // 2]}
            if i // 2 % 50 == 0:
                row["talk"] = f"talk {int(rng.integers(n))}"
            if kind == "ratings":
                given = rng.choice(len(OBJECTIVES), 4, replace=False).tolist()
                row |= {"response": answers[i], **{f"quality-{j}": float(rng.integers(11)) for j in given}}
            else:
                row |= {"chosen": answers[i], "rejected": others[i], "section": ("chat", "code")[i % 2]}
            yield row
        done += size


def recipe_of(folder: Path) -> Recipe:
    """The recipe of the sources that `write_sources` wrote; the last file of pairs is capped."""
    columns = {"group": "talk"}
    files = {kind: sorted(folder.glob(f"{kind}-*.jsonl")) for kind in ("ratings", "pairs", "bench")}
    sources = {kind: [{"path": str(file), "columns": columns} for file in found] for kind, found in files.items()}
    sources["pairs"][-1]["cap"] = 100_000
    bench = [{"name": "bench", "source": sources.pop("bench")[0]}]
    return Recipe.model_validate({"name": "rows", "objectives": OBJECTIVES, "bench": bench, **sources})


def read(folder: str) -> dict[str, Any]:
    """Read the sources as a training does; seconds of the steps and what there was."""
    recipe = recipe_of(Path(folder))
    with tempfile.TemporaryDirectory(dir=folder) as place:
        times = [time.perf_counter()]
        rows = read_rows(recipe, recipe.load_objectives(), folder=Path(place))
        times.append(time.perf_counter())
        splits = rows.splits(recipe)
        held = sum(file.stat().st_size for file in Path(place).rglob("*") if file.is_file())
        sources = [found for kind in rows.kinds.values() for found in kind.values()]
        times.append(time.perf_counter())
        parts = FeatureSpec.parse("final:last").parts
        keys = [store_key(found, "none", ExtractionSettings(parts, parts)) for found in sources]
        times.append(time.perf_counter())
        keys += map(labels_key, sources)
        answers = sum(row.answers for found in sources for row in outlines(found))
        times.append(time.perf_counter())
        del rows, sources
    steps = dict(zip(("read", "splits", "texts", "outlines"), np.diff(times).round(2).tolist(), strict=True))
    return {"seconds": steps, "splits": splits, "held_mb": round(held / 1e6, 1), "answers": answers, "keys": len(set(keys))}


def join(n: int) -> int:
    """Groups of n rows of about n / 2 prompts, half of which a source's own groups join in twos."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, 2**64, n // 2 + 1, dtype=np.uint64)[rng.integers(0, n // 2 + 1, n)]
    given = np.where(rng.random(n) < 0.5, rng.integers(1, n // 2 + 2, n), 0).astype(np.uint64)
    return len(np.unique(components(prompts, given)))


def measured(folder: Path, ratings: int, pairs: int) -> dict[str, Any]:
    """One size: its sources written, read in a process of its own, and removed."""
    place = folder / f"rows-{ratings}-{pairs}"
    try:
        size = write_sources(place, ratings, pairs)
        found = measure(read, str(place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    rows = ratings + pairs
    joining = measure(join, rows)
    return {
        "ratings": ratings,
        "pairs": pairs,
        "mb": round(size / 1e6, 1),
        "rows_per_second": round(rows / found.value["seconds"]["read"]),
        "peak_mib": round(found.peak_mib),
        **found.value,
        "joining": {"seconds": round(joining.seconds, 2), "peak_mib": round(joining.peak_mib)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="2000,4000,8000")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    whole = RATINGS + PAIRS
    sizes = [(n * RATINGS // whole, n - n * RATINGS // whole) for n in map(int, given.sizes.split(","))]
    found = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for ratings, pairs in [*sizes, *([(RATINGS, PAIRS)] if given.paper else [])]:
            found.append(one := measured(Path(folder), ratings, pairs))
            steps = one["seconds"]
            print(
                f"{ratings:>9,} ratings {pairs:>9,} pairs {one['mb']:>6,.0f} MB: read in {steps['read']:,.1f} s "
                f"({one['rows_per_second']:,} rows/s), texts again {steps['texts']:,.1f} s, the rest {steps['outlines']:,.1f} s; "
                f"peak {one['peak_mib']:,} MiB, {one['held_mb']:,.0f} MB on disk; joining {one['joining']['seconds']:,.2f} s, "
                f"{one['joining']['peak_mib']:,} MiB",
                flush=True,
            )
    lengths = "ARMORM_DATA" if os.environ.get("ARMORM_DATA") else {"prompt": PROMPT, "answer": ANSWER}
    write_results("rows", {"sizes": found, "lengths": lengths}, [figure for one in found for figure in _figures(one)])


def _figures(one: dict[str, Any]) -> list[Figure]:
    size = f"{one['ratings'] + one['pairs']:,} rows, {one['mb']:,.0f} MB"
    return [
        Figure(f"rows read, grouped and sorted ({size})", one["rows_per_second"], "rows/s"),
        Figure(f"rows, peak memory ({size})", one["peak_mib"], "MiB", aim="at most 2,048"),
    ]


if __name__ == "__main__":
    main()
