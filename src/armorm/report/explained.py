"""One or two answers taken apart, and a profile checked: what the terminal and JSON show, and one self-contained HTML page.

In: `Explanation`s, a `Comparison`, a prompt's gate.  Out: `Explained`, `Fit`; tables, a page.
Cost: none; the page needs jinja2 (extra `report`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from armorm.conversation import Conversation
from armorm.disk import is_there, write_text
from armorm.errors import DataError
from armorm.numbers import count, decimal, percent, shorten, signed
from armorm.report.html import Bar, Level, level_bars, render_html, term_bars
from armorm.report.tables import Grid, Row, grid, table
from armorm.report.terminal import Shown
from armorm.results import Result
from armorm.scoring.comparison import Comparison
from armorm.scoring.explain import Change, Difference, Explanation, Term, bar, term_columns
from armorm.scoring.reference import Alike

GENERATOR = b'<meta name="generator" content="armorm">'
_PROMPT = 90  # characters of a prompt that are shown


@dataclass(frozen=True)
class Explained:
    """One or two answers taken apart; for a prompt alone, `explanations` is empty and `gate` is what it opens.

    `truncated` names the conversations that did not fit into `max_tokens` and were cut, `notes` what the chat template left out
    of each.
    """

    model: str
    prompts: Mapping[str, Conversation]
    answers: Mapping[str, str]
    explanations: Mapping[str, Explanation]
    comparison: Comparison | None = None
    gate: Mapping[str, float] = field(default_factory=dict)
    gate_as_trained: Mapping[str, float] = field(default_factory=dict)
    alike: tuple[Alike, ...] = ()
    profile: str | None = None
    references: int = 0
    max_tokens: int | None = None
    truncated: tuple[str, ...] = ()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def difference(self) -> Difference | None:
        """Of two answers, which terms make the difference."""
        return None if self.comparison is None else self.comparison.difference

    def remarks(self, label: str) -> list[str]:
        """How a conversation was read, in sentences; none where all of it was."""
        cut = f"too long for {count(self.max_tokens)} tokens: its oldest part was cut off and is lost to the score."
        left_out = f"the chat template left out or could not keep apart: {', '.join(self.notes.get(label, ()))}."
        return [cut] * (label in self.truncated) + [left_out] * (label in self.notes)

    def to_json(self) -> dict[str, Any]:
        """One answer: its explanation. Two: `answers`, `comparison` with the probability that the first is better, and
        `difference`. A prompt: `gate` and `alike`; how it was read."""
        if self.comparison is not None:
            answers = {name: one.to_json() for name, one in self.explanations.items()}
            difference = self.comparison.difference.to_json()
            return {"answers": answers, "comparison": self.comparison.facts(), "difference": difference}
        for one in self.explanations.values():
            return one.to_json()
        steered = {"profile": self.profile, "gate_as_trained": dict(self.gate_as_trained)} if self.profile is not None else {}
        notes = [note for found in self.notes.values() for note in found]
        read = {"truncated": bool(self.truncated), **({"notes": notes} if notes else {})}
        return {"gate": dict(self.gate), "alike": [a.to_json() for a in self.alike], **steered, **read}

    def parts(self) -> list[Any]:
        """For the terminal: the difference or the score with bars, then the gate's neighbours."""
        parts: list[Any] = []
        if self.comparison is not None:
            parts.append(self.comparison)
            parts += [Text(f"{name}: {one.sentence}") for name, one in self.explanations.items()]
        else:
            parts += list(self.explanations.values()) or [Shown(self._gate())]
        parts += [Text(f"{label}: {remark}") for label in self.prompts for remark in self.remarks(label)]
        return [*parts, Shown(alike_grid(self.alike))] if self.alike else parts

    def _gate(self) -> Grid:
        names = sorted(self.gate, key=lambda name: -self.gate[name])
        columns = {"as trained": [decimal(self.gate_as_trained[name]) for name in names]} if self.gate_as_trained else {}
        reach = max(self.gate.values(), default=0.0) or 1.0
        columns["weight"] = [decimal(self.gate[name]) for name in names]
        columns[""] = ["█" * round(20 * self.gate[name] / reach) for name in names]
        title = "weights that this prompt opens" + (f", profile {self.profile}" if self.profile is not None else "")
        rows = zip(names, *columns.values(), strict=True)
        return grid("gate", title, ("objective", *columns), rows, words=(0, len(columns)))


def alike_grid(alike: Sequence[Alike]) -> Grid:
    """Training prompts whose gate is like this one's."""
    rows = [[decimal(one.distance), one.source, shorten(one.prompt, _PROMPT)] for one in alike]
    return table("explain.alike", rows)


class MeanWeight(Result):
    """An objective's mean weight over the reference prompts."""

    as_trained: float
    """Without the profile."""
    steered: float
    """With it."""


