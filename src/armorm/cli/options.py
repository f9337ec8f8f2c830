"""The options that several commands have.

In: nothing.  Out: types for typer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
Model = Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")]
RecipeFile = Annotated[Path, typer.Argument(help="A recipe (YAML); see recipes/.")]
RunFolder = Annotated[Path | None, typer.Option("--out", help="The run's folder [default: runs/NAME].")]
Features = Annotated[Path | None, typer.Option(help="Where features are kept, to share them between runs [default: in OUT].")]
NewFolder = Annotated[Path, typer.Argument(help="A new folder.")]
BatchTokens = Annotated[int, typer.Option(min=64, help="Tokens per batch; more on a GPU.")]
MaxTokens = Annotated[
    int | None, typer.Option(min=16, help="Cut conversations to so many tokens [default: the model's own limit].")
]
Exact = Annotated[
    bool, typer.Option("--exact", help="Score each conversation by itself: the same to the bit beside any other, and slower.")
]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help="A steering profile (YAML); see docs/steer.md.")]
