"""`armorm bench`: arguments → a suite.

In: a benchmark's name or a file.  Out: `Suite`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from armorm.data.benchmarks.registry import benchmark, benchmarks
from armorm.data.files import expand
from armorm.data.shapes import RowFormat
from armorm.errors import DataError
from armorm.recipe import Source, Suite
from armorm.user_files import stem_of


def suite_of(name: str, rows: RowFormat, *, path: str | None, sections: Sequence[str], limit: int | None) -> Suite:
    """A benchmark by its name, or a file of pairs. Raises DataError for neither, and for a --section without "="."""
    if broken := [s for s in sections if "=" not in s]:
        raise DataError(f"--section {broken[0]!r}: write PATTERN=SECTION, e.g. 'hep-*=reasoning'")
    mapping = dict(s.split("=", 1) for s in sections)
    try:
        if name not in benchmarks() and _is_file(name):
            source = Source(path=name, cap=limit, columns=rows.columns, cells=rows.cells)
            return Suite(name=stem_of(name), source=source, sections=mapping)
        if rows != RowFormat():
            raise DataError(f"{name} knows its own columns and format: leave them out")
        benchmark(name)  # says which names there are
        return Suite.model_validate({"benchmark": name, "path": path, "cap": limit, "sections": mapping})
    except ValidationError as error:
        raise DataError("; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())) from None


def _is_file(name: str) -> bool:
    # Names of benchmarks have neither a dot nor a slash; what looks like a path gets the errors of a path.
    return any(c in name for c in "./*$~") and bool(expand(name))
