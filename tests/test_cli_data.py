"""`armorm data`: exit codes, results on stdout, messages that say what to do, files whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_run import Armorm, Outcome, write_lines

COMMANDS = ("sources", "inspect", "validate", "export")


@pytest.fixture
def data(armorm: Armorm) -> Armorm:
    """Runs `armorm data …`."""
    return lambda *words: armorm("data", *words)


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    rows = [{"prompt": f"p[red]{i}[/nothing]", "response": "r", "score": i % 3} for i in range(6)]
    write_lines(tmp_path / "bad.jsonl", [*rows, {"prompt": "p", "response": "", "score": 1}, {"prompt": "[/x]", "score": 1}])
    return tmp_path / "bad.jsonl"


def only_message(outcome: Outcome) -> str:
    """The one message of a command that failed by the caller's fault."""
    code, out, err = outcome
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(data: Armorm, command: str):
    assert command in data("--help")[1]
    code, out, _ = data(command, "--help")
    assert code == 0
    assert f"armorm data {command}" in out


def test_help_and_sources_start_without_torch():
    start = "import sys; sys.argv = ['armorm', 'data', {!r}]\nfrom armorm.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    for word, absent in (("--help", {"torch", "transformers", "numpy"}), ("sources", {"torch", "transformers"})):
        code = start.format(word) + f"assert not {absent!r} & set(sys.modules), 'slow imports'"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr


def test_sources_lists_everything_that_has_a_name(data: Armorm):
    from armorm.data.benchmarks.registry import benchmarks
    from armorm.data.sources.registry import pair_sources, rating_sources

    known = {"ratings": rating_sources(), "pairs": pair_sources(), "benchmarks": benchmarks()}
    code, out, _ = data("sources", "--json")
    assert code == 0
    facts = json.loads(out)
    assert {kind: [one["name"] for one in listed] for kind, listed in facts.items()} == {k: list(v) for k, v in known.items()}
    assert all(one["licence"] and (one["hub"] or one["url"]) for listed in facts.values() for one in listed)
    assert all(one["objectives"] for one in facts["ratings"])
    code, out, _ = data("sources")
    assert code == 0
    for title in ("Rated answers", "Preference pairs", "Benchmarks"):
        assert title in out
    assert "…" not in out.replace(" … ", "")


