"""What `armorm verify` found, as a table.

In: `Verification`.  Out: a `Report`: a row for each run, stage, store, model, results folder and score file.
"""

from __future__ import annotations

from armorm.report.tables import Cell, Report, Row, grid
from armorm.results import Result


class FileFault(Result):
    """A file that is not as it was written."""

    file: str
    """Its name, in the place that was checked."""
    fault: str
    """What is wrong with it, and what to do."""


class Checked(Result):
    """A place that was checked."""

    place: str
    """Where it is, from the folder that was asked about."""
    kind: str
    """What it is: run, stage, model, store, results or scores."""
    files: int
    """How many files were checked."""
    bytes: int
    """Their size."""
    faults: tuple[FileFault, ...]
    """What is wrong; nothing where all is as it was written."""


class Verification(Result):
    """All that was checked below a folder."""

    folder: str
    """The folder that was asked about."""
    checked: tuple[Checked, ...]
    """What was found in it, place by place."""

    @property
    def whole(self) -> bool:
        """Whether everything is as it was written."""
        return not any(one.faults for one in self.checked)


def verification_report(found: Verification) -> Report:
    """A row for each place, and below it a row for each fault."""
    rows: list[Row] = []
    for one in found.checked:
        state = Cell("damaged", tone="bad") if one.faults else Cell("whole", tone="good")
        rows.append([state, one.place, one.kind, f"{one.files:,}", _size(one.bytes)])
        rows += [["", f"{fault.file}: {fault.fault}", "", "", ""] for fault in one.faults]
    faults = sum(len(one.faults) for one in found.checked)
    said = f"{faults} faults" if faults else "everything is as it was written"
    title = f"{found.folder}: {said}"
    return Report("", grids=[grid("verify", title, ("", "place", "kind", "files", "size"), rows, words=(0, 1, 2))])


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
