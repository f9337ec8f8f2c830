"""`python -m tests.torture`: attacks for so many minutes, a table, exit code 1 where something broke.

In: minutes, a seed, names of attacks.  Out: the table on stdout, findings on stderr, JSON.  Cost: the minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture import plants
from tests.torture.attack import Attack
from tests.torture.children import import_everything
from tests.torture.outcomes import Line, markdown_table, text_table, total
from tests.torture.registry import ATTACKS
from tests.torture.schedule import count, move, side_by_side
from tests.torture.world import WINDOW, World


def main() -> int:
    given = _arguments()
    if given.table:
        print(markdown_table(json.loads(given.table.read_text(encoding="utf-8"))["attacks"]))
        return 0
    warnings.simplefilter("ignore")
    base = Path(tempfile.mkdtemp(prefix="torture-", dir=given.work))
    try:
        return _tortured(given, base)
    finally:
        if given.keep:
            print(f"kept: {base}", file=sys.stderr)
        else:
            shutil.rmtree(base, ignore_errors=True)


def _tortured(given: argparse.Namespace, base: Path) -> int:
    import_everything()
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(base / "home")
    _smaller_windows()
    world = World(base)
    world.prepare()
    if given.prove:
        found = plants.prove(world)
        print(json.dumps(found, indent=1))
        return int(not all(counts["with"] and not counts["without"] for counts in found.values()))
    attacks = [ATTACKS[name](world) for name in given.only]
    for attack in attacks:
        attack.prepare()
    if given.moves is not None:
        lines = count(attacks, given.moves, given.seed, _telling())
    elif given.at is None:
        lines = side_by_side(attacks, 60 * given.minutes, given.seed, given.lanes, tell=_telling())
    else:
        lines = [Line(attack.name) for attack in attacks]
        for attack, line in zip(attacks, lines, strict=True):
            move(attack, given.seed, given.at, line, _telling())
    return _reported(given, attacks, lines)


def _reported(given: argparse.Namespace, attacks: list[Attack], lines: list[Line]) -> int:
    facts = [line.to_json() for line in lines]
    print(text_table(facts))
    for line in lines:
        if line.note:
            print(f"{line.attack}: {line.note}")
    if given.json is not None:
        from armorm.disk import write_json

        about = {**_about(), "minutes": given.minutes, "lanes": given.lanes, "seed": given.seed}
        write_json(
            given.json, {**about, "attacks": facts, "all": total(facts), "findings": [f for n in lines for f in n.findings]}
        )
    return int(any(line.broken for line in lines))


def _about() -> dict[str, Any]:
    import numpy
    import pyarrow
    import safetensors
    import tokenizers
    import torch
    import transformers

    from armorm.report.provenance import provenance

    libraries = {m.__name__: m.__version__ for m in (torch, transformers, tokenizers, safetensors, numpy, pyarrow)}
    return {**provenance(), "python": platform.python_version(), "libraries": libraries}


def _smaller_windows() -> None:
    # A scored file of few rows has several windows then, and hits fall between them.
    from armorm.jobs import score_file

    score_file.WINDOW_ANSWERS = WINDOW


def _telling() -> Callable[[str], None]:
    # On this process's stderr, from the forks that have another as well.
    own = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")

    def tell(text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, file=own, flush=True)

    return tell


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--moves", type=int, help="so many moves of each attack, however long they take, in place of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=1, help="processes that attack side by side, each on a core")
    parser.add_argument("--only", default="", help=f"names, separated by commas: {', '.join(ATTACKS)}")
    parser.add_argument("--at", type=int, help="one move alone, of this number: as a finding's command has it")
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--table", type=Path, help="print such a file as a table, and do nothing else")
    parser.add_argument("--work", type=Path, help="where the scratch folder goes [default: the system's]")
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder")
    parser.add_argument("--prove", action="store_true", help="put faults in on purpose and see that each is found")
    given = parser.parse_args()
    given.only = [name.strip() for name in given.only.split(",") if name.strip()] or list(ATTACKS)
    if unknown := sorted(set(given.only) - set(ATTACKS)):
        parser.error(f"no such attack: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
