"""The part of the page about training: data, probe, candidate features, debiasing, gate, time.

In: results.json as a mapping.  Out: plain values for the template, None where the results lack the part.
Cost: one or two figures a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from armorm.report.numbers import compact_count, interval, number
from armorm.report.plots import (
    Curve,
    CurvePanel,
    Dumbbells,
    Panel,
    common_limits,
    dot_plot,
    dumbbell_plot,
    heat_map,
    learning_curves,
)


def data(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Sources, objectives with their histograms, the map of labels, splits."""
    part = results.get("data") or {}
    sources = part.get("sources") or []
    objectives = [one | {"bars": _histogram(one.get("histogram"))} for one in part.get("objectives") or []]
    if not sources and not objectives:
        return None
    return {
        "sources": sources,
        "objectives": objectives,
        "labels": _label_map(part.get("labels")),
        "splits": part.get("splits") or {},
    }


def _histogram(histogram: Any) -> list[dict[str, Any]]:
    counts = [number(size) or 0.0 for size in (histogram or {}).get("counts") or []]
    edges = (histogram or {}).get("edges") or []
    most = max(counts, default=0.0)
    if most <= 0 or len(edges) != len(counts) + 1:
        return []
    return [
        {"height": round(100 * size / most, 1), "low": edges[place], "high": edges[place + 1], "count": size}
        for place, size in enumerate(counts)
    ]


def _label_map(labels: Any) -> Any:
    if not labels or not labels.get("counts"):
        return None
    by_source = labels["counts"]
    counts = [[number(row[place]) or 0.0 for row in by_source] for place in range(len(labels["objectives"]))]
    most = max((size for row in counts for size in row), default=0.0) or 1.0
    shades = [[math.log1p(size) / math.log1p(most) for size in row] for row in counts]
    texts = [[compact_count(size) for size in row] for row in counts]
    return heat_map(labels["objectives"], labels["sources"], shades, texts, alt="Number of ratings by objective and source")


def probe(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """How well each objective is predicted on held-out prompts."""
    part = results.get("probe") or {}
    rows = part.get("objectives") or []
    if not rows:
        return None
    panels = []
    measures = (("pearson", "Pearson r", 0.0), ("spearman", "Spearman ρ", 0.0), ("r2", "R²", 0.0), ("auc", "AUC", 0.5))
    for key, title, reference in measures:
        cells = [interval(row.get(key)) for row in rows]
        if any(cells):
            limits = common_limits(cells, include=[reference], low=-1.0, high=1.02)
            panels.append(Panel(title, cells, reference, limits))
    figure = None
    if panels:
        names = [str(row.get("name")) for row in rows]
        figure = dot_plot(names, panels, highlighted=range(len(names)), alt="Probe quality by objective")
    return {"feature": part.get("feature"), "rows": rows, "figure": figure}


def candidates(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The features that were tried, best first."""
    part = results.get("probe") or {}
    rows = [one for one in part.get("candidates") or [] if number(one.get("pearson")) is not None]
    if not rows:
        return None
    most = max(max(row["pearson"] for row in rows), 1e-9)
    chosen = part.get("feature")
    return {
        "rows": [
            row | {"width": round(100 * max(row["pearson"], 0.0) / most, 1), "chosen": row.get("feature") == chosen}
            for row in sorted(rows, key=lambda row: -row["pearson"])
        ]
    }


def debias(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Correlation of each objective with each nuisance, before and after, on both sets."""
    part = results.get("debias") or {}
    rows = part.get("objectives") or []
    if not rows:
        return None
    nuisances = part.get("nuisances") or list(dict.fromkeys(n for row in rows for n in row.get("coefficients") or {}))
    panels = []
    for nuisance in nuisances:
        for key, where in (("reference", "reference answers"), ("held_out", "held-out answers")):
            cells = [((row.get(key) or {}).get(nuisance) or {}) for row in rows]
            before, after = ([number(cell.get(side)) for cell in cells] for side in ("before", "after"))
            if any(one is not None for one in before):
                panels.append(Dumbbells(str(nuisance), where, before, after))
    figure = None
    if panels:
        names = [str(row.get("name")) for row in rows]
        figure = dumbbell_plot(names, panels, alt="Correlation with each nuisance before and after debiasing")
    return dict(part) | {"nuisances": nuisances, "rows": rows, "figure": figure}


def gate(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the gate looks for each source, and how it was trained."""
    part = results.get("gate") or {}
    by_source = part.get("by_source") or {}
    curves = part.get("curves") or []
    if not by_source and not curves:
        return None
    return {
        "map": _gate_map(by_source) if by_source else None,
        "curves": _curves(curves, part) if curves else None,
        "seeds": len(curves),
        "chosen_seed": part.get("chosen_seed"),
        "best_step": part.get("best_step"),
        "spread": (part.get("spread") or {}).get("validation_accuracy"),
    }


def _gate_map(by_source: Mapping[str, Mapping[str, float]]) -> Any:
    objectives = list(dict.fromkeys(name for weights in by_source.values() for name in weights))
    weights = [[number(by_source[source].get(name)) or 0.0 for source in by_source] for name in objectives]
    most = max((weight for row in weights for weight in row), default=0.0) or 1.0
    shades = [[weight / most if weight >= 0.005 else 0.0 for weight in row] for row in weights]
    texts = [[f"{100 * weight:.0f}" if weight >= 0.005 else "" for weight in row] for row in weights]
    return heat_map(objectives, list(by_source), shades, texts, alt="Mean gate weight by objective and source")


def _curves(curves: Sequence[Mapping[str, Any]], part: Mapping[str, Any]) -> Any:
    chosen = part.get("chosen_seed")
    panels = []
    titles = {
        "validation accuracy": ["validation_accuracy"],
        "loss (dashed: training)": ["validation_loss", "train_loss"],
        "scale β": ["beta"],
    }
    for title, keys in titles.items():
        drawn = [
            curve
            for run in curves
            for key in keys
            if (curve := _curve(run, key, highlighted=run.get("seed") == chosen)) is not None
        ]
        if drawn:
            panels.append(CurvePanel(title, drawn, number(part.get("best_step"))))
    return learning_curves(panels, alt="Learning curves of the gate") if panels else None


def _curve(run: Mapping[str, Any], key: str, *, highlighted: bool) -> Curve | None:
    """One run's numbers, without the steps at which they were not taken."""
    taken = [
        (at, value)
        for step, one in zip(run.get("steps") or [], run.get(key) or [], strict=False)
        if (at := number(step)) is not None and (value := number(one)) is not None
    ]
    if not taken:
        return None
    steps, values = zip(*taken, strict=True)
    return Curve(steps, values, highlighted, dashed=key == "train_loss")


def seconds(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Time of each stage as a share of the longest."""
    stages = {name: number(spent) for name, spent in (results.get("seconds") or {}).items()}
    known = {name: spent for name, spent in stages.items() if spent is not None}
    most = max(known.values(), default=0.0) or 1.0
    return [{"stage": name, "seconds": spent, "width": round(100 * spent / most, 1)} for name, spent in known.items()]
