"""Explanations: what a score is the sum of, and what makes the difference between two.

In: `Score`s, a `Reference` for percentiles.  Out: `Explanation`, `Difference`: rows, a sentence, JSON, a data frame, a plot.
Cost: none; pandas and matplotlib are loaded when asked for.

Shares. Of one score: contribution / Σ |contribution|, with its sign, so that the sizes sum to 1 whatever the score is. Of a
difference: Δ contribution / Δ score, so that they sum to 1; where terms oppose each other a share is above 1 or below 0, and the
sentence says what speaks against. A difference below a thousandth of the answers' Σ |contribution| is none to speak of: it has
no shares.

Δ contribution of a term with coefficients c and values t splits exactly: ½ (c_a + c_b)(t_a − t_b) by the answers, and
½ (t_a + t_b)(c_a − c_b) by the weights, which is 0 where both answer the same prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from armorm.errors import MissingExtra, ObjectiveMismatch
from armorm.numbers import DASH, decimal, listed, percent, signed
from armorm.scoring.reference import SCORE, Alike, Reference
from armorm.scoring.score import Score

Kind = Literal["objective", "nuisance", "constraint"]
"""What a term is: a reward, a computed nuisance that the debiasing subtracts, or a profile's constraint that is missed."""

_whole_percent = partial(percent, digits=0)
NO_DIFFERENCE = 1e-3
WORTH_NAMING = 0.05
CANCELLING = 5.0
SAME_WEIGHTS = 1e-4


@dataclass(frozen=True)
class Term:
    """One term of a score. `reward` is its value, on the 0–1 scale for objectives. None: this kind of term has no such thing."""

    term: str
    kind: Kind
    reward: float
    raw: float | None
    percentile: float | None
    gate: float | None
    gate_as_trained: float | None
    coefficient: float
    contribution: float
    share: float


@dataclass(frozen=True)
class Explanation:
    """A score's terms, the largest contribution first; the score's percentile, and prompts with a gate like this one's.

    Percentiles and prompts are None and empty without a `Reference`; the score has no percentile under a profile.
    """

    score: Score
    terms: tuple[Term, ...]
    percentile: float | None = None
    answers: int = 0
    alike: tuple[Alike, ...] = ()

    @property
    def sentence(self) -> str:
        """What one would say of it."""
        text = f"The score is {decimal(self.score.score)}"
        if self.percentile is not None:
            text += f", higher than {self.percentile:.0f} % of the {self.answers:,} reference answers"
        if self.score.profile is not None:
            text += f", under the profile {self.score.profile}"
        named = [t for t in self.terms if abs(t.share) >= WORTH_NAMING]
        for_it, against = [t for t in named if t.share > 0][:3], [t for t in named if t.share < 0][:3]
        if for_it:
            text += f". Its largest parts are {listed(f'{t.term} ({_whole_percent(t.share)})' for t in for_it)}"
        if against:
            pulls = "pulls" if len(against) == 1 else "pull"
            text += (
                "; " if for_it else ". "
            ) + f"{listed(f'{t.term} ({_whole_percent(t.share)})' for t in against)} {pulls} it down"
        return f"{text}."

    def to_json(self) -> dict[str, Any]:
        return self.score.to_json() | {
            "sentence": self.sentence,
            "percentile": self.percentile,
            "reference_answers": self.answers,
            "rows": [asdict(t) for t in self.terms],
            "alike": [a.to_json() for a in self.alike],
        }

    def to_frame(self) -> Any:
        """A pandas data frame, one row per term. Raises MissingExtra without pandas."""
        return _frame(self.terms, Term)

    def plot(self) -> Any:
        """Contributions as bars: a matplotlib figure. Raises MissingExtra without matplotlib."""
        return _bars([(t.term, t.contribution) for t in self.terms], f"score {decimal(self.score.score)}", "contribution")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        title = f"score {decimal(self.score.score)}"
        title += f", profile {self.score.profile}" if self.score.profile is not None else ""
        yield _table(title, term_columns(self.terms), [(t.term, t.contribution) for t in self.terms])
        yield Text(self.sentence)


@dataclass(frozen=True)
class Change:
    """One term of a difference: Δ contribution and its share; what is due to the answers, and to the weights."""

    term: str
    kind: Kind
    reward_a: float
    reward_b: float
    coefficient_a: float
    coefficient_b: float
    delta: float
    share: float | None
    by_answers: float
    by_weights: float


