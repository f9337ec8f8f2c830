"""The commands. Each parses, calls one function of the library, and prints.

In: arguments.  Out: tables for people, JSON with --json; exit code 2 for the caller's faults, 1 for ours, 130 when interrupted.
Cost: none until a command runs; `armorm --help` starts without torch.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from armorm.cli import auditing, selecting
from armorm.cli.data import data_app
from armorm.cli.printing import printed
from armorm.cli.steering import steer_app
from armorm.errors import ArmormError, DataError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Interpretable, steerable reward models: train, score, explain, steer, audit.",
)
app.add_typer(data_app, name="data")
app.add_typer(steer_app, name="steer")
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Out = Annotated[Path, typer.Option(help="The run's folder.")]
Features = Annotated[Path | None, typer.Option(help="Where features are kept, to share them between runs [default: in OUT].")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")]
INTERRUPTED = 130
OPTIONS = {"`kind`": "--as"}
"""Errors name the library's arguments; these options have other names."""


def main() -> None:
    """Run the command line; errors become one message on stderr and an exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the libraries' own bars, read when they are imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub gets one message: ours
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way of saying Ctrl-C
    try:
        app(standalone_mode=True)
    except ArmormError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(_with_options(str(error)))}", highlight=False)
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
        from armorm.run.plan import plan

        printed(plan(recipe), json_=json_)
    else:
        _train(recipe, out, features, json_=json_, quiet=quiet)


@app.command()
def tune(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) with a `tuning` part.")],
    objective: Annotated[str, typer.Argument(help="bradley-terry, pairwise or regression.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; writes to its tuned/ [default: runs/NAME].")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the decoder itself, by low-rank adapters or whole; stopped and run again, it goes on from its last checkpoint.

    On several GPUs: accelerate launch -m armorm tune RECIPE OBJECTIVE.
    """
    from armorm.cli.tuning import tuned

    printed(tuned(recipe, objective, out, json_=json_, quiet=quiet), json_=json_)


app.command("score")(selecting.score)
app.command("best-of")(selecting.best_of)
app.command("select")(selecting.select)
app.command("pairs")(selecting.pairs)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")],
    file: Annotated[Path, typer.Argument(help="Conversations, as for `score`; a row may hold `chosen` and `rejected` instead.")],
    row: Annotated[int, typer.Option(help="Which row, counted from 1.")] = 1,
    against: Annotated[int | None, typer.Option(help="Another row: explain the difference between the two.")] = None,
    profile: Annotated[Path | None, typer.Option(help="A steering profile (YAML) to score under.")] = None,
    prompt_only: Annotated[bool, typer.Option("--prompt-only", help="Only the weights that the row's prompt opens.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page there too.")] = None,
    json_: Json = False,
) -> None:
    """Show what a score is the sum of, or which objectives make the difference between two answers."""
    from armorm.jobs.explain import explained

    found = explained(model, file, row, against=against, profile=profile, prompt_only=prompt_only)
    if html is not None:
        from armorm.report.explain_page import write_explain_page

        write_explain_page(found.to_page(), html)
    printed(found.to_json() if json_ else found.tables(), json_=json_)


