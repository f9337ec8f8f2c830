"""The commands. Each parses, calls one function of the library, and prints.

In: arguments.  Out: tables for people, JSON with --json; exit code 2 for the caller's faults, 1 for ours, 130 when interrupted.
Cost: none until a command runs; `armorm --help` starts without torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from armorm.cli import extracting, selecting, serving
from armorm.cli.data import data_app
from armorm.cli.ending import run
from armorm.cli.options import (
    AnswerIs,
    BatchTokens,
    CellsAre,
    ColumnsGiven,
    Exact,
    Features,
    Format,
    Json,
    MaxTokens,
    Model,
    NewFolder,
    ProfileFile,
    Quiet,
    RecipeFile,
    RunFolder,
    row_format,
)
from armorm.cli.printing import print_json, print_parts, print_report, print_result
from armorm.cli.steering import steer_app
from armorm.errors import DataError
from armorm.limits import MOST_ROWS, MOST_TOKENS

if TYPE_CHECKING:
    from armorm.scorers import Reading
    from armorm.tuning_settings import TrainingObjective

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Interpretable, steerable reward models: train, score, explain, steer, audit.",
)
app.add_typer(data_app, name="data")
app.add_typer(steer_app, name="steer")


def main() -> None:
    """Run the command line; errors become one message on stderr and an exit code."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the libraries' own bars, read when they are imported
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub gets one message: ours
    run(lambda: app(standalone_mode=True))


@app.command()
def demo(out: RunFolder = Path("runs/starter"), features: Features = None, json_: Json = False, quiet: Quiet = False) -> None:
    """Train on the synthetic starter set that comes with the package: a whole run in minutes, without a network."""
    from armorm.data.starter import RECIPE

    _train(RECIPE, out, features, json_=json_, quiet=quiet)


