"""The options that several commands have.

In: nothing, or words from the command line.  Out: types for typer; `RowFormat`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from armorm.limits import MOST_TOKENS

if TYPE_CHECKING:
    from armorm.conversation import Span
    from armorm.data.files import Cells
    from armorm.data.shapes import RowFormat

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Model = Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe (YAML); see recipes/.")]
RunFolder = Annotated[Path | None, typer.Option("--out", help="The run's folder [default: runs/NAME].")]
Features = Annotated[Path | None, typer.Option(help="Where features are kept, to share them between runs [default: in OUT].")]
NewFolder = Annotated[Path, typer.Argument(help="A new folder.")]
BatchTokens = Annotated[int, typer.Option(min=64, max=MOST_TOKENS, help="Tokens per batch; more on a GPU.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=16, max=MOST_TOKENS, help="Cut conversations to so many tokens [default: the model's own limit]."),
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Score each conversation by itself: the same to the bit beside any other, and slower.")
]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help="A steering profile (YAML); see docs/steer.md.")]
ColumnsGiven = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Which column holds what, as prompt=query; may be repeated. See docs/data.md for the names."),
]
Format = Annotated[str, typer.Option("--format", help="The rows' format, where it is not to be seen by their columns.")]
CellsAre = Annotated[
    str, typer.Option("--cells", help="Strings are `text`, or JSON text of `messages`; `auto` decides for each column of a CSV.")
]
AnswerIs = Annotated[str, typer.Option("--answer", help="last-turn, or the whole trajectory behind the user's last turn.")]
Missing = Annotated[list[float] | None, typer.Option(help="A number that stands for no rating, such as -100; may be repeated.")]


def row_format(
    columns: list[str] | None = None,
    format_: str = "auto",
    cells: str = "auto",
    *,
    answer: str = "last-turn",
    missing: list[float] | None = None,
) -> RowFormat:
    """How rows are to be read, from the options. Raises DataError for a name that is none."""
    from typing import get_args

    from pydantic import ValidationError

    from armorm.conversation import Span
    from armorm.data.files import Cells
    from armorm.data.shapes import Columns, RowFormat
    from armorm.errors import DataError

    pairs = [one.partition("=") for one in columns or ()]
    if wrong := [one for one, (name, _, column) in zip(columns or (), pairs, strict=True) if not (name and column)]:
        raise DataError(f"columns: {wrong[0]!r} maps nothing: give NAME=COLUMN, such as prompt=query")
    given: dict[str, Any] = {name: column for name, _, column in pairs if not name.startswith("ratings.")}
    rated = {name.removeprefix("ratings."): column for name, _, column in pairs if name.startswith("ratings.")}
    if rated:
        given["ratings"] = rated
    try:
        found = Columns.model_validate({**given, "format": format_, "missing": tuple(missing or ())})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(name for name in Columns.model_fields if name not in ("format", "missing", "ratings"))
        raise DataError(f"columns: {where}: {first['msg']}; the names are {known}, ratings.OBJECTIVE") from None
    for name, value, kinds in (("cells", cells, Cells), ("answer", answer, Span)):
        if value not in get_args(kinds):
            raise DataError(f"{name} is {value!r}: it is one of {', '.join(get_args(kinds))}")
    return RowFormat(found, cast("Cells", cells), cast("Span", answer))
