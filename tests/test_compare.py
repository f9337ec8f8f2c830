"""The comparison: every method of Table 1 on one small planted set, found again and resumed, with the table in all its forms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Judge, Reply, Request, judge_server, refuses, says
from small_run import BAD, GOOD, Armorm, write_recipe, write_rows

TUNING = {
    "lora": {"rank": 4, "dropout": 0.0},
    "batch_size": 8,
    "micro_batch": 8,
    "learning_rate": 1e-2,
    "save_every": 20,
    "evaluate": 8,
    "bradley_terry": {"steps": 20},
    "regression": {"steps": 20},
    "pairwise": {"steps": 40, "batch_size": 8, "micro_batch": 8},
}


def prefers_good(request: Request) -> Reply:
    """A judge that knows how the pairs were made: the larger share of good words wins, whichever answer comes first."""
    _, a, b = (text.count(GOOD) / max(text.count(GOOD) + text.count(BAD), 1) for text in request.prompt.split("<<answer "))
    return says(f"[[{'A' if a > b else 'B'}]]")


def half_fails(request: Request) -> Reply:
    return refuses(500) if request.before == 0 and len(request.prompt) % 2 else prefers_good(request)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setenv("TEST_KEY", "k")
    with judge_server(half_fails) as judge:
        yield judge


def recipe_of(folder: Path, speaker: Path, judge: Judge | None = None) -> Path:
    judges: list[dict[str, Any]] = [
        {"name": "small-judge", "local": str(speaker), "verdict": "log-probabilities", "dtype": "float32"}
    ]
    if judge is not None:
        remote = {"model": "m", "endpoint": judge.url, "key_env": "TEST_KEY", "template": "pairwise-short-1"}
        judges.append({"name": "good-judge", **remote, "price_in": 1.0, "price_out": 2.0})
        judges.append({"name": "nowhere", **remote, "endpoint": "http://127.0.0.1:9/v1", "retries": 0})
    weights = {"panel-quality": 1.0, "panel-verbosity": -0.2}
    compare = {
        "items": 60,
        "train": ["bradley-terry", "pairwise", "regression"],
        "rows": {"ratings": 50, "pairs": 60},
        "features": {"response": ["final:last"], "prompt": "2:last", "store_dtype": "float32"},
        "fixed_weights": [{"name": "own", "weights": weights}],
        "judges": judges,
    }
    write_rows(folder, items=64)
    path = write_recipe(folder, speaker, tuning=TUNING, compare=compare)
    path.write_text(path.read_text(encoding="utf-8").replace("max_tokens: 256", "max_tokens: 512"), encoding="utf-8")
    return path


@pytest.fixture
def compared(tmp_path: Path, speaker: Path, endpoint: Judge, armorm: Armorm) -> tuple[dict[str, Any], Path]:
    recipe = recipe_of(tmp_path, speaker, endpoint)
    code, out, err = armorm("compare", recipe, "--out", tmp_path / "run", "--json", "--quiet")
    assert code == 0, err
    return json.loads(out), tmp_path


@pytest.mark.slow
def test_every_method_of_the_table_is_there_and_beats_chance_where_it_should(compared, armorm, endpoint):
    results, folder = compared
    methods = {m["method"]: m for m in results["methods"]}
    on_decoders = {
        f"{m}@{d}"
        for m in ("armorm", "bradley-terry", "armorm-no-gate", "fitted-weights")
        for d in ("frozen", "bradley-terry", "regression")
    }
    assert set(methods) >= on_decoders | {
        "armorm",
        "armorm-no-gate",
        "armorm-not-debiased",
        "armorm-not-masked",
        "bradley-terry",
        "bradley-terry-trained",
        "pairwise",
        "fixed-own",
        "fitted-weights",
        "length",
        "small-judge",
        "good-judge",
    }
    assert "127.0.0.1:9" in methods["nowhere"]["skipped"]
    suite = results["suites"][0]
    assert (suite["n"], suite["of"], suite["sections"]) == (60, 64, ["chat", "code"])
    overall = {m["method"]: m["overall"] for m in suite["methods"]}
    assert overall["good-judge"]["value"] == 1.0, "half of its requests failed at first, and nothing is lost"
    for name in (
        "armorm",
        "bradley-terry",
        "bradley-terry-trained",
        "pairwise",
        "fitted-weights",
        "armorm@regression",
        "armorm@bradley-terry",
    ):
        assert overall[name]["low"] > 0.5, (name, overall[name])
    assert {one["n"] for one in overall.values()} == {60}
    assert results["references"] == ["bradley-terry", "bradley-terry-trained"]
    assert len(results["suites"]) == 2
    whole = results["suites"][1]
    assert (whole["n"], whole["of"]) == (64, 64)
    stored = {m["method"] for m in whole["methods"]}
    assert stored >= {"armorm", "armorm-not-masked", "bradley-terry", "fixed-own", "fitted-weights"}
    assert not stored & {"bradley-terry-trained", "pairwise", "good-judge", "armorm@frozen"}, "these read texts, or fewer rows"
    assert {m["overall"]["n"] for m in whole["methods"]} == {64}
    assert all(m["versus"].keys() == {"bradley-terry"} for m in whole["methods"])
    assert all(m["versus"].keys() == set(results["references"]) for m in suite["methods"])
    assert methods["good-judge"]["usage"]["requests"] == 120
    assert methods["good-judge"]["usage"]["cost_usd"] > 0
    assert methods["good-judge"]["position"]["small-bench"]["flips"]["value"] == 0
    trained = methods["bradley-terry-trained"]
    assert trained["training"]["steps"] == 20
    assert trained["scoring"]["small-bench"]["tokens_in"] > 0
    assert [p["backbone"] for p in results["probes"]] == ["frozen, same rows", "Bradley–Terry-initialised", "trained by eq. (1)"]
    assert results["probes"][0]["mean"]["value"] > 0
    assert [p["gain"] is None for p in results["probes"]] == [True, False, False]
    for name in ("results.json", "compare.md", "compare.tex", "compare.svg", "report.html"):
        assert (folder / "run" / "compare" / name).stat().st_size > 0

    # Again: all is found, nothing is asked or trained a second time, and the numbers are the same.
    asked = len(endpoint.requests)
    code, out, err = armorm("compare", folder / "recipe.yaml", "--out", folder / "run", "--json")
    assert code == 0
    assert len(endpoint.requests) == asked
    again = json.loads(out)
    assert again["suites"] == results["suites"]
    assert again["probes"] == results["probes"]
    assert "training " not in err
    assert "bradley-terry: as before" in err
    code, out, _ = armorm("compare", folder / "recipe.yaml", "--out", folder / "run", "--latex", "--quiet")
    assert code == 0
    assert r"\toprule" in out
    code, out, _ = armorm("compare", folder / "recipe.yaml", "--out", folder / "run", "--quiet")
    assert code == 0
    assert "Bradley–Terry" in out
    assert "Table 1" in out

    # A pairwise model that was trained can be judged by itself, and gets the same verdicts.
    model, suite_file = folder / "run" / "tuned" / "pairwise" / "model", folder / "bench.jsonl"
    code, out, err = armorm("bench", model, "--suite", suite_file, "--out", folder / "bench-pairwise", "--json", "--quiet")
    assert code == 0, err
    alone = json.loads(out)
    assert alone["position"]["n"] == 64
    assert alone["figures"]["aggregates"]["items"]["overall"]["value"] > 0.6


def test_a_stopped_comparison_leaves_the_table_so_far(tmp_path, speaker, armorm, monkeypatch):
    from armorm.compare import comparing

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "EVERY_SECONDS", 0)
    monkeypatch.setattr(comparing.Arena, "judge", stops)
    write_rows(tmp_path)
    judges = [
        {"name": name, "local": str(speaker), "verdict": "log-probabilities", "dtype": "float32"} for name in ("one", "two")
    ]
    recipe = write_recipe(tmp_path, speaker, compare={"judges": judges})
    code, out, err = armorm("compare", recipe, "--out", tmp_path / "run", "--json")
    assert (code, out) == (130, "")
    assert "goes on from there" in err
    so_far = json.loads((tmp_path / "run" / "compare" / "results.json").read_text(encoding="utf-8"))
    assert so_far["notes"][0] == "Not computed yet: one, two."
    assert {m["method"] for m in so_far["suites"][0]["methods"]} >= {"armorm", "bradley-terry", "fitted-weights"}
    assert "Not computed yet" in (tmp_path / "run" / "compare" / "compare.md").read_text(encoding="utf-8")

    monkeypatch.setattr(
        comparing.Arena, "judge", lambda _arena, judge: comparing.Contender(judge.name, "", "judge", "", skipped="no")
    )
    code, out, err = armorm("compare", recipe, "--out", tmp_path / "run", "--json", "--quiet")
    assert code == 0, err
    assert not [note for note in json.loads(out)["notes"] if note.startswith("Not computed")]


def test_a_comparison_without_suites_is_refused(tmp_path, speaker, armorm):
    write_rows(tmp_path)
    recipe = write_recipe(tmp_path, speaker, bench=[])
    code, _, err = armorm("compare", recipe, "--out", tmp_path / "run")
    assert code == 2
    assert "bench" in err


def test_an_unknown_objective_is_named(tmp_path, speaker, armorm):
    code, _, err = armorm("tune", recipe_of(tmp_path, speaker), "bradly-terry")
    assert code == 2
    assert "bradley-terry, pairwise, regression" in err


@pytest.mark.slow
def test_tune_resumes_after_a_kill_and_finds_what_is_finished(tmp_path, speaker, armorm, monkeypatch):
    from armorm.tuning import loop

    recipe = recipe_of(tmp_path, speaker)
    real = loop._Watch.on_log

    def stops(self, args, state, control, **more):
        real(self, args, state, control, **more)
        if state.global_step == 25:
            raise KeyboardInterrupt

    words = ("tune", recipe, "pairwise", "--out", tmp_path / "run", "--json")
    monkeypatch.setattr(loop._Watch, "on_log", stops)
    code, _, err = armorm(*words)
    assert code == 130
    assert "goes on from there" in err
    tuned = tmp_path / "run" / "tuned"
    assert not (tuned / "pairwise").exists()
    assert (tuned / "pairwise.checkpoints" / "checkpoint-20").is_dir()
    monkeypatch.setattr(loop._Watch, "on_log", real)
    code, out, _ = armorm(*words)
    facts = json.loads(out)
    assert code == 0
    assert facts["steps"] == 40
    curve = json.loads((tuned / "pairwise" / "training.json").read_text())["curve"]
    assert [row["step"] for row in curve] == list(range(1, 41))
    assert not (tuned / "pairwise.checkpoints").exists()
    assert (tuned / "pairwise" / "training.svg").exists()
    code, out, err = armorm(*words)
    assert code == 0
    assert json.loads(out) == facts
    assert "as before" in err


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path, speaker, armorm):
    """The launcher's processes share every step's examples: the same losses, the same number of tokens, one folder."""
    recipe = recipe_of(tmp_path, speaker)
    text = recipe.read_text(encoding="utf-8").replace("micro_batch: 8", "micro_batch: 4").replace("steps: 20", "steps: 4")
    recipe.write_text(text, encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    words = [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "-m",
        "armorm",
        "tune",
        recipe,
        "regression",
        "--quiet",
        "--out",
    ]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *words, tmp_path / "two"], env=threads, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert armorm("tune", recipe, "regression", "--out", tmp_path / "one", "--quiet")[0] == 0
    one, two = (json.loads((tmp_path / n / "tuned" / "regression" / "training.json").read_text()) for n in ("one", "two"))
    assert [r["loss"] for r in two["curve"]] == pytest.approx([r["loss"] for r in one["curve"]], rel=1e-3)
    assert two["tokens"] == one["tokens"]
    assert two["steps"] == 4
    assert sorted(p.name for p in (tmp_path / "two" / "tuned").iterdir()) == ["regression"]