@dataclass(frozen=True)
class Difference:
    """Score of `a` minus score of `b`, term by term, the largest first; the terms' deltas sum to `delta`.

    `same_weights`: both were weighed alike, as answers to one prompt are. `to_speak_of` is False where the difference is next to
    nothing; there are no shares then. `std`: how far the difference may be off because ratings were few, where the model knows
    (`RewardModel.difference` asks it); how likely it is to be right is another question (`RewardModel.compare`).
    """

    a: Score
    b: Score
    names: tuple[str, str]
    delta: float
    terms: tuple[Change, ...]
    same_weights: bool
    to_speak_of: bool
    std: float | None = None

    @property
    def sentence(self) -> str:
        """What one would say of it: "72 % of the difference is safety"."""
        a, b = self.names
        if not self.to_speak_of:
            scores = f"{decimal(self.a.score)} and {decimal(self.b.score)}"
            return f"{_capital(a)} and {b} score alike ({scores}): no difference to speak of."
        text = f"{_capital(a)} scores {decimal(abs(self.delta))} {'higher' if self.delta > 0 else 'lower'} than {b}"
        text += self._reasons()
        if not self.same_weights:
            part = math.fsum(t.by_weights for t in self.terms) / self.delta
            text += f". The two were weighed differently, which makes {_whole_percent(part)} of the difference"
        return f"{text}."

    def _reasons(self) -> str:
        named = [(t, t.share) for t in self.terms if t.share is not None and abs(t.share) >= WORTH_NAMING]
        with_it, against = [n for n in named if n[1] > 0][:3], [n for n in named if n[1] < 0][:3]
        if not with_it:
            return "; no single objective makes much of it"
        if sum(abs(t.share or 0.0) for t in self.terms) > CANCELLING:
            one, other = (listed(f"{t.term} ({signed(t.delta)})" for t, _ in side) for side in (with_it, against))
            return f": larger differences nearly cancel, {one} on one side, {other} on the other"
        (first, share), *rest = with_it
        others = [f"{_whole_percent(s)} {t.term}" for t, s in rest]
        text = f"; {listed([f'{_whole_percent(share)} of the difference is {first.term}', *others])}"
        if against:
            speak = "speaks" if len(against) == 1 else "speak"
            text += f"; {listed(f'{t.term} ({_whole_percent(s)})' for t, s in against)} {speak} against it"
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "scores": [self.a.score, self.b.score],
            "delta": self.delta,
            "std": self.std,
            "same_weights": self.same_weights,
            "to_speak_of": self.to_speak_of,
            "sentence": self.sentence,
            "rows": [asdict(t) for t in self.terms],
        }

    def to_frame(self) -> Any:
        """A pandas data frame, one row per term. Raises MissingExtra without pandas."""
        return _frame(self.terms, Change)

    def plot(self) -> Any:
        """Δ contributions as bars: a matplotlib figure. Raises MissingExtra without matplotlib."""
        title = f"{self.names[0]} − {self.names[1]}: {signed(self.delta)}"
        return _bars([(t.term, t.delta) for t in self.terms], title, "difference of contributions")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        a, b = self.names
        shares = {"share": ["" if t.share is None else _whole_percent(t.share) for t in self.terms]}
        title = f"{a} − {b}: {signed(self.delta, 4)}"
        yield _table(title, self.columns() | shares, [(t.term, t.delta) for t in self.terms])
        yield Text(self.sentence)

    def columns(self) -> dict[str, list[str]]:
        """What a table of the terms shows, by the columns' heads."""
        a, b = self.names
        columns = {a: [decimal(t.reward_a) for t in self.terms], b: [decimal(t.reward_b) for t in self.terms]}
        first = "coefficient" if self.same_weights else f"coefficient {a}"
        columns[first] = [signed(t.coefficient_a, 4) for t in self.terms]
        if not self.same_weights:
            columns[f"coefficient {b}"] = [signed(t.coefficient_b, 4) for t in self.terms]
        return columns | {"difference": [signed(t.delta, 4) for t in self.terms]}


def explain(score: Score, reference: Reference | None = None, *, alike: int = 5) -> Explanation:
    """Take one score apart; with a reference, say how its rewards and its gate compare.

    Raises ObjectiveMismatch when the reference is of another model's objectives.
    """
    size = math.fsum(abs(c) for c in score.contributions.values())
    terms = [
        Term(
            term=name,
            kind=_kind(name, score),
            reward=score.terms[name],
            raw=score.raw.get(name),
            percentile=reference.percentile(name, score.rewards[name]) if reference and name in score.rewards else None,
            gate=score.gate.get(name),
            gate_as_trained=score.gate_as_trained.get(name),
            coefficient=score.coefficients[name],
            contribution=contribution,
            share=contribution / size if size else 0.0,
        )
        for name, contribution in score.contributions.items()
    ]
    ordered = tuple(sorted(terms, key=lambda t: -abs(t.contribution)))
    if reference is None:
        return Explanation(score, ordered)
    percentile = reference.percentile(SCORE, score.score) if score.profile is None else None
    near = reference.alike(score.gate_as_trained or score.gate, alike) if alike else ()
    return Explanation(score, ordered, percentile, reference.answers, near)


