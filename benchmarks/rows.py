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
            lengths = "ARMORM_DATA" if os.environ.get("ARMORM_DATA") else {"prompt": PROMPT, "answer": ANSWER}

    write_results("rows", {"sizes": found, "lengths": lengths}, figures)


def _figures(one: dict[str, Any]) -> list[Figure]:
    size = f"{one['ratings'] + one['pairs']:,} rows, {one['mb']:,.0f} MB"
    return [
        Figure(f"rows read, grouped and sorted ({size})", one["rows_per_second"], "rows/s"),
        Figure(f"rows, peak memory ({size})", one["peak_mib"], "MiB", aim="at most 2,048"),
    ]


if __name__ == "__main__":
    main()
