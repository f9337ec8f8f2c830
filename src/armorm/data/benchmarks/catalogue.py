"""What is published about the benchmarks: `catalogue.json`, with every subset's size and every section's weights.

In: a benchmark's name, and where its items come from.  Out: the `Benchmark`.  Cost: the file is read once.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from armorm.data.benchmarks.benchmark import Benchmark, FileSet

CATALOGUE: dict[str, dict[str, Any]] = json.loads(resources.files(__package__).joinpath("catalogue.json").read_text("utf-8"))


def published_benchmark(name: str, *parts: FileSet) -> Benchmark:
    """The benchmark of this name, as its entry says."""
    return TypeAdapter(Benchmark).validate_python({**CATALOGUE[name], "name": name, "parts": parts})
