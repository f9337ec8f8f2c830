"""The part of the page about judging: verdict, methods by suite, length, worked examples.

In: results.json as a mapping.  Out: plain values for the template, None where the results lack the part.
Cost: one figure a suite and one for length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from armorm.report.numbers import count, interval, number, p_value, percent, points, signed, span_percent, span_points
from armorm.report.plots import Panel, common_limits, dot_plot

_SETTLED = 0.05
_TERMS_SHOWN = 10


def subject(methods: Sequence[Mapping[str, Any]]) -> int:
    """The method the report is about: the first whose name holds "armorm", else the first."""
    return next((place for place, one in enumerate(methods) if "armorm" in str(one.get("method")).lower()), 0)


def verdict(suite: Mapping[str, Any]) -> str | None:
    """One or two sentences on a suite, made of its numbers alone; None without a scored method."""
    methods = [one for one in suite.get("methods") or [] if interval(one.get("overall")) is not None]
    if not methods:
        return None
    one = methods[subject(methods)]
    overall = one["overall"]
    text = (
        f"{_label(one)} ranks {percent(overall['value'])} of {count(overall.get('n'))} pairs right"
        f" (95 % interval {span_percent(overall)})"
    )
    low = number(overall.get("low"))
    if low is not None and low <= 0.5:
        text += ", which is not above chance"
    text += _against_bradley_terry(one.get("versus_bradley_terry"))
    best = max(methods, key=lambda other: other["overall"]["value"])
    if best["overall"]["value"] > overall["value"]:
        text += f" The highest in this table is {_label(best)} with {percent(best['overall']['value'])}."
    elif len(methods) > 1:
        text += f" It is the highest of the {len(methods)} methods."
    return text


def _against_bradley_terry(versus: Any) -> str:
    gap = interval(versus.get("difference")) if isinstance(versus, Mapping) else None
    if gap is None:
        return "."
    p = number(versus.get("p"))
    numbers = f"{points(gap.value)} points (interval {span_points(versus['difference'])}, p {_equals(p)})"
    by_test, by_interval = p is not None and p < _SETTLED, gap.low > 0 or gap.high < 0
    if by_test != by_interval:
        return f". The difference from Bradley–Terry, {numbers}, is at the edge of what this many pairs can show."
    if not by_test:
        return f". The difference from Bradley–Terry, {numbers}, is within what chance gives on this many pairs."
    side = "above" if gap.value > 0 else "below"
    return f", {side} Bradley–Terry by more than chance explains: {numbers}."


def _equals(p: float | None) -> str:
    written = p_value(p)
    return written if written.startswith("<") else f"= {written}"


def suites(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each suite with its verdict, table and forest plot."""
    return [_suite(one) for one in results.get("suites") or [] if one and one.get("methods")]


def _suite(suite: Mapping[str, Any]) -> dict[str, Any]:
    methods = suite["methods"]
    sections = list(dict.fromkeys(name for one in methods for name in one.get("sections") or {}))
    columns = {"all pairs": [one.get("overall") for one in methods]} | {
        name: [(one.get("sections") or {}).get(name) for one in methods] for name in sections
    }
    parsed = {title: [interval(cell) for cell in cells] for title, cells in columns.items()}
    limits = common_limits([one for cells in parsed.values() for one in cells], include=[0.5], low=0.0, high=1.0)
    sizes = {title: _pairs(cells) for title, cells in columns.items()}
    figure = dot_plot(
        [_label(one) for one in methods],
        [Panel(title, cells, 0.5, limits, percent=True, note=sizes[title]) for title, cells in parsed.items()],
        highlighted=[subject(methods)],
        alt=f"Accuracy by method and section on {suite.get('name')}",
    )
    return {
        "name": suite.get("name"),
        "n": suite.get("n"),
        "groups": suite.get("groups"),
        "verdict": verdict(suite),
        "methods": methods,
        "subject": subject(methods),
        "columns": list(columns),
        "cells": [[cells[row] for cells in columns.values()] for row in range(len(methods))],
        "unscored": any((one.get("overall") or {}).get("unscored") for one in methods),
        "figure": figure,
    }


def _pairs(cells: Sequence[Mapping[str, Any] | None]) -> str:
    """How many pairs a section has, by the method that scored most of them."""
    sizes = [number((cell or {}).get("n")) for cell in cells]
    known = [size for size in sizes if size is not None]
    return f"{count(max(known))} pairs" if known else ""


