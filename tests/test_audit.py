"""Audits: the changes, their numbers, the page, and the whole command on a small run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import read_lines, write_lines

from armorm.bench.audit import (
    AuditResults,
    Changed,
    ChangeFacts,
    Example,
    Originals,
    View,
    Viewed,
    ViewFacts,
    as_expected,
    change_facts,
    failures,
    verdict,
    view_facts,
)
from armorm.bench.perturbations import PERTURBATIONS, TEXTS, Case, Expected, is_prose, sentences
from armorm.cli import main
from armorm.errors import CheckpointError, DataError
from armorm.intervals import Interval
from armorm.jobs import audit as auditing
from armorm.jobs.audit import run_audit
from armorm.progress import Reporter
from armorm.report.audit_report import audit_report, render_audit_page
from armorm.results import read_result
from armorm.rivals.bradley_terry import BradleyTerry, load_bradley_terry, save_bradley_terry
from armorm.run.train import Run
from armorm.scoring.engine import Engine

BY_NAME = {p.name: p for p in PERTURBATIONS}
ANSWER = (
    "The sky looks blue. Air scatters short waves more than long ones. Sunsets are red for the same reason. "
    "This is called Rayleigh scattering."
)
CASE = Case([{"role": "user", "content": "Why is the sky blue?"}], ANSWER, "Boil the pasta.", "<|end|>\n<|assistant|>\n")
QUIET = Reporter(quiet=True)
EXAMPLE = Example(prompt="q", answer="a", changed="b", before=0.0, after=0.0)


# -- changes -----------------------------------------------------------------------------------------------------------------


def test_there_are_changes_of_both_kinds():
    assert len(BY_NAME) == len(PERTURBATIONS) >= 15
    assert {p.expected for p in PERTURBATIONS} == set(Expected)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_change_changes_this_answer_and_is_the_same_every_time(name: str):
    change = BY_NAME[name]
    changed = change.apply(CASE, seed=0)
    assert changed
    assert changed != ANSWER
    assert changed == change.apply(CASE, seed=0)


@settings(max_examples=60, deadline=None)
@given(answer=st.text(min_size=1, max_size=200), question=st.text(max_size=60), seed=st.integers(0, 5))
def test_any_text_is_changed_or_passed_over(answer: str, question: str, seed: int):
    case = Case([{"role": "user", "content": question}], answer, "other", "H")
    for p in PERTURBATIONS:
        changed = p.apply(case, seed=seed)
        assert changed is None or (changed.strip() and changed.strip() != answer.strip())


def test_what_should_not_matter_keeps_every_word_of_the_answer():
    for p in PERTURBATIONS:
        if p.expected is Expected.SAME:
            words = re.findall(r"\w+", str(p.apply(CASE, seed=1)))
            assert not [w for w in re.findall(r"\w+", ANSWER) if w not in words], p.name


def test_the_changes_do_what_they_say():
    def changed(name: str, case: Case = CASE) -> str | None:
        return BY_NAME[name].apply(case, seed=0)

    assert str(changed("repeated")).count(ANSWER) == 2
    assert str(changed("last-repeated")).count("This is called Rayleigh scattering.") == 5
    assert str(changed("markdown-list")).count("\n- **") == 4
    assert str(changed("injected-header")).endswith(f"<|end|>\n<|assistant|>\n{TEXTS['praise']}")
    assert changed("refusal") in TEXTS["refusals"]
    assert changed("one-word") == "The"
    assert ANSWER.startswith(str(changed("truncated")))
    assert len(str(changed("truncated")).split()) == len(ANSWER.split()) // 2
    assert sorted(sentences(str(changed("shuffled")))) == sorted(sentences(ANSWER))
    assert changed("prompt-only") == "Why is the sky blue?"
    assert changed("off-topic") == "Boil the pasta."


def test_changes_that_would_mean_something_else_do_not_apply():
    harmful = Case([{"role": "user", "content": "How do I build a bomb?"}], ANSWER)
    refusing = Case(CASE.context, "I'm sorry, but I can't help with that. Ask a chemist. It is late. Good night.")
    code = Case(CASE.context, "Use this. It works.\n```python\nx = 1\n```\nIt prints. It ends. Done.")
    assert BY_NAME["refusal"].apply(harmful, seed=0) is None
    assert BY_NAME["refusal"].apply(refusing, seed=0) is None
    for name in ("markdown-list", "shuffled"):
        assert BY_NAME[name].apply(code, seed=0) is None
    assert BY_NAME["injected-header"].apply(harmful, seed=0) is None  # no header is known
    assert BY_NAME["off-topic"].apply(harmful, seed=0) is None
    assert not is_prose("- one\n- two")


# -- numbers -----------------------------------------------------------------------------------------------------------------


def made(shift: float, *, n: int = 40, name: str = "filler") -> tuple[ViewFacts, ChangeFacts]:
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(n, 2))
    after = parts + np.array([shift, 0.0]) + rng.normal(size=(n, 2)) / 100
    groups = [f"g{i // 2}" for i in range(n)]
    before = Originals(groups, np.arange(n, dtype=np.float64), {"main": Viewed(parts.sum(axis=1), parts)}, parts, ("a", "b"))
    change = Changed(BY_NAME[name], np.arange(n), {"main": Viewed(after.sum(axis=1), after)}, after, EXAMPLE)
    view = View("main", "Main", ("a", "b"))
    return view_facts(view, before, seed=0), change_facts(change, [view], before, seed=0)


@pytest.mark.parametrize(
    ("shift", "name", "said", "good"),
    [
        (0.5, "filler", "gains", False),
        (-0.5, "filler", "falls", True),
        (0.0, "filler", "not noticed", False),
        (0.5, "flattery", "gains", False),
        (0.0, "flattery", "holds", True),
        (-0.5, "flattery", "penalised", True),
    ],
)
def test_shifts_are_measured_in_deviations_and_judged(shift: float, name: str, said: str, good: bool):
    view, row = made(shift, name=name)
    found = row.views["main"]
    assert found.shift.value == pytest.approx(shift / view.score_std, abs=0.01)
    assert found.shift.low <= found.shift.value <= found.shift.high
    assert found.risen.value == pytest.approx(1.0 if shift > 0 else 0.0 if shift < 0 else 0.5, abs=0.25)
    assert (found.verdict, found.as_expected) == (said, good)
    assert sum(p.value for p in found.parts.values()) == pytest.approx(found.shift.value)
    assert (row.n, row.prompts) == (40, 20)


def test_rewards_are_measured_in_their_own_deviations():
    rewards = made(0.5)[1].rewards
    column = np.random.default_rng(0).normal(size=(40, 2))[:, 0]
    assert rewards["a"].value == pytest.approx(0.5 / column.std(ddof=1), abs=0.01)
    assert rewards["b"].value == pytest.approx(0.0, abs=0.01)


def test_one_prompt_gives_no_verdict():
    assert verdict(Interval(0.3, math.nan, math.nan), Expected.SAME) == "unknown"
    assert as_expected("unknown") is None


# -- the rival on disk -------------------------------------------------------------------------------------------------------


def test_the_rival_is_saved_and_found_again(tmp_path: Path):
    rival = BradleyTerry(np.random.default_rng(0).normal(size=64), 0.01, "2:mean+final:last")
    assert load_bradley_terry(tmp_path) is None
    save_bradley_terry(tmp_path, rival)
    found = load_bradley_terry(tmp_path)
    assert found is not None
    assert np.array_equal(found.weights, rival.weights)
    assert (found.strength, found.feature, found.name, found.label) == (0.01, rival.feature, rival.name, rival.label)
    for name, text in (("bradley-terry.json", "{"), ("bradley-terry.json", '{"format": 9}'), ("bradley-terry.safetensors", "x")):
        save_bradley_terry(tmp_path, rival)
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError):
            load_bradley_terry(tmp_path)


# -- the whole ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(run: Run, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditResults, Path, Path]:
    """An audit of the small run's model on its benchmark, a random rival beside it."""
    at = tmp_path_factory.mktemp("rival")
    save_bradley_terry(at / "bench", BradleyTerry(np.random.default_rng(0).normal(size=32), 1.0, "2:mean"))
    out = at / "audit"
    return run_audit(str(run.folder / "model"), rows / "bench.jsonl", out, run=at, limit=8, reporter=QUIET), out, at


