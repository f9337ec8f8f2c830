"""What a judge's reply says: a verdict on two answers, a rating of one, or nothing that can be told.

In: a reply's text.  Out: P(A is better) in {0, 0.5, 1}, or a rating from 1 to 10; NaN where the reply doesn't say.
Cost: one pass over the reply.

Nothing is guessed. What counts is the last verdict in double brackets, or on a line of its own that names it (`Verdict: A`,
`[A]`); a letter or number without either counts only where it is the whole reply. A line that lists the choices ("[[A]] or
[[B]]") is no verdict, and what a model thinks before it answers (<think>…</think>) holds none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

PREFERENCE = {"A": 1.0, "B": 0.0, "C": 0.5, "TIE": 0.5}
LOWEST, HIGHEST = 1.0, 10.0
LONGEST_LINE = 80
"""A line that says only a verdict is short; longer ones are argument."""

_THOUGHTS = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_CHOICE = r"(?:(?:answer|assistant|response|option)\s+)?(?:a\s+(?=tie))?(a|b|c|tie)"
_NUMBER = r"([-+]?[0-9]{1,6}(?:[.,][0-9]{1,6})?)(?:\s*(?:/|out of)\s*10(?:\.0)?)?"
_STARS = r"[\s*_`]{0,6}"
_BEFORE = r"[\s*_`#>-]{0,8}"
_AFTER = r"[\s*_`.!]{0,8}"


class _Reading:
    # The forms in which a reply may state one kind of value.
    def __init__(self, value: str, named: str) -> None:
        naming = rf"(?:(?:my|the|final|overall)\s+){{0,3}}(?:{named})\b{_STARS}(?:[:=]|\bis\b\s*:?){_STARS}"
        self.doubled = re.compile(rf"\[\[{_STARS}{value}{_STARS}\]\]", re.IGNORECASE)
        self.named = re.compile(rf"{_BEFORE}{naming}\[?{value}\]?{_AFTER}", re.IGNORECASE)
        self.single = re.compile(rf"{_BEFORE}\[{_STARS}{value}{_STARS}\]{_AFTER}", re.IGNORECASE)
        self.bare = re.compile(rf"{_BEFORE}{value}{_AFTER}", re.IGNORECASE)

    def last(self, reply: str) -> str | None:
        lines = [line for line in _THOUGHTS.sub("", reply).splitlines() if line.strip()]
        said = [value for line in lines for value in self._in(line)]
        # Letters in single brackets may refer to an answer, and be a heading: only the reply's last line makes them a verdict.
        if lines and (end := _short(self.single, lines[-1])):
            return end
        if said:
            return said[-1]
        return _short(self.bare, lines[0]) if len(lines) == 1 else None

    def _in(self, line: str) -> Iterator[str | None]:
        if found := list(self.doubled.finditer(line)):
            yield None if _lists_choices(line, found) else found[-1][1]
        elif named := _short(self.named, line):
            yield named


_VERDICT = _Reading(_CHOICE, "verdict|winner|decision|choice|judge?ment|preference|better answer|answer")
_RATING = _Reading(_NUMBER, "rating|score|grade|verdict|overall")


def verdict(reply: str) -> float:
    """1 where the reply prefers the answer shown as A, 0 for B, 0.5 for a tie, NaN where it doesn't say."""
    said = _VERDICT.last(reply)
    return PREFERENCE[said.upper()] if said else math.nan


def rating(reply: str) -> float:
    """The rating from 1 to 10; NaN where the reply gives none or one off the scale."""
    said = _RATING.last(reply)
    number = float(said.replace(",", ".")) if said else math.nan
    return number if LOWEST <= number <= HIGHEST else math.nan


def _short(form: re.Pattern[str], line: str) -> str | None:
    found = form.fullmatch(line) if len(line) <= LONGEST_LINE else None
    return found[1] if found else None


def _lists_choices(line: str, found: list[re.Match[str]]) -> bool:
    # "[[A]], [[B]] or [[C]]", "[[A]] if A is better, [[B]] if B is, [[C]] if neither": the choices, not one of them.
    values = [m[1].upper() for m in found]
    if len(set(values)) > 2:
        return True
    if len(found) < 2 or values[-1] == values[-2]:
        return False
    between = line[found[-2].end() : found[-1].start()]
    return re.fullmatch(r"[\s,;/|*_]*(?:or|and|nor|vs\.?)?[\s*_]*", between, re.IGNORECASE) is not None