def length(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """How far each method's score follows the answer's length."""
    rows = [one for one in results.get("length") or [] if one]
    if not rows:
        return None
    labels = {
        one.get("method"): _label(one) for suite in results.get("suites") or [] for one in (suite or {}).get("methods") or []
    }
    methods = list(dict.fromkeys(row.get("method") for row in rows))
    panels = []
    for suite in dict.fromkeys(row.get("suite") for row in rows):
        found = {row.get("method"): row for row in rows if row.get("suite") == suite}
        for key, title in (("pooled", "all answers"), ("within_prompt", "same prompt")):
            cells = [interval(found.get(method, {}).get(key)) for method in methods]
            panels.append(Panel(str(suite), cells, 0.0, (-1.05, 1.05), note=title))
    names = [str(labels.get(method, method)) for method in methods]
    about = subject([{"method": method} for method in methods])
    figure = dot_plot(names, panels, highlighted=[about], alt="Rank correlation of score and length by method")
    return {
        "rows": [row | {"label": labels.get(row.get("method"), row.get("method"))} for row in rows],
        "figure": figure,
    }


def examples(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Worked examples: the same terms in the same order for every answer, so that rows can be compared across."""
    return [_example(one) for one in results.get("examples") or [] if one and one.get("answers")]


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    answers = example["answers"]
    weights: dict[str, float] = {}
    for answer in answers:
        for term in answer.get("terms") or []:
            size = abs(number(term.get("contribution")) or 0.0)
            weights[term["term"]] = max(size, weights.get(term["term"], 0.0))
    ordered = sorted(weights, key=lambda name: -weights[name])
    shown = ordered if len(ordered) <= _TERMS_SHOWN + 1 else ordered[:_TERMS_SHOWN]
    drawn = [_answer(answer, shown, len(ordered) - len(shown)) for answer in answers]
    reach = max((abs(bar["contribution"]) for answer in drawn for bar in answer["bars"]), default=0.0) or 1.0
    for answer in drawn:
        for bar in answer["bars"]:
            bar["width"] = round(50 * abs(bar["contribution"]) / reach, 2)
    return {
        "section": example.get("section"),
        "prompt": _prompt_text(example.get("prompt")),
        "answers": drawn,
        "gap": _gap(answers),
    }


def _answer(answer: Mapping[str, Any], shown: Sequence[str], hidden: int) -> dict[str, Any]:
    terms = {term["term"]: term for term in answer.get("terms") or []}
    size = {name: number(term.get("contribution")) or 0.0 for name, term in terms.items()}
    bars: list[dict[str, Any]] = [
        {"name": name, "contribution": size[name], "term": terms[name]} for name in shown if name in terms
    ]
    if hidden:
        rest = sum(value for name, value in size.items() if name not in shown)
        bars.append({"name": f"{hidden} smaller terms", "contribution": rest, "term": None})
    score, total = number(answer.get("score")), sum(size.values())
    agrees = score is None or not terms or abs(total - score) <= 1e-3 * max(1.0, abs(score))
    return {
        "text": answer.get("text"),
        "label": answer.get("label"),
        "score": score,
        "bars": bars,
        "terms": sorted(terms.values(), key=lambda term: -abs(size[term["term"]])),
        "mismatch": None if agrees else total,
    }


def _gap(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """Which terms make the difference between two answers."""
    if len(answers) != 2:
        return None
    scores = [number(answer.get("score")) for answer in answers]
    if scores[0] is None or scores[1] is None:
        return None
    first, second = (
        {term["term"]: number(term.get("contribution")) or 0.0 for term in answer.get("terms") or []} for answer in answers
    )
    names = [str(answer.get("label") or place) for answer, place in zip(answers, ("first", "second"), strict=True)]
    gap = scores[0] - scores[1]
    ahead = "scores the same as" if gap == 0 else "scores higher than" if gap > 0 else "scores lower than"
    text = f"The {names[0]} answer {ahead} the {names[1]} one"
    text += f" ({signed(gap)})." if gap else "."
    moves = {name: first.get(name, 0.0) - second.get(name, 0.0) for name in dict.fromkeys([*first, *second])}
    largest = sorted((name for name in moves if moves[name]), key=lambda name: -abs(moves[name]))[:3]
    if not largest:
        return text
    return text + " Largest differences: " + ", ".join(f"{name} {signed(moves[name])}" for name in largest) + "."


def _prompt_text(prompt: Any) -> str:
    """A prompt as text, whether it is one string or a list of messages."""
    if isinstance(prompt, list):
        return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt)
    return "" if prompt is None else str(prompt)


def _label(method: Mapping[str, Any]) -> str:
    return str(method.get("label") or method.get("method"))