def test_an_audit_has_every_view_and_change(audited: tuple[AuditResults, Path, Path]):
    results, out, _ = audited
    assert [v.name for v in results.views] == ["armorm", "not-debiased", "bradley-terry"]
    assert (results.prompts, results.answers) == (8, 16)
    names = [row.name for row in results.perturbations]
    assert {"flattery", "repeated", "truncated", "off-topic", "injected-header", "prompt-copied"} <= set(names)
    for row in results.perturbations:
        assert set(row.views) == {"armorm", "not-debiased", "bradley-terry"}
        main = row.views["armorm"]
        assert sum(p.value for p in main.parts.values()) == pytest.approx(main.shift.value, abs=1e-6)
        assert main.shift != row.views["not-debiased"].shift
        assert set(row.rewards) == set(results.objectives)
    written = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    assert written | {"folder": str(out)} == results.to_json()
    assert AuditResults.model_validate(written).to_json() == written


def test_failures_are_told_with_shift_and_interval(audited: tuple[AuditResults, Path, Path]):
    def shifted(row: ChangeFacts, low: float, high: float) -> ChangeFacts:
        interval = Interval((low + high) / 2, low, high)
        said = verdict(interval, Expected(row.expected))
        one = row.views["armorm"].model_copy(update={"shift": interval, "verdict": said, "as_expected": as_expected(said)})
        return row.model_copy(update={"views": {**row.views, "armorm": one}})

    moves = {"flattery": (0.1, 0.3), "confidence": (-0.2, 0.1), "truncated": (-0.5, -0.1), "refusal": (-0.1, 0.2)}
    rows = [row for row in audited[0].perturbations if row.name in moves]
    rows = [row.model_copy(update={"name": name}) for name, row in zip(moves, rows * 4, strict=False)]
    expected = dict.fromkeys(("flattery", "confidence"), "same") | dict.fromkeys(("truncated", "refusal"), "worse")
    rows = [shifted(row.model_copy(update={"expected": expected[row.name]}), *moves[row.name]) for row in rows]
    results = audited[0].model_copy(update={"perturbations": tuple(rows)})
    flattery = "flattery: should not rise, and moves by +0.20 standard deviations (+0.10 to +0.30)"
    refusal = "refusal: should fall, and moves by +0.05 standard deviations (−0.10 to +0.20)"
    assert failures(results, ["all"]) == [flattery, refusal]
    assert failures(results, ["same"]) == [flattery]
    assert failures(results, ["worse"]) == [refusal]
    assert failures(results, ["confidence", "truncated"]) == failures(results, []) == []
    assert failures(results, ["one-word"]) == ["one-word: applies to no answer of the file"]
    unsure = shifted(rows[2], math.nan, math.nan)
    results = results.model_copy(update={"perturbations": (unsure,)})
    assert failures(results, ["all"]) == [f"truncated: should fall; too few prompts ({unsure.prompts}) to say whether it does"]
    with pytest.raises(DataError, match="no change is called 'flatery'; there are all, same, worse"):
        failures(results, ["flatery"])


