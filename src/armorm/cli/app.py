"""The commands. Each parses, calls one function of the library, and prints.

In: arguments.  Out: tables for people, JSON with --json; exit code 2 for the caller's faults, 1 for ours, 130 when interrupted.
Cost: none until a command runs; `armorm --help` starts without torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from armorm.errors import ArmormError, DataError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Interpretable, steerable reward models: train, score, explain.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Out = Annotated[Path, typer.Option(help="The run's folder.")]
Features = Annotated[Path | None, typer.Option(help="Where features are kept, to share them between runs [default: in OUT].")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors become one message on stderr and an exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the libraries' own bars, read when they are imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app(standalone_mode=True)
    except ArmormError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escaped(str(error))}", highlight=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as left:  # typer turns the first into the second
        if isinstance(left, SystemExit) and left.code != INTERRUPTED:
            raise
        print("\nstopped; what is complete is kept: run the same command again and it goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)


@app.command()
def demo(out: Out = Path("runs/starter"), features: Features = None, json_: Json = False, quiet: Quiet = False) -> None:
    """Train on the synthetic starter set that comes with the package: a whole run in minutes, without a network."""
    from armorm.data.starter import RECIPE

    _train(RECIPE, out, features, json_=json_, quiet=quiet)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML); see recipes/.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder [default: runs/NAME].")] = None,
    features: Features = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the recipe and print the plan; compute nothing.")] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """From a recipe to a reward model, its report and its rivals. A second run does only what changed."""
    if dry_run:
        from armorm.cli.plan import plan

        _print(plan(recipe), json_=json_)
    else:
        _train(recipe, out, features, json_=json_, quiet=quiet)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")],
    file: Annotated[Path, typer.Argument(help="Rows with `messages`, or `prompt` and `response`: JSONL, Parquet, CSV.")],
    full: Annotated[bool, typer.Option("--full", help="Rewards, gate, coefficients and contributions too.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score a file of conversations; one JSON object per row on stdout, in order."""
    from armorm.cli.scoring import scored_rows

    for row in scored_rows(model, file, full=full, quiet=quiet):
        print(json.dumps(row, ensure_ascii=False))


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")],
    file: Annotated[Path, typer.Argument(help="Conversations, as for `score`.")],
    row: Annotated[int, typer.Option(help="Which row, counted from 1.")] = 1,
    json_: Json = False,
) -> None:
    """Show what one conversation's score is the sum of."""
    from armorm.cli.scoring import explained

    score = explained(model, file, row)
    _print(score.to_json() if json_ else score, json_=json_)


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what is installed, what this machine can do, and what to install for the rest."""
    from armorm.cli.doctor import checks, table

    found = checks()
    _print(found if json_ else table(found), json_=json_)
    if not all(c["ok"] for c in found if c["needed"]):
        raise typer.Exit(1)


def _print_version(wanted: bool) -> bool:  # typer takes what a callback returns as the value
    if wanted:
        from armorm import __version__

        print(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _train(recipe: Path, out: Path | None, features: Path | None, *, json_: bool, quiet: bool) -> None:
    from armorm.cli.tables import run_tables
    from armorm.pipeline import train
    from armorm.pipeline.progress import Reporter
    from armorm.recipe import load_recipe

    checked = load_recipe(recipe)
    folder = out or Path("runs") / checked.name
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: choose another --out")
    run = train(checked, folder, features=features, reporter=Reporter(quiet=quiet))
    _print(run.results if json_ else run_tables(run.results), json_=json_)
    if not json_:
        where = f"model:  {run.folder / 'model'}\nreport: {run.report}"
        computed = ", ".join(run.computed) or "nothing; everything was there"
        print(f"computed: {computed}\n{where}")


def _print(value: Any, *, json_: bool) -> None:
    if json_:
        print(json.dumps(value, ensure_ascii=False, indent=1))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    for part in value if isinstance(value, list) else [value]:
        console.print(part)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
