"""Results → Markdown tables, for a repository's docs/results.

In: results.json's content.  Out: one Markdown text: provenance first, then every table with n and 95 % intervals.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]


def render_markdown(results: Results) -> str:
    """All tables of a run. Numbers that are undefined are left blank."""
    parts = [_head(results), _data(results), _probe(results)]
    if results["probe"].get("uncertainty"):
        parts.append(_uncertainty(results["probe"]["uncertainty"]))
    if results.get("debias"):
        parts.append(_debias(results["debias"]))
    parts += [_suite(s) for s in results["suites"]]
    parts.append(_length(results))
    if results.get("abstention"):
        parts.append(_abstention(results["abstention"]))
    if results.get("planted"):
        parts.append(_planted(results["planted"]))
    if results["warnings"]:
        parts.append("## Warnings\n\n" + "\n".join(f"- {w}" for w in results["warnings"]))
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    backbone = results["backbone"]
    speed = (
        f"{backbone['tokens']:,} tokens at {backbone['tokens_per_second']:,} tokens/s, {backbone['truncated']:,} rows truncated"
    )
    seconds = ", ".join(f"{stage} {s:,.0f} s" for stage, s in results["seconds"].items())
    facts = {
        "command": f"`{results['command']}`",
        "commit": results["commit"],
        "machine": results["machine"],
        "backbone": f"{backbone['model']}, {backbone['dtype']}, blocks read: {backbone['layers']}",
        "features": speed,
        "seconds": seconds,
    }
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"# {results['name']}\n\nIntervals are 95 %, bootstrapped by prompt group.\n\n{lines}"


def _data(results: Results) -> str:
    data = results["data"]
    rows = [
        [s["name"], s["kind"], s["rows"], s["kept"], s["groups"], ", ".join(f"{n} {reason}" for reason, n in s["drops"].items())]
        for s in data["sources"]
    ]
    splits = "; ".join(
        f"{kind}: " + ", ".join(f"{n:,} {split}" for split, n in found.items()) for kind, found in data["splits"].items()
    )
    return f"## Data\n\n{_table(['source', 'kind', 'rows', 'kept', 'prompts', 'left out'], rows)}\n\nSplits by prompt: {splits}."


def _probe(results: Results) -> str:
    probe = results["probe"]
    candidates = _table(["feature", "mean held-out Pearson"], [[c["feature"], _n(c["pearson"])] for c in probe["candidates"]])
    rows = [
        [
            o["name"],
            o["n_train"],
            o["n_test"],
            f"{o['alpha']:g}",
            *(_i(o[k]) for k in ("pearson", "spearman", "r2", "rmse_raw", "auc")),
        ]
        for o in probe["objectives"]
    ]
    head = ["objective", "n train", "n test", "alpha", "Pearson", "Spearman", "R²", "RMSE (raw)", "AUC"]
    return (
        f"## Probe\n\n{candidates}\n\nChosen: {probe['feature']}. On test prompts, which chose nothing:\n\n{_table(head, rows)}"
    )


def _debias(debias: Mapping[str, Any]) -> str:
    rows = [
        [
            o["name"],
            nuisance,
            _n(coefficient),
            *(_n(o[w][nuisance][t]) for w in ("reference", "held_out") for t in ("before", "after")),
        ]
        for o in debias["objectives"]
        for nuisance, coefficient in o["coefficients"].items()
    ]
    head = ["objective", "nuisance", "λ", "reference before", "reference after", "held out before", "held out after"]
    reference = f"{debias['reference']['n']:,} answers of {', '.join(debias['reference']['sources'])}"
    said = f"{debias['method'].capitalize()} correlation; the nuisance itself is {debias['itself']}; reference: {reference}."
    return f"## Debiasing\n\n{said}\n\n{_table(head, rows)}"


def _suite(suite: Mapping[str, Any]) -> str:
    sections = list(suite["methods"][0]["sections"])
    sizes = [suite["methods"][0]["sections"][s]["n"] for s in sections]
    head = [
        "method",
        f"all ({suite['n']})",
        *(f"{s} ({n})" for s, n in zip(sections, sizes, strict=True)),
        "points over BT",
        "p",
        "ties",
        "unscored",
    ]
    rows = []
    for m in suite["methods"]:
        versus, whole = m["versus_bradley_terry"], m["overall"]
        against = (
            ["", ""]
            if versus is None
            else [_i(versus["difference"], 100.0, 1), "" if versus["p"] is None else f"{versus['p']:.2g}"]
        )
        rows.append(
            [m["label"], _a(whole), *(_a(m["sections"][s]) for s in sections), *against, whole["ties"], whole["unscored"]]
        )
    title = f"## {suite['name']}: accuracy in %, {suite['n']:,} pairs of {suite['groups']:,} prompts"
    return f"{title}\n\nTies count half; unscored pairs are outside the mean.\n\n{_table(head, rows)}"


def _length(results: Results) -> str:
    labels = {m["method"]: m["label"] for s in results["suites"] for m in s["methods"]}
    rows = [[x["suite"], labels[x["method"]], _i(x["pooled"]), _i(x["within_prompt"])] for x in results["length"]]
    head = ["suite", "method", "all answers", "answers to one prompt"]
    return f"## Rank correlation of score and answer length in tokens\n\n{_table(head, rows)}"


def _uncertainty(found: Mapping[str, Any]) -> str:
    rows = [
        [o["name"], o["n_test"], _a(o["coverage"]), _a(o["coverage_cross_validated"]), _n(o["mean_std"]), _n(o["mean_width"])]
        for o in found["objectives"]
    ]
    head = ["objective", "test ratings", "inside, test, %", "inside, folds, %", "mean standard error", "mean width"]
    level, whole = 100 * found["level"], _a(found["coverage"])
    text = f"Intervals for a new rating aim at {level:.0f} %; of {found['n_test']:,} test ratings {whole} % lie inside."
    return f"## Uncertainty\n\n{text}\n\n{_table(head, rows)}"


def _abstention(suites: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for suite in suites:
        by_margin = {round(p["abstained"], 2): p for p in suite["by_margin"]}
        for point in suite["by_z"]:
            other = by_margin.get(round(point["abstained"], 2))
            cells = [suite["suite"], f"{100 * point['abstained']:.0f}", point["decided"], _a(point["error"])]
            rows.append([*cells, _a(other["error"]) if other else ""])
    head = ["suite", "left open, %", "decided", "error by margin/std, %", "error by margin alone, %"]
    return f"## Too close to call\n\n{_table(head, rows)}"


def _planted(planted: Mapping[str, Any]) -> str:
    rows = []
    for r in planted["rows"]:
        off = r["ablation"] or {"what": "", "value": None}
        met = {True: "yes", False: "no", None: ""}[r["met"]]
        rows.append([r["what"], r["aim"] or "", _n(r["value"]), met, off["what"], _n(off["value"])])
    return f"## Planted truth\n\n{_table(['what', 'aim', 'value', 'met', 'stage off', 'value'], rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(_cell(c) for c in cells) + " |"

    def lines() -> Iterator[str]:
        yield line(head)
        yield "|" + "---|" * len(head)
        yield from map(line, rows)

    return "\n".join(lines())


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def _n(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _i(interval: Mapping[str, Any] | None, times: float = 1.0, digits: int = 2) -> str:
    if interval is None or interval["value"] is None:
        return ""
    shown = f"{times * interval['value']:.{digits}f}"
    if interval["low"] is None:
        return shown
    return f"{shown} ({times * interval['low']:.{digits}f} to {times * interval['high']:.{digits}f})"


def _a(accuracy: Mapping[str, Any]) -> str:
    return _i(accuracy, 100.0, 1)
