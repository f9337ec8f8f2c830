"""Results as tables for people.

In: results.json's content.  Out: rich tables.  Cost: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

Results = Mapping[str, Any]


def run_tables(results: Results) -> list[Table]:
    """Everything a run prints: probe, debiasing, the planted truth where it is known, methods per suite."""
    tables = [probe_table(results)]
    if results.get("debias"):
        tables.append(debias_table(results))
    tables += [suite_table(s, results["length"]) for s in results["suites"]]
    if results.get("planted"):
        tables.append(planted_table(results["planted"]))
    return tables


def probe_table(results: Results) -> Table:
    probe = results["probe"]
    candidates = ", ".join(f"{c['feature']} {c['pearson']:.3f}" for c in probe["candidates"])
    table = _table(f"Probe on {probe['feature']} (mean held-out Pearson by feature: {candidates}); test prompts, 95 % intervals")
    _columns(table, "objective", "n train", "n test", "alpha", "Pearson", "Spearman", "R²", "RMSE (raw)", "AUC")
    for o in probe["objectives"]:
        intervals = [_interval(o[k]) for k in ("pearson", "spearman", "r2", "rmse_raw", "auc")]
        table.add_row(o["name"], f"{o['n_train']:,}", f"{o['n_test']:,}", f"{o['alpha']:g}", *intervals)
    return table


def debias_table(results: Results) -> Table:
    debias = results["debias"]
    reference = f"{debias['reference']['n']:,} answers of {', '.join(debias['reference']['sources'])}"
    table = _table(f"Debiasing ({debias['method']}; nuisance itself {debias['itself']}; reference: {reference})")
    _columns(table, "objective", "nuisance", "λ", "reference before", "after", "held out before", "after")
    for o in debias["objectives"]:
        for nuisance, coefficient in o["coefficients"].items():
            pairs = [o[where][nuisance] for where in ("reference", "held_out")]
            cells = [_signed(p[when]) for p in pairs for when in ("before", "after")]
            table.add_row(o["name"], nuisance, _signed(coefficient), *cells)
    return table


def suite_table(suite: Mapping[str, Any], lengths: list[Mapping[str, Any]]) -> Table:
    table = _table(
        f"{suite['name']}: accuracy in %, {suite['n']:,} pairs of {suite['groups']:,} prompts, 95 % intervals by prompt"
    )
    sections = list(suite["methods"][0]["sections"])
    _columns(table, "method", "all", *sections, "− BT", "p", "ties", "unscored", "ρ(length)")
    length = {(x["suite"], x["method"]): x["within_prompt"]["value"] for x in lengths}
    for m in suite["methods"]:
        versus = m["versus_bradley_terry"]
        gap = _points(versus["difference"]) if versus else ""
        p = f"{versus['p']:.2g}" if versus and versus["p"] is not None else ""
        cells = [_percent(m["overall"]), *(_percent(m["sections"][s]) for s in sections)]
        ties, unscored = str(m["overall"]["ties"]), str(m["overall"]["unscored"])
        table.add_row(m["label"], *cells, gap, p, ties, unscored, _signed(length.get((suite["name"], m["method"])), 2))
    return table


def planted_table(planted: Mapping[str, Any]) -> Table:
    table = _table("Planted truth (synthetic starter set, held-out prompts)")
    _columns(table, "what", "aim", "value", "met", "stage off", "value")
    for row in planted["rows"]:
        off = row["ablation"] or {"what": "", "value": None}
        met = "" if row["met"] is None else ("yes" if row["met"] else "no")
        table.add_row(row["what"], row["aim"] or "none", _signed(row["value"]), met, off["what"], _signed(off["value"]))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")


def _interval(interval: Mapping[str, Any] | None) -> str:
    if interval is None or interval["value"] is None:
        return ""
    if interval["low"] is None:
        return f"{interval['value']:.2f}"
    return f"{interval['value']:.2f} [dim]{interval['low']:.2f}…{interval['high']:.2f}[/]"


def _percent(accuracy: Mapping[str, Any]) -> str:
    if accuracy["value"] is None:
        return ""
    if accuracy["low"] is None:
        return f"{100 * accuracy['value']:.1f}"
    return f"{100 * accuracy['value']:.1f} [dim]±{50 * (accuracy['high'] - accuracy['low']):.1f}[/]"


def _points(difference: Mapping[str, Any]) -> str:
    if difference["value"] is None:
        return ""
    return f"{100 * difference['value']:+.1f}"


def _signed(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:+.{digits}f}"