def difference(a: Score, b: Score, *, names: tuple[str, str] = ("A", "B"), std: float | None = None) -> Difference:
    """Which terms make the difference between two scores of one model; `std` is the difference's standard deviation, if known.

    Raises ObjectiveMismatch when they have different terms.
    """
    if a.contributions.keys() != b.contributions.keys():
        one_only = sorted(a.contributions.keys() ^ b.contributions.keys())
        raise ObjectiveMismatch(
            f"only one of the two scores has {', '.join(one_only)}: compare scores of one model under one profile"
        )
    deltas = {name: a.contributions[name] - b.contributions[name] for name in a.contributions}
    delta = math.fsum(deltas.values())
    size = math.fsum(abs(c) for s in (a, b) for c in s.contributions.values()) / 2
    to_speak_of = abs(delta) > NO_DIFFERENCE * size
    changes = [
        _change(name, a, b, share=change / delta if to_speak_of else None, delta=change) for name, change in deltas.items()
    ]
    ordered = tuple(sorted(changes, key=lambda t: -abs(t.delta)))
    return Difference(a, b, names, delta, ordered, _same_weights(a, b), to_speak_of, std)


def _change(name: str, a: Score, b: Score, *, delta: float, share: float | None) -> Change:
    coefficients, values = (a.coefficients[name], b.coefficients[name]), (a.terms[name], b.terms[name])
    return Change(
        term=name,
        kind=_kind(name, a),
        reward_a=values[0],
        reward_b=values[1],
        coefficient_a=coefficients[0],
        coefficient_b=coefficients[1],
        delta=delta,
        share=share,
        by_answers=sum(coefficients) / 2 * (values[0] - values[1]),
        by_weights=sum(values) / 2 * (coefficients[0] - coefficients[1]),
    )


def _kind(name: str, score: Score) -> Kind:
    return "objective" if name in score.rewards else "constraint" if name in score.constraints else "nuisance"


def _same_weights(a: Score, b: Score) -> bool:
    # Up to what 32-bit arithmetic in batches of other sizes leaves.
    largest = max((abs(c) for c in a.coefficients.values()), default=0.0)
    return all(abs(c - b.coefficients[name]) <= SAME_WEIGHTS * largest for name, c in a.coefficients.items())


def bar(value: float, reach: float, *, half: int = 10) -> Text:
    """A bar from the middle of 2 · half + 1 characters: to the right for plus, to the left for minus."""
    steps = round(2 * half * abs(value) / reach) if reach else 0
    whole, rest = divmod(steps, 2)
    if value >= 0:
        drawn = "█" * whole + "▌" * rest
        return Text(" " * half + "│") + Text(drawn.ljust(half), style="blue")
    drawn = "▐" * rest + "█" * whole
    return Text(drawn.rjust(half), style="dark_orange") + Text("│" + " " * half)


def term_columns(terms: Sequence[Term]) -> dict[str, list[str]]:
    """What a table of a score's terms shows, by the columns' heads; without the columns in which no term has anything."""
    columns = {
        "reward": [decimal(t.reward) for t in terms],
        "raw": [decimal(t.raw) for t in terms],
        "percentile": [decimal(t.percentile, 0) for t in terms],
        "gate as trained": [decimal(t.gate_as_trained) for t in terms],
        "gate": [decimal(t.gate) for t in terms],
        "coefficient": [signed(t.coefficient, 4) for t in terms],
        "contribution": [signed(t.contribution, 4) for t in terms],
        "share": [_whole_percent(t.share) for t in terms],
    }
    return {head: texts for head, texts in columns.items() if set(texts) != {DASH}}


def _table(title: str, columns: Mapping[str, Sequence[str]], values: Sequence[tuple[str, float]]) -> Table:
    # A row a term: its columns, and its value as a bar.
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    table.add_column("term")
    for name in columns:
        table.add_column(Text(name), justify="right")
    table.add_column("", no_wrap=True)
    reach = max((abs(value) for _, value in values), default=0.0)
    for (name, value), *cells in zip(values, *columns.values(), strict=True):
        table.add_row(Text(name), *cells, bar(value, reach))
    return table


def _frame(rows: Sequence[Any], kind: type) -> Any:
    try:
        pandas = import_module("pandas")
    except ImportError as missing:
        raise MissingExtra("a data frame", "pandas", "report") from missing
    return pandas.DataFrame([asdict(row) for row in rows], columns=list(kind.__dataclass_fields__))  # type: ignore[attr-defined]


def _bars(values: Sequence[tuple[str, float]], title: str, label: str) -> Any:
    try:
        figures = import_module("matplotlib.figure")
    except ImportError as missing:
        raise MissingExtra("a plot", "matplotlib", "report") from missing
    figure = figures.Figure(figsize=(7, 0.9 + 0.3 * len(values)), layout="constrained")
    axes = figure.subplots()
    places = range(len(values))
    axes.barh(places, [v for _, v in values], color=["#1d5fa6" if v >= 0 else "#b9540d" for _, v in values])
    axes.set_yticks(places, [name.replace("$", r"\$") for name, _ in values])
    axes.invert_yaxis()
    axes.axvline(0, color="#5b6068", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.set_title(title.replace("$", r"\$"), loc="left")
    return figure


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