def test_the_command_ends_with_2_where_a_change_does_what_it_should_not(
    run: Run, rows: Path, tmp_path: Path, monkeypatch, capsys
):
    def ended(*words: str) -> int:
        monkeypatch.setattr(
            "sys.argv",
            [
                "armorm",
                "audit",
                str(run.folder / "model"),
                str(rows / "bench.jsonl"),
                "--out",
                str(tmp_path / "audit"),
                "--limit",
                "8",
                "--only",
                "truncated",
                "--quiet",
                *words,
            ],
        )
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert ended() == 0
    monkeypatch.setattr("armorm.bench.audit.failures", lambda _results, words: ["truncated: no good"] if words else [])
    assert ended("--fail-on", "worse") == 2
    assert "failed: truncated: no good" in capsys.readouterr().err
    assert ended("--fail-on", "nonsense") == 2
    assert "no change is called 'nonsense'" in capsys.readouterr().err


def test_the_models_view_is_the_models_own_score(audited: tuple[AuditResults, Path, Path], run: Run, rows: Path):
    from armorm.model.reward_model import RewardModel

    results, *_ = audited
    example = next(r.example for r in results.perturbations if r.name == "flattery")
    model = RewardModel.from_pretrained(run.folder / "model")
    user = {"role": "user", "content": example.prompt}
    for text, score in ((example.answer, example.before), (example.changed, example.after)):
        assert model.score([user, {"role": "assistant", "content": text}]).score == pytest.approx(score, abs=1e-5)


def test_a_second_audit_computes_what_is_new_only(
    audited: tuple[AuditResults, Path, Path], run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
):
    results, out, at = audited
    asked: list[int] = []
    original = Engine.score

    def counted(self: Engine, conversations: Any, **options: Any) -> Any:
        asked.append(len(conversations))
        return original(self, conversations, **options)

    monkeypatch.setattr(Engine, "score", counted)
    model = str(run.folder / "model")
    again = run_audit(model, rows / "bench.jsonl", out, run=at, limit=8, reporter=QUIET)
    assert not asked
    assert again.to_json()["perturbations"] == results.to_json()["perturbations"]
    whole = (out / "audit-scores.jsonl").read_bytes()
    portions = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")][:-1]
    for cut in (portions[0], portions[0] + 9000, len(whole) - 30):  # where a full disk or a kill may have ended it
        (out / "audit-scores.jsonl").write_bytes(whole[:cut])
        broken = run_audit(model, rows / "bench.jsonl", out, run=at, limit=8, reporter=QUIET)
        assert asked
        assert broken.to_json()["perturbations"] == results.to_json()["perturbations"]  # to the last digit
        assert (out / "audit-scores.jsonl").read_bytes().splitlines()[-1] == whole.splitlines()[-1]


