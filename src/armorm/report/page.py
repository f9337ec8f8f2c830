"""The report: results.json as one self-contained HTML page that opens anywhere, offline, light or dark.

In: results as a mapping (their parts may be absent or null).  Out: `report.html` in a folder.
Cost: a second; needs jinja2 and matplotlib (extra `report`).

Prompts and answers are hostile text: everything is escaped by the template's autoescape, the only markup let
through is the figures', and the page forbids scripts and requests by its content security policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from armorm.errors import MissingExtra, StorageError
from armorm.report import certainty, judged, numbers, training

_TEMPLATE = "page.html.jinja"
_TITLES = {
    "accuracy": "Accuracy",
    "planted": "Planted truth",
    "data": "Data",
    "probe": "Probe",
    "uncertainty": "Uncertainty",
    "features": "Candidate features",
    "debias": "Debiasing",
    "gate": "Gate",
    "length": "Length",
    "abstention": "Too close to call",
    "examples": "Worked examples",
    "warnings": "Warnings",
    "provenance": "Provenance",
}


def write_report(results: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.html` into `folder` (made if absent) and return its path.

    The same results give the same bytes. Raises `MissingExtra` without jinja2 or matplotlib, `StorageError` where the
    file can't be written.
    """
    return write_page(render_page(results), folder / "report.html")


def write_page(page: str, path: Path) -> Path:
    """Write a page beside its place, then rename it. Raises `StorageError` where the file can't be written."""
    unfinished = path.with_suffix(".html.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(page.encode("utf-8", errors="replace"))  # half an emoji in the data is no reason to stop
        unfinished.replace(path)
    except OSError as fault:
        raise StorageError(f"the page can't be written to {path}: {fault}; choose another folder") from fault
    return path


def render_page(results: Mapping[str, Any]) -> str:
    """The page as text; see `write_report`."""
    sections = {
        "accuracy": judged.suites(results),
        "planted": (results.get("planted") or {}).get("rows"),
        "data": training.data(results),
        "probe": training.probe(results),
        "uncertainty": certainty.uncertainty(results),
        "features": training.candidates(results),
        "debias": training.debias(results),
        "gate": training.gate(results),
        "length": judged.length(results),
        "abstention": certainty.abstention(results),
        "examples": judged.examples(results),
        "warnings": results.get("warnings"),
        "provenance": _provenance(results),
    }
    contents = [(name, _TITLES[name]) for name, part in sections.items() if part]
    template = environment().get_template(_TEMPLATE)
    page = template.render(results=results, contents=contents, titles=_TITLES, facts=_facts(results), **sections)
    return str(page).lstrip()


def environment() -> Any:
    """Jinja with the reports' filters; everything is escaped. Raises `MissingExtra` without jinja2."""
    try:
        import jinja2
    except ImportError as missing:
        raise MissingExtra("the report", "jinja2", "report") from missing
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,  # absent parts of the results are empty, at any depth
        finalize=lambda value: "" if value is None else value,  # and so are nulls
        trim_blocks=True,
        lstrip_blocks=True,
    )
    writers = (
        numbers.decimal,
        numbers.finding,
        numbers.signed,
        numbers.general,
        numbers.percent,
        numbers.points,
        numbers.span,
        numbers.span_percent,
        numbers.span_points,
        numbers.p_value,
        numbers.count,
        numbers.duration,
    )
    environment.filters.update({writer.__name__: writer for writer in writers})
    return environment


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the head of the page says in a glance."""
    part = results.get("data") or {}
    backbone = results.get("backbone") or {}
    spent = [one for one in map(numbers.number, (results.get("seconds") or {}).values()) if one is not None]
    kept: dict[str, float] = {}
    for source in part.get("sources") or []:
        kept[source.get("kind")] = kept.get(source.get("kind"), 0) + (numbers.number(source.get("kept")) or 0)
    facts = [
        ("backbone", str(backbone["model"]) if backbone.get("model") else ""),
        ("rated answers", numbers.count(kept["ratings"]) if kept.get("ratings") else ""),
        ("preference pairs", numbers.count(kept["pairs"]) if kept.get("pairs") else ""),
        ("objectives", str(len(part["objectives"])) if part.get("objectives") else ""),
        ("time", numbers.duration(sum(spent)) if spent else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _provenance(results: Mapping[str, Any]) -> dict[str, Any] | None:
    rows = [(name, results.get(name)) for name in ("command", "commit", "machine", "created") if results.get(name)]
    stages = training.seconds(results)
    backbone = results.get("backbone") or {}
    if not rows and not stages and not backbone:
        return None
    return {"rows": rows, "stages": stages, "backbone": backbone}