class Fit(Result):
    """What a profile does to a model's mean weights."""

    profile: dict[str, Any]
    """The profile."""
    model: str
    """The model's folder or hub id."""
    fits: bool
    """Whether it fits; what does not is an error."""
    prompts: int = 0
    """Reference prompts, where the model has them."""
    mean_weights: Mapping[str, MeanWeight] | None = None
    """By objective, its mean weight over them."""

    def parts(self) -> list[Any]:
        """For the terminal: the verdict, and how each objective's mean weight moves."""
        verdict = Text(f"{self.profile['name']} fits {self.model}")
        if self.mean_weights is None:
            return [verdict]
        moves = {name: one.steered - one.as_trained for name, one in self.mean_weights.items()}
        reach = max(map(abs, moves.values()), default=0.0)
        rows: list[Row] = [
            [name, decimal(one.as_trained), decimal(one.steered), signed(moves[name]), bar(moves[name], reach).plain]
            for name, one in self.mean_weights.items()
        ]
        return [verdict, Shown(table("explain.weights", rows, prompts=count(self.prompts)))]


# -- the page -------------------------------------------------------------------------------------------------------------------


def write_explain_page(explained: Explained, path: Path) -> None:
    """Write the page, over an earlier one too. Raises `MissingExtra` without jinja2, DataError where something else is there
    already, `StorageError` where it can't be written."""
    there = is_there(path)
    if there and (path.is_symlink() or not (path.is_file() and GENERATOR in path.read_bytes()[:2000])):
        raise DataError(f"{path}: is there already and is no page of armorm's: remove it or choose another file")
    write_text(path, render_explain_page(explained), new=not there)


def render_explain_page(explained: Explained) -> str:
    """The page as text; the same explanation gives the same page."""
    gap, found = explained.difference, explained.explanations
    first = next(iter(explained.prompts.values()))
    common = all(one == first for one in explained.prompts.values())
    pair = explained.comparison
    sentences = [pair.sentence] if pair else [one.sentence for one in found.values()]
    return render_html(
        "explain_page.html.jinja",
        explained=explained,
        title=_title(explained),
        headline=_join_percent(sentences[0]) if sentences else "",
        prompt=first if common else (),
        head=_head(explained),
        remarks=() if found else [remark for label in explained.prompts for remark in explained.remarks(label)],
        answers=_answers(explained, common=common),
        difference=gap,
        moves=term_bars([[Bar(t.term, t.delta, _change_title(t), t.kind, t.share) for t in gap.terms]])[0] if gap else (),
        numbers=_numbers(gap) if gap else None,
        gate=_gate(explained.gate),
        gate_as_trained=_gate(explained.gate_as_trained),
        alike=alike_grid(explained.alike),
    )


def _join_percent(sentence: str) -> str:
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _title(explained: Explained) -> str:
    if explained.difference is not None:
        return "What makes the difference"
    return "What the score is the sum of" if explained.explanations else "What the prompt weighs"


def _head(explained: Explained) -> list[tuple[str, str]]:
    head = [("model", explained.model)]
    if explained.profile is not None:
        head.append(("profile", explained.profile))
    for label, one in explained.explanations.items():
        above = "" if one.percentile is None else f" (above {one.percentile:.0f} % of {count(one.answers)} reference answers)"
        head.append((label, f"{signed(one.score.score)}{above}"))
    return head


def _answers(explained: Explained, *, common: bool) -> list[dict[str, Any]]:
    found = explained.explanations
    if not found:
        return []
    terms = explained.difference.terms if explained.difference else next(iter(found.values())).terms
    order = [term.term for term in terms]
    ordered = [sorted(one.terms, key=lambda t: order.index(t.term)) for one in found.values()]
    columns = term_bars([[Bar(t.term, t.contribution, _term_title(t), t.kind) for t in rows] for rows in ordered])
    return [
        {
            "label": label,
            "text": explained.answers[label],
            "prompt": () if common else explained.prompts[label],
            "score": one.score.score,
            "remarks": explained.remarks(label),
            "sentence": _join_percent(one.sentence),
            "bars": bars,
            "terms": _grid(f"{label}: all {len(rows)} terms", rows, term_columns(rows)),
        }
        for (label, one), bars, rows in zip(found.items(), columns, ordered, strict=True)
    ]


def _term_title(t: Term) -> str:
    raw = "" if t.raw is None else f" (raw {decimal(t.raw, 2)})"
    return f"reward {decimal(t.reward)}{raw} × coefficient {signed(t.coefficient)}"


def _change_title(t: Change) -> str:
    return f"reward {decimal(t.reward_a)} against {decimal(t.reward_b)}, coefficient {signed(t.coefficient_a)}"


def _numbers(gap: Difference) -> Grid:
    columns = gap.columns()
    if not gap.same_weights:
        columns |= {
            "by the answers": [signed(t.by_answers, 4) for t in gap.terms],
            "by the weights": [signed(t.by_weights, 4) for t in gap.terms],
        }
    return _grid("Numbers", gap.terms, columns)


def _grid(title: str, terms: Sequence[Term | Change], columns: Mapping[str, Sequence[str]]) -> Grid:
    return grid("terms", title, ("term", *columns), zip([t.term for t in terms], *columns.values(), strict=True))


def _gate(gate: Mapping[str, float]) -> list[Level]:
    ordered = dict(sorted(gate.items(), key=lambda g: -g[1]))
    return level_bars(ordered, percent, chosen=next(iter(ordered), ""))