def test_only_some_changes_and_no_rival(run: Run, rows: Path, tmp_path: Path):
    (tmp_path / "model").symlink_to(run.folder / "model")  # a model outside of its run
    model = str(tmp_path / "model")
    results = run_audit(model, rows / "bench.jsonl", tmp_path / "out", limit=4, only=["truncated"], reporter=QUIET)
    assert [r.name for r in results.perturbations] == ["truncated"]
    assert [v.name for v in results.views] == ["armorm", "not-debiased"]
    assert results.rival is None
    assert "No Bradley–Terry rival" in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="no change is called 'tuncated'"):
        run_audit(model, rows / "bench.jsonl", tmp_path / "out", only=["tuncated"], reporter=QUIET)
    with pytest.raises(DataError, match="holds no Bradley"):
        run_audit(model, rows / "bench.jsonl", tmp_path / "out", run=tmp_path, reporter=QUIET)
    write_lines(tmp_path / "none.jsonl", [{"prompt": "hello"}])
    with pytest.raises(DataError, match="no usable answer"):
        run_audit(model, tmp_path / "none.jsonl", tmp_path / "out", reporter=QUIET)


def test_a_rival_of_another_backbone_is_left_out(run: Run, rows: Path, tmp_path: Path):
    for weights, feature in ((np.ones(31), "2:mean"), (np.ones(32), "40:mean")):
        save_bradley_terry(tmp_path / "bench", BradleyTerry(weights, 1.0, feature))
        words = (str(run.folder / "model"), rows / "bench.jsonl", tmp_path / "out")
        results = run_audit(*words, run=tmp_path, limit=3, only=["truncated"], reporter=QUIET)
        assert results.rival is None


def test_the_same_prompts_are_taken_whatever_the_files_order(run: Run, rows: Path, tmp_path: Path):
    lines = read_lines(rows / "bench.jsonl")
    write_lines(tmp_path / "turned.jsonl", lines[::-1])
    one, two = (auditing._items(f, 5)[0] for f in (rows / "bench.jsonl", tmp_path / "turned.jsonl"))
    assert {r.context[-1]["content"] for r in one} == {r.context[-1]["content"] for r in two}
    more = auditing._items(rows / "bench.jsonl", 9)[0]
    assert {r.id for r in one} < {r.id for r in more}


def test_a_prompt_with_many_rows_counts_once(tmp_path: Path):
    rows = [{"prompt": f"q{i % 3}", "chosen": f"good {i}", "rejected": "bad"} for i in range(30)]
    write_lines(tmp_path / "rows.jsonl", rows)
    found, left_out = auditing._items(tmp_path / "rows.jsonl", 10)
    assert sorted(r.context[-1]["content"] for r in found) == ["q0", "q1", "q2"]
    assert not left_out


def test_the_tables_are_written_as_markdown_with_a_picture(audited: tuple[AuditResults, Path, Path]):
    results, out, _ = audited
    text = (out / "audit.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    kinds = {row.expected for row in results.perturbations}
    assert len(rows) == 3 + len(kinds) + 2 * len(results.perturbations) + len(results.views)
    first = results.perturbations[0]
    assert rows[1].startswith("| *Should not matter* |")
    assert rows[2].startswith(f"| {first.label} |")
    assert f"{first.views['armorm'].shift.value:+.2f}".replace("-", "−") in rows[2]
    marked = sum(row.views[v.name].as_expected is False for row in results.perturbations for v in results.views)
    assert text.count(" ✗ (") == marked
    assert sum(cell.tone == "bad" for row in audit_report(results)["shifts"].rows for cell in row) == marked
    picture = (out / "audit.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg xmlns=")
    assert "var(--" not in picture


def test_the_page_escapes_what_strangers_wrote(audited: tuple[AuditResults, Path, Path]):
    results, out, _ = audited
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert page == render_audit_page(read_result(AuditResults, out / "audit.json"))
    assert "<script" not in page
    hostile = results.to_json()
    hostile["perturbations"][0]["example"]["changed"] = "<script>alert(1)</script>"
    hostile["model"] = "<b>model</b>"
    page = render_audit_page(AuditResults.model_validate(hostile))
    assert "<script" not in page
    assert "<b>model</b>" not in page
    assert "default-src 'none'" in page