def test_inspect_prints_tables_or_json_and_writes_the_page(data: Armorm, rows: Path, tmp_path: Path):
    source, bench = rows / "ratings-panel.jsonl", rows / "bench.jsonl"
    code, out, err = data("inspect", source, "--against", bench, "--out", tmp_path / "found", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts == json.loads((tmp_path / "found" / "inspect.json").read_text(encoding="utf-8"))
    assert facts["counts"]["rows"] == 60
    assert facts["leakage"][0]["exact"] == {"prompts": 1, "rows": 1}
    page = (tmp_path / "found" / "inspect.html").read_text(encoding="utf-8")
    assert "panel-verbosity" in page
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == ["SHA256SUMS", "inspect.html", "inspect.json"]
    code, out, _ = data("inspect", source, "--against", f"{bench}", "--limit", 10)
    assert code == 0
    assert "10 rated answers" in out
    assert "panel-quality" in out
    code, out, _ = data("inspect", rows / "pairs.jsonl", "--near", 0.9)
    assert code == 0
    assert "The longer answer was the chosen one" in out


def test_a_named_benchmark_may_lie_in_a_local_file(data: Armorm, rows: Path, tmp_path: Path):
    asked = "Write a function that adds two numbers and returns their sum, please."
    items = [
        {
            "id": 1,
            "prompt": asked,
            "chosen": "a",
            "rejected": "b",
            "subset": "hep-python",
            "chosen_model": "",
            "rejected_model": "",
        }
    ]
    write_lines(tmp_path / "rewardbench.jsonl", items)
    write_lines(tmp_path / "mine.jsonl", [{"prompt": asked.upper(), "chosen": "a", "rejected": "b"}])
    code, out, err = data(
        "inspect", tmp_path / "mine.jsonl", "--against", f"rewardbench={tmp_path / 'rewardbench.jsonl'}", "--json"
    )
    assert code == 0, err
    (leak,) = json.loads(out)["leakage"]
    assert (leak["benchmark"], leak["exact"]["prompts"]) == ("rewardbench", 1)


def test_a_named_source_reads_its_files(data: Armorm, tmp_path: Path):
    fields = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    records = [{"prompt": f"p{i}", "response": "r" * (i + 1), **dict.fromkeys(fields, i % 5)} for i in range(8)]
    write_lines(tmp_path / "train.jsonl", records)
    code, out, err = data("inspect", "helpsteer", "--as", "ratings", "--path", tmp_path / "train.jsonl", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["counts"]["rows"], len(facts["objectives"])) == (8, 5)
    assert facts["objectives"][0]["name"] == "helpsteer-helpfulness"
    assert facts["published"] == 35331
    code, _, err = data(
        "export",
        "helpsteer",
        "--as",
        "ratings",
        "--path",
        tmp_path / "train.jsonl",
        "--limit",
        3,
        "--out",
        tmp_path / "o.parquet",
    )
    assert code == 0, err
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 3


def test_validate_prints_each_fault_and_returns_2(data: Armorm, bad: Path, rows: Path):
    code, out, err = data("validate", bad)
    assert (code, err) == (2, "")
    assert f"{bad}:7: empty-turn: turn 2 by the assistant (fill in" in out
    assert f"{bad}:8: missing-field" in out
    assert "2 faulty in 8 records; 6 rated answers of 6 prompts" in " ".join(out.split())
    code, out, _ = data("validate", bad, "--show", 1)
    assert code == 2
    assert "missing-field: needs" not in out
    assert "… and 1 more" in out
    code, out, _ = data("validate", bad, rows / "pairs.jsonl", "--show", 0, "--json")
    assert code == 2
    facts = json.loads(out)
    assert [s["faulty"] for s in facts["sources"]] == [2, 0]
    assert [s["kind"] for s in facts["sources"]] == ["ratings", "pairs"]
    assert len(facts["faults"]) == 2
    assert data("validate", rows / "pairs.jsonl", rows / "ratings-panel.jsonl")[0] == 0


def test_export_says_what_it_wrote_and_left_out(data: Armorm, bad: Path, tmp_path: Path):
    out_file = tmp_path / "out" / "rows.parquet"
    code, out, _ = data("export", bad, "--out", out_file)
    assert code == 0
    assert "6 rows from 8 records" in " ".join(out.split())
    assert "empty-turn" in out
    code, _, err = data("export", bad, "--out", out_file)
    assert code == 2
    assert "is there already" in err
    out_file.unlink()
    code, out, _ = data("export", bad, "--out", out_file, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 6)
    assert [p.name for p in out_file.parent.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("inspect", "nothing-such"), "armorm data sources"),
        (("inspect", "no/such.jsonl"), "no file matches"),
        (("inspect", "helpsteer"), "--as"),
        (("inspect", "beavertails", "--as", "pairs"), "names ratings"),
        (("inspect", "beavertails", "--path", "no/such"), "no file matches"),
        (("inspect", "BAD", "--path", "x"), "no public set"),
        (("inspect", "BAD", "--limit", "0"), "at least 1"),
        (("inspect", "BAD", "--against", "rewardbanch"), "did you mean 'rewardbench'"),
        (("inspect", "BAD", "--against", "BAD"), "none of its 8 records"),
        (("inspect", "BAD", "--objectives", "no.json"), "no such file"),
        (("export", "BAD", "--out", "x.csv"), ".parquet"),
        (("export", "BAD", "--as", "pairs", "--out", "x.parquet"), "no row to export"),
        (("validate", "no.jsonl"), "no file matches"),
    ],
)
def test_what_the_caller_can_put_right_is_2(data: Armorm, bad: Path, words: tuple[str, ...], says: str):
    assert says in " ".join(only_message(data(*(str(bad) if w == "BAD" else w for w in words))).split())


@pytest.mark.parametrize("words", [("inspect",), ("validate",), ("export", "x"), ("inspect", "x", "--as", "neither")])
def test_wrong_usage_is_2(data: Armorm, words: tuple[str, ...]):
    code, out, err = data(*words)
    assert (code, out) == (2, "")
    assert "Usage: armorm data" in err


def test_an_interrupt_is_130_and_leaves_nothing_half(data: Armorm, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from armorm.data import export as exporting

    def stop(_row: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_characters", stop)
    code, out, err = data("export", bad, "--out", tmp_path / "o.parquet")
    assert (code, out) == (130, "")
    assert "stopped" in err
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == []
