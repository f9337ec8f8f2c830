"""`armorm audit`: arguments → an audit, its facts → tables.

In: a model's name, a file of answers.  Out: rich tables or JSON on stdout; a folder with the page.  Cost: the pipeline's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def audit(
    model: Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")],
    file: Annotated[Path, typer.Argument(help="Good answers, best with others beside them: pairs, `responses`, conversations.")],
    run: Annotated[
        Path | None, typer.Option(help="The run whose Bradley–Terry rival to compare with [default: the model's own].")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many prompts, the same ones every time.")] = 100,
    only: Annotated[str, typer.Option(help="Only these changes, separated by commas.")] = "",
    out: Annotated[Path | None, typer.Option(help="The folder for the page [default: runs/audit/MODEL/FILE].")] = None,
    batch_tokens: Annotated[int, typer.Option(min=64, help="Tokens per batch; more on a GPU.")] = 4096,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
) -> None:
    """Audit for reward hacking: how padding, flattery, refusals and the like move the score, with and without debiasing."""
    from armorm.jobs.audit import run_audit
    from armorm.progress import Reporter

    names = [name.strip() for name in only.split(",") if name.strip()]
    reporter = Reporter(quiet=quiet)
    results = run_audit(model, file, out, run=run, limit=limit, only=names, batch_tokens=batch_tokens, reporter=reporter)
    if json_:
        print(json.dumps(results, ensure_ascii=False, indent=1))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 140)
    for part in audit_tables(results):
        console.print(part)
    print(f"page: {Path(results['folder']) / 'audit.html'}")


def audit_tables(results: Mapping[str, Any]) -> list[Any]:
    """The shifts per view, the objectives that move most, and the correlation with length."""
    return [_shifts(results), _objectives(results), _length(results)]


def _shifts(results: Mapping[str, Any]) -> Any:
    title = (
        f"Shift of the score in its standard deviations, 95 % intervals by prompt; {results['prompts']:,} prompts, "
        f"{results['answers']:,} answers"
    )
    views = results["views"]
    table = _table(title, "change", "should", "n", *(name for v in views for name in (v["label"], "rises")))
    should = {"same": "not matter", "worse": "hurt"}
    for i, row in enumerate(results["perturbations"]):
        cells = [cell for v in views for cell in (_cell(row["views"][v["name"]]), _share(row["views"][v["name"]]["risen"]))]
        rest = results["perturbations"][i + 1 :]
        last = bool(rest) and rest[0]["expected"] != row["expected"]
        table.add_row(row["label"], should[row["expected"]], str(row["n"]), *cells, end_section=last)
    return table


def _objectives(results: Mapping[str, Any]) -> Any:
    table = _table(
        "What moves: the largest shifts of contributions, and of rewards in their own deviations", "change", "score", "rewards"
    )
    for column in table.columns:
        column.justify = "left"
    main = results["views"][0]["name"]
    for row in results["perturbations"]:
        table.add_row(row["label"], _largest(row["views"][main]["parts"]), _largest(row["rewards"]))
    return table


def _length(results: Mapping[str, Any]) -> Any:
    table = _table("Rank correlation of score and answer length", "view", "within prompts", "over all answers")
    for view in results["views"]:
        table.add_row(view["label"], *(_interval(view["length"][kind]) for kind in ("within_prompt", "pooled")))
    return table


def _table(title: str, first: str, *others: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "should" else "right")
    return table


def _cell(view: Mapping[str, Any]) -> str:
    mark = {True: "", False: " [bold red]✗[/]", None: ""}[view["as_expected"]]
    return f"{_interval(view['shift'])}{mark}"


def _interval(one: Mapping[str, float | None]) -> str:
    if one["value"] is None:
        return ""
    if one["low"] is None or one["high"] is None:
        return f"{one['value']:+.2f}"
    return f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})"


def _share(one: Mapping[str, float | None]) -> str:
    return "" if one["value"] is None else f"{100 * one['value']:.0f} %"


def _largest(parts: Mapping[str, Mapping[str, float | None]]) -> str:
    values = {name: one["value"] for name, one in parts.items() if one["value"] is not None}
    top = sorted(values, key=lambda name: -abs(values[name] or 0.0))[:2]
    return ", ".join(f"{name} {values[name]:+.2f}" for name in top if abs(values[name] or 0.0) >= 0.005)
