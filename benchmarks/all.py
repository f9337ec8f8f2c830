"""Benchmarks one after another, and their table: `make bench`, `make bench SCALE=paper`, `make bench SCALE=all`.

    python benchmarks/all.py [--scale small|paper|all] [--vllm PYTHON]

In small (a quarter of an hour) everything runs and the results go to runs/bench; ratios grow with the size. `paper` is the whole
fit at the paper's size (half an hour on two cores, 30 GB of disk), `all` every benchmark whose results are kept (a few hours):
these two replace what benchmarks/results holds. The disk is looked at first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import PLACE, RESULTS, results_table

COMMANDS = {
    "small": (
        "rows.py",
        "probe.py --scale 0.01 --width 256 --times 3",
        "gate.py --pairs 8000 --rival-pairs 4000 --width 512 --steps 20 --all-steps 20",
        "bradley_terry.py --pairs 6000 --rival-pairs 3000 --width 256",
        "after_the_probe.py --pairs 6000 --width 256",
        "growth.py --width 64 --steps 50",
        "features.py --size 1500 --times 2",
        "pass_profile.py --size 1500",
        "whole_fit.py --scale 0.004 --width 256 --steps 20",
    ),
    "paper": ("whole_fit.py --steps 50",),
    "all": (
        "rows.py --sizes 10000,100000 --paper",
        "probe.py",
        "gate.py",
        "bradley_terry.py",
        "after_the_probe.py",
        "growth.py --million",
        "features.py --times 5",
        "pass_profile.py",
        "whole_fit.py --steps 50",
    ),
}
ROOM = {"small": 2e9, "paper": 35e9, "all": 40e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=COMMANDS, default="small")
    parser.add_argument("--vllm", metavar="PYTHON", help="the python of an environment that has vLLM, to compare with")
    given = parser.parse_args()
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < ROOM[given.scale]:
        raise SystemExit(
            f"{tempfile.gettempdir()}: {ROOM[given.scale] / 1e9:.0f} GB are needed for a while, {free / 1e9:.0f} GB are free: "
            "set TMPDIR to a larger place"
        )
    results = Path("runs/bench").resolve() if given.scale == "small" else RESULTS
    failed = [words for words in COMMANDS[given.scale] if not run(words, results, given.vllm)]
    print(results_table(results))
    if failed:
        raise SystemExit(f"failed: {'; '.join(failed)}")


def run(words: str, results: Path, vllm: str | None) -> bool:
    """Whether a benchmark ended well."""
    script, *more = words.split()
    if script == "features.py" and vllm:
        more += ["--vllm", vllm]
    print(f"\n== {words}", flush=True)
    command = [sys.executable, str(Path(__file__).with_name(script)), *more]
    return subprocess.run(command, env={**os.environ, PLACE: str(results)}, check=False).returncode == 0


if __name__ == "__main__":
    main()