@app.command()
def train(
    recipe: RecipeFile,
    out: RunFolder = None,
    features: Features = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe and print the plan, with what it will cost.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """From a recipe to a reward model, its report and its rivals. A second run does only what changed."""
    if dry_run:
        from armorm.report.costs import costs_report
        from armorm.run.plan import plan

        facts = plan(recipe, priced=True)
        if json_:
            print_json(facts)
        else:
            costs = facts.pop("costs")
            print_parts([facts])
            print_report(costs_report(costs))
    else:
        _train(recipe, out, features, json_=json_, quiet=quiet)


app.command("extract")(extracting.extract)


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
    from typing import get_args

    from armorm.errors import RecipeError
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.report.tuning import TuningResults, tuning_report
    from armorm.run.tune import tune as train_decoder
    from armorm.tuning_settings import TrainingObjective

    known = get_args(TrainingObjective)
    if objective not in known:
        raise RecipeError(f"{objective!r} is no objective to train for; there are {', '.join(known)}")
    loaded = load_recipe(recipe)
    folder = (out or Path("runs") / loaded.name) / "tuned" / objective
    stage = train_decoder(loaded, cast("TrainingObjective", objective), folder, reporter=Reporter(quiet=quiet))
    results = TuningResults.model_validate({**stage.facts, "model": str(stage.folder / "model")})
    print_result(results, lambda: tuning_report(results), json_=json_)


app.command("score")(selecting.score)
app.command("best-of")(selecting.best_of)
app.command("select")(selecting.select)
app.command("pairs")(selecting.pairs)
app.command("serve")(serving.serve)


@app.command()
def explain(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Conversations, as for `score`; a row may hold `chosen` and `rejected` instead.")],
    row: Annotated[int, typer.Option(help="Which row, counted from 1.")] = 1,
    against: Annotated[int | None, typer.Option(help="Another row: explain the difference between the two.")] = None,
    profile: ProfileFile = None,
    prompt_only: Annotated[bool, typer.Option("--prompt-only", help="Only the weights that the row's prompt opens.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page there too.")] = None,
    max_tokens: MaxTokens = None,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    json_: Json = False,
) -> None:
    """Show what a score is the sum of, or which objectives make the difference between two answers."""
    from armorm.jobs.explain import explain_row

    asked: dict[str, Any] = {"against": against, "profile": profile, "prompt_only": prompt_only, "max_tokens": max_tokens}
    explained = explain_row(model, file, row, **asked, rows=row_format(columns, format_, cells, answer=answer))
    if html is not None:
        from armorm.report.explained import write_explain_page

        write_explain_page(explained, html)
    print_json(explained) if json_ else print_parts(explained.parts())


@app.command()
def bench(
    model: Annotated[
        str, typer.Argument(help="A model folder (runs/NAME/model, or a one-logit or pairwise model's), or a hub id.")
    ],
    suite: Annotated[str, typer.Option(help="A benchmark's name (`armorm data sources` lists them) or a file of pairs.")],
    path: Annotated[str | None, typer.Option(help="A local copy of the benchmark's files, read instead of the hub.")] = None,
    section: Annotated[list[str] | None, typer.Option(help="For a file: PATTERN=SECTION of subsets; may be repeated.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROWS, help="At most so many items, evenly over the subsets.")
    ] = None,
    profile: ProfileFile = None,
    out: Annotated[Path | None, typer.Option(help="The folder for results [default: runs/bench/MODEL/SUITE].")] = None,
    batch_tokens: BatchTokens = 4096,
    max_tokens: MaxTokens = None,
    exact: Exact = False,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    json_: Json = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score a benchmark: sections, subsets and overall with 95 % intervals, beside the published numbers."""
    from armorm.cli.benching import suite_of
    from armorm.jobs.bench import run_benchmark
    from armorm.progress import Reporter
    from armorm.report.bench_report import bench_report, render_csv
    from armorm.scoring.profile import Profile

    chosen = suite_of(suite, row_format(columns, format_, cells), path=path, sections=section or [], limit=limit)
    steered = Profile.from_yaml(profile) if profile else None
    reading: Reading = {"batch_tokens": batch_tokens, "max_tokens": max_tokens, "exact": exact}
    results = run_benchmark(model, chosen, out, profile=steered, reporter=Reporter(quiet=quiet), **reading)
    if csv_:
        print(render_csv(results), end="")
        return
    print_result(results, lambda: bench_report(results), json_=json_, then=f"results: {results.folder}")


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
    from armorm.compare.comparing import compare as compare_methods
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.report.comparison import compare_report
    from armorm.report.latex import render_latex

    loaded = load_recipe(recipe)
    results = compare_methods(loaded, out or Path("runs") / loaded.name, features=features, reporter=Reporter(quiet=quiet))
    if latex:
        print(render_latex(compare_report(results), "compare"), end="")
        return
    print_result(results, lambda: compare_report(results), json_=json_, then=f"results: {results.folder}")


@app.command()
def audit(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Good answers, best with others beside them: pairs, `responses`, conversations.")],
    run: Annotated[
        Path | None, typer.Option(help="The run whose Bradley–Terry rival to compare with [default: the model's own].")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, max=MOST_ROWS, help="At most so many prompts, the same ones every time.")] = 100,
    only: Annotated[str, typer.Option(help="Only these changes, separated by commas.")] = "",
    fail_on: Annotated[
        str,
        typer.Option(help="Exit code 2 where one of these changes does what it should not: names, `same`, `worse` or `all`."),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The folder for the page [default: runs/audit/MODEL/FILE].")] = None,
    batch_tokens: BatchTokens = 4096,
    max_tokens: MaxTokens = None,
    exact: Exact = False,
    columns: ColumnsGiven = None,
    format_: Format = "auto",
    cells: CellsAre = "auto",
    answer: AnswerIs = "last-turn",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Audit for reward hacking: how padding, flattery, refusals and the like move the score, with and without debiasing."""
    from armorm.bench.audit import changes_named, failures
    from armorm.jobs.audit import run_audit
    from armorm.progress import Reporter
    from armorm.report.audit_report import audit_report

    names, watched = ([name.strip() for name in words.split(",") if name.strip()] for words in (only, fail_on))
    changes_named(watched)  # a wrong word is told before anything is scored
    reporter = Reporter(quiet=quiet)
    reading: Reading = {"batch_tokens": batch_tokens, "max_tokens": max_tokens, "exact": exact}
    rows = row_format(columns, format_, cells, answer=answer)
    results = run_audit(model, file, out, run=run, limit=limit, only=names, reporter=reporter, rows=rows, **reading)
    print_result(results, lambda: audit_report(results), json_=json_, then=f"page: {Path(results.folder) / 'audit.html'}")
    if found := failures(results, watched):
        for sentence in found:
            typer.echo(f"failed: {sentence}", err=True)
        raise typer.Exit(2)


@app.command("export")
def export_(
    model: Model,
    out: NewFolder,
    layout: Annotated[str, typer.Option(help="armorm: this package's; released: the released ArmoRM checkpoint's.")] = "armorm",
    shard_size: Annotated[str, typer.Option(help="The largest size of a weights file.")] = "5GB",
    dtype: Annotated[str | None, typer.Option(help="Of the decoder, where it is not to be as the model's config says.")] = None,
    json_: Json = False,
) -> None:
    """Write a model folder in another layout, for programs that were made for the released ArmoRM checkpoint."""
    from armorm.jobs.exchange import export_model

    _print_facts(export_model(model, out, layout=layout, shard_size=shard_size, dtype=dtype), json_=json_)


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
    max_tokens: Annotated[
        int | None, typer.Option(min=16, max=MOST_TOKENS, help="Longest conversation, where it is not the decoder's.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a model folder of the parts that the public ArmoRM training scripts save, and their backbone."""
    from armorm.jobs.exchange import import_parts

    how: dict[str, Any] = {"temperature": temperature, "dtype": dtype, "max_tokens": max_tokens}
    facts = import_parts(regression, gate, backbone, out, transform=transform, objectives=objectives, **how)
    _print_facts(facts, json_=json_)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A run's folder, a store's, a model's, or one of results or score files.")],
    json_: Json = False,
) -> None:
    """Check every file that armorm wrote below a folder: whether it is there and as it was written. Exit code 2: one is not."""
    from armorm.jobs.verify import verify as check_folder
    from armorm.report.verification import verification_report

    found = check_folder(folder)
    print_result(found, lambda: verification_report(found), json_=json_)
    if not found.whole:
        raise typer.Exit(2)


@app.command()
def doctor(json_: Json = False) -> None:
    """Say what is installed, what this machine can do, and what to install for the rest."""
    from armorm.cli.doctor import check_all, checks_report

    checks = check_all()
    print_result(checks, lambda: checks_report(checks), json_=json_)
    if not all(c["ok"] for c in checks if c["needed"]):
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
    from armorm.progress import Reporter
    from armorm.recipe import load_recipe
    from armorm.report.run_tables import run_report, terminal_report
    from armorm.run.train import train

    loaded = load_recipe(recipe)
    folder = out or Path("runs") / loaded.name
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: choose another --out")
    run = train(loaded, folder, features=features, reporter=Reporter(quiet=quiet))
    where = f"model:  {run.folder / 'model'}\nreport: {run.report}"
    computed = f"computed: {', '.join(run.computed) or 'nothing; everything was there'}\n{where}"
    print_result(run.results, lambda: terminal_report(run_report(run.results)), json_=json_, then=computed)


def _print_facts(facts: dict[str, Any], *, json_: bool) -> None:
    from armorm.report.tables import facts_report

    texts = {key.replace("_", " "): ", ".join(value) if isinstance(value, list) else str(value) for key, value in facts.items()}
    print_result(facts, lambda: facts_report(texts), json_=json_)
