"""What attacks came to: outcomes, their tally by kind of attack, the table and the JSON.

In: `Outcome`s.  Out: `Line`s, text, JSON facts.  Cost: none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HELD = ("survived", "refused", "harmless")
BROKEN = ("silent", "traceback", "hang", "touched", "unnamed")
COLUMNS = {
    "attack": "attack",
    "tried": "tried",
    "survived": "survived",
    "refused": "refused",
    "harmless": "harmless",
    "silent": "silent",
    "traceback": "tracebacks",
    "hang": "hangs",
    "touched": "touched",
    "unnamed": "cause not named",
    "rss": "memory, MiB",
    "seconds": "seconds",
}
KEPT_FINDINGS = 400


@dataclass(frozen=True)
class Outcome:
    """What one attack came to. `kind` is what was attacked, `told` the error's name or what was wrong, `how` how to do it again.

    survived: the same result as without the attack. refused: an error of ours. harmless: the damage is there and changes no
    number. silent: another result and no word. touched: a file of somebody else's was changed. unnamed: an error that doesn't
    say the cause.
    """

    verdict: str
    kind: str
    told: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)
    rss: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        assert self.verdict in (*HELD, *BROKEN), self.verdict


@dataclass
class Line:
    """The tally of one attack. `found`: what broke, alike ones counted, the first with its reproduction. `note`: of the line."""

    attack: str
    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    found: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    rss: int = 0
    seconds: float = 0.0
    missed: int = 0
    left_behind: int = 0
    note: str = ""

    def add(self, outcome: Outcome, command: str) -> None:
        self.verdicts[outcome.verdict] += outcome.count
        self.kinds.setdefault(outcome.kind, Counter())[outcome.verdict] += outcome.count
        self.rss = max(self.rss, outcome.rss)
        if outcome.verdict == "refused":
            self.errors[outcome.told or "error"] += outcome.count
        if outcome.verdict in BROKEN:
            alike = (outcome.verdict, outcome.kind, _alike(outcome))
            if alike in self.found:
                self.found[alike]["count"] += outcome.count
            elif len(self.found) < KEPT_FINDINGS:
                about = {"verdict": outcome.verdict, "kind": outcome.kind, "told": outcome.told, "count": outcome.count}
                self.found[alike] = {"attack": self.attack, **about, "command": command, **outcome.how}

    def merge(self, other: Line) -> None:
        """Add another lane's tally of the same attack."""
        self.verdicts.update(other.verdicts)
        for kind, counts in other.kinds.items():
            self.kinds.setdefault(kind, Counter()).update(counts)
        self.errors.update(other.errors)
        for alike, about in other.found.items():
            known = self.found.setdefault(alike, {**about, "count": 0})
            known["count"] += about["count"]
        self.rss, self.seconds = max(self.rss, other.rss), self.seconds + other.seconds
        self.missed, self.left_behind = self.missed + other.missed, self.left_behind + other.left_behind
        self.note = self.note or other.note

    @property
    def findings(self) -> list[dict[str, Any]]:
        return list(self.found.values())

    @property
    def tried(self) -> int:
        return sum(count for verdict, count in self.verdicts.items() if verdict != "touched")

    @property
    def broken(self) -> int:
        return sum(self.verdicts[verdict] for verdict in BROKEN)

    def to_json(self) -> dict[str, Any]:
        counts = {verdict: self.verdicts[verdict] for verdict in (*HELD, *BROKEN)}
        return {
            "attack": self.attack,
            "tried": self.tried,
            **counts,
            "rss": self.rss,
            "seconds": round(self.seconds, 1),
            "missed": self.missed,
            "left_behind": self.left_behind,
            "note": self.note,
            "errors": dict(self.errors.most_common()),
            "kinds": {kind: dict(counts) for kind, counts in sorted(self.kinds.items())},
        }


def _alike(outcome: Outcome) -> str:
    """What findings of one cause share: the exception and the innermost place of ours, or the words without numbers and paths."""
    if outcome.verdict == "traceback":
        places = re.findall(r'armorm/(\S+\.py)", line \d+, in (\w+)', str(outcome.how.get("said", "")))
        return f"{outcome.told.partition(':')[0]} {places[-1] if places else ''}"
    return re.sub(r"\d+|/\S+|'.*?'", "*", outcome.told)


def total(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All lines as one: sums, and the largest memory."""
    lines = list(lines)
    summed = {name: sum(line[name] for line in lines) for name in COLUMNS if name not in ("attack", "rss")}
    return {"attack": "all", **summed, "rss": max((line["rss"] for line in lines), default=0)}


def markdown_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines and their sum, as docs/reliability.md shows them."""
    head = [f"| {' | '.join(COLUMNS.values())} |", f"|---|{'---|' * (len(COLUMNS) - 1)}"]
    notes = [f"{line['attack']}: {line['note']}." for line in lines if line["note"]]
    return "\n".join(
        [*head, *(f"| {' | '.join(_cells(line))} |" for line in (*lines, total(lines))), *(["", *notes] if notes else [])]
    )


def text_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The same for a terminal."""
    rows = [list(COLUMNS.values()), *(_cells(line) for line in (*lines, total(lines)))]
    wide = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, wide, strict=True))) for r in rows
    )


def _cells(line: Mapping[str, Any]) -> list[str]:
    return [f"{line[name]:,.0f}" if isinstance(line[name], int | float) else str(line[name]) for name in COLUMNS]