@app.command()
def bench(
    model: Annotated[
        str, typer.Argument(help="A model folder (runs/NAME/model, or a one-logit or pairwise model's), or a hub id.")
    ],
    suite: Annotated[str, typer.Option(help="A benchmark's name (`armorm data sources` lists them) or a file of pairs.")],
    path: Annotated[str | None, typer.Option(help="A local copy of the benchmark's files, read instead of the hub.")] = None,
    section: Annotated[list[str] | None, typer.Option(help="For a file: PATTERN=SECTION of subsets; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many items, evenly over the subsets.")] = None,
    profile: Annotated[Path | None, typer.Option(help="A steering profile (YAML): what it costs and brings.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for results [default: runs/bench/MODEL/SUITE].")] = None,
    batch_tokens: Annotated[int, typer.Option(min=64, help="Tokens per batch; more on a GPU.")] = 4096,
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score a benchmark: sections, subsets and overall with 95 % intervals, beside the published numbers."""
    from armorm.cli.benching import bench_tables, suite_of
    from armorm.jobs.bench import csv_of, run_benchmark
    from armorm.progress import Reporter
    from armorm.scoring.profile import Profile

    chosen = suite_of(suite, path=path, sections=section or [], limit=limit)
    steered = Profile.from_yaml(profile) if profile else None
    results = run_benchmark(model, chosen, out, profile=steered, batch_tokens=batch_tokens, reporter=Reporter(quiet=quiet))
    if csv_:
        print(csv_of(results), end="")
        return
    printed(results if json_ else bench_tables(results), json_=json_)
    if not json_:
        print(f"results: {results['folder']}")


@app.command()
def compare(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML) with `bench` and, for all methods, `tuning` and `compare`.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; writes to its compare/ [default: runs/NAME].")] = None,
    features: Features = None,
    json_: Json = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print LaTeX instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Table 1 on your backbone and data: every method on the same items, with intervals, paired tests and costs."""
    from armorm.cli.comparing import compare_tables
    from armorm.compare.comparing import compare as compared
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.report.compare_page import render_compare_latex

    loaded = load_recipe(recipe)
    results = compared(loaded, out or Path("runs") / loaded.name, features=features, reporter=Reporter(quiet=quiet))
    if latex:
        print(render_compare_latex(results), end="")
        return
    printed(results if json_ else compare_tables(results), json_=json_)
    if not json_:
        print(f"results: {results['folder']}")


app.command("audit")(auditing.audit)


@app.command("export")
def export_(
    model: Annotated[str, typer.Argument(help="A model folder (runs/NAME/model) or hub id.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    layout: Annotated[str, typer.Option(help="armorm: this package's; released: the released ArmoRM checkpoint's.")] = "armorm",
    shard_size: Annotated[str, typer.Option(help="The largest size of a weights file.")] = "5GB",
    dtype: Annotated[str | None, typer.Option(help="Of the decoder, where it is not to be as the model's config says.")] = None,
    json_: Json = False,
) -> None:
    """Write a model folder in another layout, for programs that were made for the released ArmoRM checkpoint."""
    from armorm.jobs.exchange import exported, table

    facts = exported(model, out, layout=layout, shard_size=shard_size, dtype=dtype)
    printed(facts if json_ else table(facts), json_=json_)


@app.command("import")
def import_(
    regression: Annotated[Path, typer.Option(help="The regression's weights, .pt or .safetensors.")],
    gate: Annotated[Path, typer.Option(help="The gate's state dict, .pt or .safetensors.")],
    backbone: Annotated[str, typer.Option(help="The decoder they were trained on: a folder or hub id.")],
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
    transform: Annotated[Path | None, typer.Option(help="The reward transform, if there is one.")] = None,
    objectives: Annotated[Path | None, typer.Option(help="A JSON list of objectives, if not the released 19.")] = None,
    temperature: Annotated[float, typer.Option(min=1e-6, help="The gate's, as it was trained.")] = 10.0,
    dtype: Annotated[str, typer.Option(help="Of the decoder: bfloat16, float16 or float32.")] = "bfloat16",
    max_tokens: Annotated[int | None, typer.Option(min=16, help="Longest conversation, where it is not the decoder's.")] = None,
    json_: Json = False,
) -> None:
    """Make a model folder of the parts that the public ArmoRM training scripts save, and their backbone."""
    from armorm.jobs.exchange import Parts, imported, table

    parts = Parts(regression, gate, transform)
    facts = imported(parts, backbone, out, objectives=objectives, temperature=temperature, dtype=dtype, max_tokens=max_tokens)
    printed(facts if json_ else table(facts), json_=json_)


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what is installed, what this machine can do, and what to install for the rest."""
    from armorm.cli.doctor import checks, table

    found = checks()
    printed(found if json_ else table(found), json_=json_)
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
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.run.train import train

    checked = load_recipe(recipe)
    folder = out or Path("runs") / checked.name
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: choose another --out")
    run = train(checked, folder, features=features, reporter=Reporter(quiet=quiet))
    printed(run.results if json_ else run_tables(run.results), json_=json_)
    if not json_:
        where = f"model:  {run.folder / 'model'}\nreport: {run.report}"
        computed = ", ".join(run.computed) or "nothing; everything was there"
        print(f"computed: {computed}\n{where}")


def _with_options(text: str) -> str:
    for argument, option in OPTIONS.items():
        text = text.replace(argument, option)
    return text


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
