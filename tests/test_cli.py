"""The command line: exit codes with a message that says what to do, results on stdout, progress on stderr."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from small_run import Armorm, Outcome, read_lines, write_lines, write_recipe

from armorm import __version__
from armorm.errors import StorageError
from armorm.progress import Reporter
from armorm.run.train import Run

COMMANDS = (
    *("demo", "train", "score", "best-of", "select", "pairs", "explain", "steer", "audit", "bench", "tune", "compare", "data"),
    *("export", "import", "doctor", "serve"),
)


@pytest.fixture(scope="module")
def trained(run: Run) -> Path:
    """A run's folder."""
    return run.folder


def only_message(outcome: Outcome, code: int) -> str:
    """The one message of a command that failed: nothing on stdout, no trace."""
    found, out, err = outcome
    assert found == code, err
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


def test_help_names_every_command(armorm: Armorm):
    code, out, _ = armorm("--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(armorm: Armorm, command: str):
    code, out, _ = armorm(command, "--help")
    assert code == 0
    assert f"armorm {command}" in out


def test_version(armorm: Armorm):
    assert armorm("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", [("nothing",), ("train",), ("score", "a"), ("train", "a.yaml", "--nothing")])
def test_wrong_usage_is_2(armorm: Armorm, words: tuple[str, ...]):
    code, out, err = armorm(*words)
    assert (code, out) == (2, "")
    assert "Usage: armorm" in err


# -- faults of the caller: 2, and what to do about them ---------------------------------------------------------------------


def test_a_missing_recipe(armorm: Armorm, tmp_path: Path):
    assert "no such recipe; the project's own are in recipes/" in only_message(armorm("train", tmp_path / "no.yaml"), 2)


def test_a_misspelt_key(armorm: Armorm, rows: Path, tiny_folder: Path):
    recipe = write_recipe(rows, tiny_folder, gate={"hiden": 3})
    for words in (("train", recipe), ("train", recipe, "--dry-run", "--json")):
        assert "gate.hiden: no such key; did you mean 'hidden'?" in only_message(armorm(*words), 2)


def test_a_missing_file(armorm: Armorm, rows: Path, tiny_folder: Path):
    recipe = write_recipe(rows, tiny_folder, pairs=[{"path": str(rows / "no-*.jsonl")}])
    assert "no file matches" in only_message(armorm("train", recipe), 2)


def test_square_brackets_in_a_message_are_text(armorm: Armorm, rows: Path, tiny_folder: Path):
    recipe = write_recipe(rows, tiny_folder, pairs=[{"path": str(rows / "[!no]x[bold].jsonl")}])
    assert "[!no]x[bold].jsonl" in only_message(armorm("train", recipe), 2)


def test_a_backbone_without_chat_template(armorm: Armorm, rows: Path, tiny_folder: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    recipe = write_recipe(rows, bare)
    message = only_message(armorm("train", recipe, "--out", tmp_path / "run", "--quiet"), 2)
    assert "no chat template: name a Jinja file" in message
    assert "backbone.chat_template" in message


@pytest.mark.parametrize("command", ["score", "explain"])
def test_a_folder_that_is_no_model(armorm: Armorm, tmp_path: Path, command: str):
    write_lines(tmp_path / "rows.jsonl", [{"prompt": "hello", "response": "fine"}])
    message = only_message(armorm(command, tmp_path, tmp_path / "rows.jsonl"), 2)
    assert "no config.json in it; give a run's model folder (runs/NAME/model)" in message


def test_a_file_in_the_place_of_the_run(armorm: Armorm, rows: Path, tiny_folder: Path, tmp_path: Path):
    (tmp_path / "run").touch()
    recipe = write_recipe(rows, tiny_folder)
    assert "is a file: choose another --out" in only_message(armorm("train", recipe, "--out", tmp_path / "run"), 2)


def test_a_file_of_unknown_format(armorm: Armorm, trained: Path, tmp_path: Path):
    (tmp_path / "rows.txt").touch()
    assert "the format is not known" in only_message(armorm("score", trained / "model", tmp_path / "rows.txt"), 2)


# -- faults of the machine: 1; interruptions: 130 ----------------------------------------------------------------------------


def test_a_full_disk_is_1(armorm: Armorm, rows: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full. Free some space and run the same command again")

    monkeypatch.setattr("armorm.run.train.train", full)
    assert "Free some space" in only_message(armorm("train", write_recipe(rows, tiny_folder)), 1)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_130_and_says_how_to_go_on(
    armorm: Armorm, rows: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
):
    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(sent)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes away from what it runs in the background
    monkeypatch.setattr("armorm.run.train.train", stop)
    code, out, err = armorm("train", write_recipe(rows, tiny_folder))
    assert (code, out) == (130, "")
    assert "run the same command again" in err


def test_the_time_left_is_that_of_what_this_run_does(monkeypatch: pytest.MonkeyPatch):
    """80 units of which an earlier run had done 40: at 10 s each, not at what 40 at once would make of it."""
    said, clock = StringIO(), itertools.count(0, 25)
    monkeypatch.setattr("armorm.progress.time.monotonic", lambda: next(clock))
    with Reporter(console=Console(file=said, width=200)).bar("training", 80) as advance:
        for done in (40, 42, 45):
            advance(done, "fine")
    assert said.getvalue().splitlines() == [
        "training: 40/80 fine",
        "training: 42/80 fine, 475 s left",
        "training: 45/80 fine, 350 s left",
    ]


def test_progress_never_reads_names_as_markup():
    said = StringIO()
    reporter = Reporter(console=Console(file=said, width=200))
    reporter.say("reading [/red]x [bold]y")
    reporter.warn("objective [/red]x has no ratings")
    assert said.getvalue() == "reading [/red]x [bold]y\nwarning: objective [/red]x has no ratings\n"
    drawn = Reporter(console=Console(file=StringIO(), width=200, force_terminal=True))
    with drawn.bar("features of [/red]x", 2) as advance:
        advance(1, "[/red] rows/s")


# -- results -----------------------------------------------------------------------------------------------------------------


def test_a_dry_run_is_a_plan(armorm: Armorm, rows: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = armorm("train", write_recipe(rows, tiny_folder), "--dry-run", "--json")
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert plan["objectives"] == ["panel-quality", "panel-verbosity", "judge-quality"]
    assert [Path(f).name for f in plan["ratings"][0]["files"]] == ["ratings-judge.jsonl", "ratings-panel.jsonl"]
    assert plan["stages"] == [
        "rows",
        "features",
        "probe",
        "uncertainty",
        "debias",
        "gate",
        "preference",
        "model",
        "bench",
        "report",
    ]
    assert not list(tmp_path.iterdir())


def test_the_papers_recipe_passes_a_dry_run(armorm: Armorm):
    recipe = Path(__file__).parents[1] / "recipes" / "armorm-llama3-8b.yaml"
    code, out, _ = armorm("train", recipe, "--dry-run", "--json")
    assert code == 0
    assert len(json.loads(out)["objectives"]) == 19


def test_training_prints_results_on_stdout_and_progress_on_stderr(
    armorm: Armorm, rows: Path, tiny_folder: Path, trained: Path, tmp_path: Path
):
    shutil.copytree(trained, tmp_path / "run")
    recipe = write_recipe(rows, tiny_folder, gate={"steps": 20})
    words = ("train", recipe, "--out", tmp_path / "run", "--features", trained / "features")
    code, out, err = armorm(*words, "--json")
    assert code == 0
    assert json.loads(out)["name"] == "small"
    assert "probe: as before" in err
    assert "gate: " in err
    code, out, err = armorm(*words, "--quiet")
    assert (code, err) == (0, "")
    assert "ArmoRM + MoE" in out
    assert "computed: nothing; everything was there" in out
    assert str(tmp_path / "run" / "model") in out.replace("\n", "")


def test_scores_come_row_by_row_and_a_faulty_row_keeps_its_place(armorm: Armorm, rows: Path, trained: Path, tmp_path: Path):
    bench = read_lines(rows / "bench.jsonl")[:2]
    good = [{"id": r["id"], "prompt": r["prompt"], "response": r["chosen"]} for r in bench]
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]
    write_lines(tmp_path / "rows.jsonl", [good[0], {"id": "bad", "prompt": "hello"}, {"messages": turns}, good[1]])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("{not json\n")
    code, out, err = armorm("score", trained / "model", tmp_path / "rows.jsonl", "--quiet")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [f["id"] for f in found] == [good[0]["id"], "bad", 3, good[1]["id"], 5]
    assert [f["score"] is None for f in found] == [False, True, False, False, True]
    assert found[1]["error"]
    assert found[4]["error"].startswith("not-json: ")
    code, out, _ = armorm("score", trained / "model", tmp_path / "rows.jsonl", "--quiet", "--full")
    full = json.loads(out.splitlines()[0])
    assert sum(full["contributions"].values()) == pytest.approx(found[0]["score"], abs=1e-5)
    assert sum(full["gate"].values()) == pytest.approx(1, abs=1e-5)


def test_a_score_is_explained_as_a_table_and_as_json(armorm: Armorm, rows: Path, trained: Path, tmp_path: Path):
    bench = read_lines(rows / "bench.jsonl")
    write_lines(tmp_path / "rows.jsonl", [{"prompt": r["prompt"], "response": r["chosen"]} for r in bench[:2]])
    code, out, _ = armorm("explain", trained / "model", tmp_path / "rows.jsonl", "--row", 2)
    assert code == 0
    assert "contribution" in out
    assert "panel-quality" in out
    code, out, _ = armorm("explain", trained / "model", tmp_path / "rows.jsonl", "--row", 2, "--json")
    found = json.loads(out)
    assert sum(found["contributions"].values()) == pytest.approx(found["score"], abs=1e-5)
    assert "there is no row 3" in only_message(armorm("explain", trained / "model", tmp_path / "rows.jsonl", "--row", 3), 2)
    assert "there is no row 0" in only_message(armorm("explain", trained / "model", tmp_path / "rows.jsonl", "--row", 0), 2)


def test_doctor_names_what_is_there(armorm: Armorm):
    code, out, _ = armorm("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(out)}
    assert code == 0
    assert checks["torch"]["ok"]
    assert checks["python"]["found"] == sys.version.split()[0]
    code, out, _ = armorm("doctor")
    assert code == 0
    assert "transformers" in out


def test_doctor_fails_and_gives_the_command_when_something_needed_is_missing(armorm: Armorm, monkeypatch: pytest.MonkeyPatch):
    from armorm.cli import doctor

    monkeypatch.setattr(doctor, "NEEDED", (*doctor.NEEDED, "no-such-package"))
    code, out, _ = armorm("doctor", "--json")
    assert code == 1
    assert {c["name"]: c for c in json.loads(out)}["no-such-package"]["remedy"] == "pip install no-such-package"


def test_bench_prints_tables_json_and_csv(armorm: Armorm, rows: Path, trained: Path, tmp_path: Path):
    words = ("bench", trained / "model", "--suite", rows / "bench.jsonl", "--out", tmp_path / "out")
    code, out, err = armorm(*words)
    assert code == 0, err
    assert "overall" in out
    assert "chat" in out
    assert "scoring bench" in err or "loading" in err
    code, out, _ = armorm(*words, "--json", "--quiet")
    results = json.loads(out)
    assert code == 0
    assert results["items"] == 24
    code, out, err = armorm(*words, "--csv", "--quiet", "--limit", 10)
    assert (code, err) == (0, "")
    assert out.startswith("level,aggregate,name,value")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["left_out"] == {"over-cap": 14}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--suite", "rewardbnch"), "did you mean 'rewardbench'"),
        (("--suite", "no/such.jsonl"), "no file matches"),
        (("--suite", "rewardbench", "--path", "no/such"), "no file matches"),
        (("--suite", "rewardbench", "--section", "a=b"), "has sections of its own"),
        (("--suite", "rewardbench", "--section", "ab"), "write PATTERN=SECTION"),
    ],
)
def test_bench_says_what_is_wrong_with_a_suite(armorm: Armorm, trained: Path, words: tuple[str, ...], said: str, tmp_path: Path):
    assert said in only_message(armorm("bench", trained / "model", *words, "--out", tmp_path, "--quiet"), 2).replace("\n", " ")
