"""Pages: templates filled with results, everything escaped, in one file that opens anywhere, offline, light or dark.

In: a template's name and what it shows.  Out: the page as text.  Cost: some milliseconds; needs jinja2 (extra `report`).

Names, prompts and answers are hostile text: everything is escaped by the templates' autoescape, the only markup let through is
the figures', and every page forbids scripts and requests by its content security policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from armorm import numbers
from armorm.errors import MissingExtra

_FILTERS = ("decimal", "signed", "general", "percent", "points", "share_ends", "count", "counts", "duration", "plain")
"""Functions of `numbers` that templates use."""


def render_html(template: str, **parts: Any) -> str:
    """A page; the same parts give the same bytes. Raises `MissingExtra` without jinja2."""
    return str(_environment().get_template(template).render(**parts)).lstrip()


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as missing:
        raise MissingExtra("the report", "jinja2", "report") from missing
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(numbers, name) for name in _FILTERS})
    return environment
