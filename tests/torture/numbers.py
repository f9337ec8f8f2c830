"""What a command left, file by file, without what differs from run to run.

In: a file or folder.  Out: `Numbers`: contents or digests by file.  Cost: one read of everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUMS = "SHA256SUMS"
"""Its digests are of files with times in them: which files it lists is compared, `armorm verify` checks the rest."""
Numbers = dict[str, str]

VOLATILE = {"created", "seconds", "tokens_per_second", "commit", "machine", "command", "sha256", "folder"}
"""Fields of JSON files that differ from run to run; a seal's digest covers them."""
PAGES = {".html", ".svg", ".md", ".png"}
"""Written for people, with times in them: looked at for damage, not for being the same."""
UNTOLD = {"timings.jsonl", "scores.jsonl", "audit-scores.jsonl"}
"""Timings, and what is kept to go on from: results are compared, not the notes they were made from."""


def numbers(place: Path) -> Numbers:
    """What was computed, by file: bytes, or for JSON the facts without times and machine. Pages and timings are left out."""
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    found = {}
    for path in files:
        if path.suffix not in PAGES and path.name not in UNTOLD and not is_leftover(path, place):
            name = path.name if path == place else str(path.relative_to(place))
            found[name] = _content(path)
    return found


def leftovers(place: Path) -> list[str]:
    """What an unfinished run left that a finished one should have taken away."""
    return sorted(str(p.relative_to(place)) for p in place.rglob("*") if is_leftover(p, place)) if place.is_dir() else []


def is_leftover(path: Path, place: Path) -> bool:
    return any(part.endswith((".part", ".parts")) for part in path.relative_to(place).parts)


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The files that differ, or are in one only."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _content(path: Path) -> str:
    data = path.read_bytes()
    if path.name == SUMS:
        return " ".join(sorted(line.split("  ", 1)[-1] for line in data.decode(errors="replace").splitlines() if line[:1] != "#"))
    if path.suffix == ".json":
        try:
            return json.dumps(_lasting(json.loads(data)), sort_keys=True)
        except (ValueError, RecursionError):
            return f"no JSON: {hashlib.sha256(data).hexdigest()}"
    return hashlib.sha256(data).hexdigest()


def _lasting(facts: Any) -> Any:
    if isinstance(facts, dict):
        return {key: _lasting(value) for key, value in facts.items() if key not in VOLATILE}
    return [_lasting(one) for one in facts] if isinstance(facts, list) else facts
