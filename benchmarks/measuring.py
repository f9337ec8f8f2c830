"""What every benchmark needs: a function timed in a process of its own, with its peak memory, and results kept as JSON.

    from measuring import measure, repeat, write_results

A fresh process has nothing warm and nothing held: its peak is the function's own (`ru_maxrss`, which counts mapped pages that
were touched). What the function returns goes through JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where the kept results are."""
PLACE = "ARMORM_BENCH_RESULTS"
"""The environment variable that leads results to another folder."""
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "transformers", "pyarrow")
RUN = (sys.executable, "-c", "from armorm.cli import main; import sys; sys.argv = ['armorm', *sys.argv[1:]]; main()")
"""The command line of `armorm` in this Python, whatever it is installed as."""
CHOSEN_BY_USER = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings of the linear algebra that would speed up one side: unset in every process that is measured."""


@dataclass(frozen=True)
class Measured:
    """What a function returned, the seconds it took (imports aside) and its process's peak memory in MiB."""

    value: Any
    seconds: float
    peak_mib: float


def measure(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a module's function in a fresh process. Its arguments and its value are JSON."""
    module = Path(sys.modules[function.__module__].__file__ or "").stem
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USER}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        words = [sys.executable, __file__, module, function.__name__, json.dumps(arguments, default=str), str(out)]
        subprocess.run(words, check=True, env=environment)
        return Measured(**json.loads(out.read_text(encoding="utf-8")))


def repeat(function: Callable[..., Any], *arguments: Any, times: int = 3) -> list[Measured]:
    """Several measurements, the fastest first: the one in the middle is the median."""
    return sorted((measure(function, *arguments) for _ in range(times)), key=lambda m: m.seconds)


def median(measured: Sequence[Measured]) -> float:
    """Seconds of the run in the middle."""
    return statistics.median(m.seconds for m in measured)


@dataclass(frozen=True)
class Figure:
    """A line of the table: what was measured, how much in which unit; against what, how much of that, and what was aimed at."""

    what: str
    value: float
    unit: str
    against: str = ""
    other: float | None = None
    aim: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The line's words: what, how much, against what, the ratio that speaks for us, the aim."""
        ratio = ""
        if self.other is not None:
            higher = self.unit.endswith("/s")  # of a rate more is better, of seconds and memory less
            ratio = f"{self.value / self.other if higher else self.other / self.value:.3g} ×"
        against = "" if self.other is None else f"{self.against}: {_digits(self.other)} {self.unit}"
        return self.what, f"{_digits(self.value)} {self.unit}", against, ratio, self.aim


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def results_folder() -> Path:
    """Where results go."""
    return Path(os.environ.get(PLACE) or RESULTS)


def write_results(name: str, facts: Mapping[str, Any], figures: Sequence[Figure] = ()) -> Path:
    """`results/NAME.json`: the facts, the figures for the table, and the commit, machine, threads and versions that they were
    measured with."""
    from armorm.report.provenance import provenance

    versions = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    results = results_folder()
    results.mkdir(parents=True, exist_ok=True)
    place = results / f"{name}.json"
    where = {**provenance(), "threads": os.cpu_count(), "versions": versions}
    whole = {**where, **facts, "figures": [asdict(figure) for figure in figures]}
    place.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"written: {place}")
    return place


def results_table(results: Path = RESULTS) -> str:
    """The figures of all results in a folder, as Markdown, and where each was measured."""
    lines, places = [], []
    for place in sorted(results.glob("*.json")):
        facts = json.loads(place.read_text(encoding="utf-8"))
        lines += [f"| {' | '.join(Figure(**figure).cells)} | `{place.stem}` |" for figure in facts["figures"]]
        places.append(
            f"- `{place.stem}`: {facts['machine']}; commit {facts['commit']}; {facts['created'][:10]}; `{facts['command']}`"
        )
    if not lines:
        return "No results are kept here: `make bench SCALE=all` makes them."
    head = ["| what | measured | beside it | ratio | aim | benchmark |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *lines, "", *places])


def _main(module: str, function: str, arguments: str, out: str) -> None:
    called = getattr(importlib.import_module(module), function)  # a benchmark's folder is on the path of its programs
    start = time.perf_counter()
    value = called(*json.loads(arguments))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(out).write_text(json.dumps({"value": value, "seconds": seconds, "peak_mib": peak}), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
