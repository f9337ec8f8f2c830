"""What commands say of how they read: cut, left out, refused; limits and exactness asked for; models that are none."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from small_run import Armorm, read_lines, write_lines
from small_tables import table_of
from tiny_decoder import TEMPLATE, tiny_tokenizer

from armorm.bench.run import read_and_judge
from armorm.data.row_writing import json_text
from armorm.data.rows import BenchmarkItem
from armorm.errors import BackboneError, CheckpointError, DataError
from armorm.jobs import score_file as scoring_files
from armorm.jobs.audit import run_audit
from armorm.jobs.bench import run_benchmark
from armorm.jobs.explain import explain_row
from armorm.jobs.score_file import Job, Tally, score_file, score_job, stream_file, write_scores
from armorm.jobs.select import best_of_job, build_pairs, select
from armorm.model.folder import check_name
from armorm.model.reward_model import RewardModel
from armorm.model.scorer import ModelScorer
from armorm.numbers import counts
from armorm.progress import Reporter
from armorm.recipe import Suite
from armorm.report.audit_report import audit_report
from armorm.report.bench_report import bench_report, render_bench_page
from armorm.report.explained import render_explain_page
from armorm.report.reading import reading_sentences
from armorm.rivals.pairwise import PairwiseModel
from armorm.rivals.sequence_head import SequenceHead
from armorm.run.train import Run
from armorm.scoring.table import ScoreTable
from armorm.scoring.uncertainty import FILES, Uncertainty

QUIET = Reporter(quiet=True)
LONG = "how are you? " * 30
"""More than 64 tokens of the tiny tokenizer, and fewer than 256."""


@pytest.fixture(scope="module")
def model(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told") / "model"
    tiny_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def picky_folder(picky: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template refuses system messages."""
    folder = tmp_path_factory.mktemp("picky") / "model"
    picky.save_pretrained(folder)
    return folder


def file_of(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    write_lines(folder / name, rows)
    return folder / name


def suite_of(file: Path) -> Suite:
    return Suite.model_validate({"name": file.stem, "source": {"path": str(file)}})


MIXED = [
    {"id": "short", "prompt": "hello", "response": "fine"},
    {"id": "long", "prompt": LONG, "response": "fine"},
    {"id": "list", "prompt": "hello", "responses": ["fine", LONG, " "]},
    {"id": "faulty", "prompt": "hello"},
    {"id": "empty system", "system": " ", "prompt": "hello", "response": "fine"},
]


# -- what was cut, and what was left out -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_tokens", "cut", "total"),
    [(64, {"short": False, "long": True, "list": [False, True, None], "faulty": None, "empty system": False}, 2),
     (256, {"short": False, "long": False, "list": [False, False, None], "faulty": None, "empty system": False}, 0),
     (24, {"short": False, "long": True, "list": [False, True, None], "faulty": None, "empty system": False}, 2)],
)  # fmt: skip
def test_every_row_says_whether_it_was_cut(model: Path, tmp_path: Path, max_tokens: int, cut: dict[str, Any], total: int):
    file, tally = file_of(tmp_path, MIXED), Tally()
    rows = list(stream_file(str(model), file, reporter=QUIET, tally=tally, max_tokens=max_tokens))
    assert {row["id"]: row["truncated"] for row in rows} == cut
    assert (tally.rows, tally.answers, tally.truncated, tally.max_tokens) == (5, 5, total, max_tokens)
    full = list(stream_file(str(model), file, score_job(full=True), reporter=QUIET, max_tokens=max_tokens))
    assert {row["id"]: row["truncated"] for row in full} == cut
    best = list(stream_file(str(model), file, best_of_job(), reporter=QUIET, max_tokens=max_tokens))
    assert best[2]["truncated"] == cut["list"]


NOTED = ("empty-system", "text-left-out", "special-token-in-text", "reasoning_content not in the template")


@pytest.mark.parametrize("job", [score_job(), score_job(full=True), score_job(own_columns=False), best_of_job()])
@pytest.mark.parametrize("noted", [(), NOTED[:1], NOTED])
def test_notes_stand_in_their_row_and_are_counted(tmp_path: Path, job: Job, noted: tuple[str, ...]):
    def score(conversations: Any) -> ScoreTable:
        table = table_of([1.0] * len(conversations))
        return replace(table, notes=tuple(noted if c[-1]["content"] == "noted" else () for c in conversations))

    rows = [{"id": i, "prompt": f"q{i}", "response": text, "notes": "old"} for i, text in enumerate(("noted", "fine", " "))]
    rows.append({"id": 3, "prompt": "q3", "responses": ["fine", "noted", " "]})  # type: ignore[dict-item]
    finished = write_scores(file_of(tmp_path, rows), tmp_path / "out.jsonl", score, job, model_key="m", reporter=QUIET)
    one, many = ([list(noted)], [[[], list(noted), []]]) if noted else ([], [])
    found = {row["id"]: [row["notes"]] if "notes" in row else [] for row in read_lines(tmp_path / "out.jsonl")}
    assert found == {0: one, 1: [], 2: [], 3: many}
    assert finished.notes == dict.fromkeys(noted, 2)
    assert [sentence for sentence in reading_sentences(0, 4, 8, finished.notes) if "left out" in sentence] == (
        [f"What the chat template left out or could not keep apart, by conversations: {counts(finished.notes)}."] if noted else []
    )


def test_what_a_template_leaves_out_is_told_by_every_command(tiny_model: RewardModel, armorm: Armorm, tmp_path: Path):
    deaf = deepcopy(tiny_model)
    deaf.tokenizer.chat_template = TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    deaf.save_pretrained(tmp_path / "deaf")
    file, note = file_of(tmp_path, [*PAIRS, SYSTEM | {"prompt": "what is x?"}]), "system not in the template"
    model = str(tmp_path / "deaf")
    assert [row.get("notes") for row in stream_file(model, file, reporter=QUIET)][2:] == [None, [[note], [note]]]
    assert run_benchmark(model, suite_of(file), tmp_path / "bench", reporter=QUIET).notes == {note: 2}
    audited = run_audit(model, file, tmp_path / "audit", only=["flattery"], reporter=QUIET)
    assert audited.notes == {note: 2}
    assert explain_row(model, file, 4).notes == {"chosen": (note,), "rejected": (note,)}
    code, out, _ = armorm("explain", model, file, "--row", 4)
    assert (code, out.count(note)) == (0, 2)
    assert f"2 {note}" in armorm("score", model, file)[2]


def test_a_resumed_run_counts_what_was_there_before(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"id": i, "prompt": LONG if i % 2 else "hello", "response": "fine"} for i in range(12)]
    file, out = file_of(tmp_path, [*rows, {"id": "bad"}]), tmp_path / "out.jsonl"
    monkeypatch.setattr(scoring_files, "WINDOW_ANSWERS", 4)
    original, calls = ModelScorer.load, []

    def stopping(name: str, **how: Any) -> ModelScorer:
        scorer = original(name, **how)
        engine = type(scorer).engine.fget(scorer)  # type: ignore[attr-defined]
        score = engine.score

        def counted(conversations: Any, **options: Any) -> Any:
            calls.append(len(conversations))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return score(conversations, **options)

        engine.score = counted
        monkeypatch.setattr(ModelScorer, "engine", property(lambda _self: engine))
        return scorer

    with monkeypatch.context() as patch:
        patch.setattr(ModelScorer, "load", stopping)
        with pytest.raises(KeyboardInterrupt):
            score_file(str(model), file, out, reporter=QUIET, max_tokens=64)
    again = score_file(str(model), file, out, reporter=QUIET, max_tokens=64)
    assert again.resumed == 8
    assert (again.rows, again.truncated, again.faulty, again.tally.answers) == (13, 6, 1, 12)
    done = score_file(str(model), file, out, reporter=QUIET, max_tokens=64)
    assert (done.resumed, done.tally) == (13, again.tally)
    with pytest.raises(DataError, match="another model"):
        score_file(str(model), file, out, reporter=QUIET, max_tokens=65)


def test_what_is_written_with_deviations_depends_on_them(run: Run, tmp_path: Path):
    """The uncertainty moves `std` alone: a file without it goes on under another one, a file with it does not."""
    folder = tmp_path / "model"
    shutil.copytree(run.folder / "model", folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    file, full = file_of(tmp_path, [{"prompt": "hello", "response": "fine"}]), score_job(full=True)
    for name, job in (("plain", None), ("full", full)):
        score_file(str(folder), file, tmp_path / f"{name}.jsonl", job, reporter=QUIET)
    assert "std" in read_lines(tmp_path / "full.jsonl")[0]
    before = _keys(folder)
    uncertainty = Uncertainty.load(folder / "armorm")
    assert uncertainty is not None
    replace(uncertainty, reach=2 * uncertainty.reach).save(folder / "armorm")
    assert score_file(str(folder), file, tmp_path / "plain.jsonl", reporter=QUIET).resumed == 1
    with pytest.raises(DataError, match="begun with another model"):
        score_file(str(folder), file, tmp_path / "full.jsonl", full, reporter=QUIET)
    after = _keys(folder)
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)
    for part in FILES:
        (folder / "armorm" / part).unlink()
    assert _keys(folder) == (before[0], before[0])


def _keys(folder: Path) -> tuple[str, str]:
    scorer = ModelScorer.load(str(folder))
    return scorer.fingerprint, scorer.fingerprint_with_deviations


@pytest.mark.parametrize(("max_tokens", "said"), [(64, "2 of 5 conversations were cut to 64 tokens"), (256, "")])
def test_the_command_tells_the_counts_on_stderr(armorm: Armorm, model: Path, tmp_path: Path, max_tokens: int, said: str):
    file = file_of(tmp_path, MIXED)
    for command in ("score", "best-of"):
        code, out, err = armorm(command, model, file, "--max-tokens", max_tokens)
        assert (code, len(out.splitlines())) == (0, 5)
        assert ("were cut" in err, said in err) == (bool(said), True)
        assert armorm(command, model, file, "--max-tokens", max_tokens, "--quiet")[2] == ""


PAIRS = [
    {"id": "a", "prompt": "hello", "chosen": "fine, thank you", "rejected": "x"},
    {"id": "b", "prompt": LONG, "chosen": "fine", "rejected": "how"},
    {"id": "c", "prompt": "how are you?", "chosen": LONG, "rejected": "return x"},
]
SYSTEM = {"id": "s", "system": "be brief", "prompt": "hello", "chosen": "fine, thank you", "rejected": "x"}


def test_a_benchmark_counts_what_was_cut_and_what_is_kept_counts_too(model: Path, tmp_path: Path):
    suite = suite_of(file_of(tmp_path, PAIRS))
    for _ in range(2):
        results = run_benchmark(str(model), suite, tmp_path / "out", reporter=QUIET, max_tokens=64)
        assert (results.asked, results.truncated, results.max_tokens) == (6, 3, 64)
    said = "3 of 6 conversations were cut to 64 tokens"
    assert any(said in note for note in bench_report(results).notes)
    assert said in render_bench_page(results)
    whole = run_benchmark(str(model), suite, tmp_path / "out", reporter=QUIET)
    assert (whole.truncated, whole.max_tokens) == (0, 256)
    assert not any("were cut" in note for note in bench_report(whole).notes)


@pytest.mark.parametrize("kind", ["SequenceClassification", "CausalLM"])
def test_rivals_count_what_was_cut(tiny_folder: Path, tmp_path: Path, kind: str):
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tiny_folder, num_labels=1)
    getattr(transformers, f"LlamaFor{kind}")(config).save_pretrained(tmp_path / "rival")
    tiny_tokenizer().save_pretrained(tmp_path / "rival")
    suite, model = suite_of(file_of(tmp_path, PAIRS)), str(tmp_path / "rival")
    pairs = kind == "CausalLM"
    results = run_benchmark(model, suite, tmp_path / "out", reporter=QUIET, max_tokens=420 if pairs else 64)
    assert (results.asked, results.max_tokens) == ((3, 420) if pairs else (6, 64))
    assert results.truncated == (2 if pairs else 3)
    said = f"{results.truncated} of {results.asked} {'comparisons' if pairs else 'conversations'} were cut"
    assert any(said in note for note in bench_report(results).notes)
    with pytest.raises(BackboneError, match="the decoder has 512 positions"):
        run_benchmark(model, suite, tmp_path / "out", reporter=QUIET, max_tokens=513)
    scorers = [(SequenceHead, PairwiseModel)[pairs]("r", model, exact=exact, dtype="float32") for exact in (False, True)]
    assert scorers[0].fingerprint != scorers[1].fingerprint
    items = [BenchmarkItem(str(i), "g", "s", ({"role": "user", "content": "hi"},), ("x" * i,), ("y",)) for i in range(1, 30)]
    alone = [read_and_judge([item], scorers[1]).scores[0].tolist() for item in items]
    assert [one.tolist() for one in read_and_judge(items, scorers[1]).scores] == alone


def test_an_audit_counts_what_was_cut_and_refused(model: Path, picky_folder: Path, tmp_path: Path):
    file = file_of(tmp_path, [*PAIRS, SYSTEM | {"prompt": "what is x?"}])
    results = run_audit(str(model), file, tmp_path / "a", only=["flattery", "repeated"], reporter=QUIET, max_tokens=64)
    assert (results.answers, results.truncated, results.max_tokens) == (8, 3, 64)
    assert results.changed_truncated >= 3
    notes = audit_report(results).notes
    assert any("3 of 8 answers were cut to 64 tokens" in note for note in notes)
    assert any(f"of {results.changed} changed answers were cut" in note for note in notes)
    refused = run_audit(str(picky_folder), file, tmp_path / "b", only=["flattery"], reporter=QUIET, exact=True)
    assert (refused.left_out, refused.prompts, refused.answers) == ({"template-refuses": 2}, 3, 6)
    only = file_of(tmp_path, [SYSTEM], "only.jsonl")
    with pytest.raises(DataError, match="not one answer of the file can be audited; the first: template-refuses"):
        run_audit(str(picky_folder), only, tmp_path / "c", only=["flattery"], reporter=QUIET)


@pytest.mark.parametrize(("row", "cut"), [(1, ()), (2, ("chosen", "rejected")), (3, ("chosen",))])
def test_an_explanation_shows_what_was_cut(model: Path, armorm: Armorm, tmp_path: Path, row: int, cut: tuple[str, ...]):
    file = file_of(tmp_path, PAIRS)
    explained = explain_row(str(model), file, row, max_tokens=64)
    assert explained.truncated == cut
    assert render_explain_page(explained).count("too long for 64 tokens") == len(cut)
    code, out, _ = armorm("explain", model, file, "--row", row, "--max-tokens", 64)
    assert (code, out.count("too long for 64 tokens")) == (0, len(cut))
    facts = json.loads(armorm("explain", model, file, "--row", row, "--max-tokens", 64, "--json")[1])
    assert [name for name, one in facts["answers"].items() if one["truncated"]] == list(cut)
    prompt = json.loads(armorm("explain", model, file, "--row", row, "--max-tokens", 64, "--json", "--prompt-only")[1])
    assert prompt["truncated"] == (row == 2)


# -- exactness ---------------------------------------------------------------------------------------------------------------


def test_exact_scores_are_the_same_to_the_bit_beside_any_others(tiny_model: RewardModel, model: Path):
    one = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}]
    mates = [[one[0], {"role": "assistant", "content": f"{LONG}{i}" * (1 + i % 3)}] for i in range(9)]
    scorers = [ModelScorer("m", tiny_model, exact=exact) for exact in (True, False)]
    for scorer in scorers:
        alone = scorer.score([one])[0]
        beside = [scorer.score(rows)[at] for rows, at in (([one, *mates], 0), ([*mates, one], 9), ([*mates[:4], one, one], 5))]
        assert beside == ([alone] * 3 if scorer.exact else pytest.approx([alone] * 3, abs=1e-5))
    keys = {ModelScorer(str(model), tiny_model, exact=e, max_tokens=m).fingerprint for e in (True, False) for m in (None, 64)}
    assert len(keys) == 4


def test_a_file_that_was_begun_exactly_is_not_gone_on_with_otherwise(model: Path, tmp_path: Path):
    file = file_of(tmp_path, MIXED)
    score_file(str(model), file, tmp_path / "out.jsonl", reporter=QUIET, exact=True)
    with pytest.raises(DataError, match="begun with another model"):
        score_file(str(model), file, tmp_path / "out.jsonl", reporter=QUIET)


# -- what can't be scored ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["score", "best-of"])
@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"prompt": "hello"}], "missing-field"),
        ([{"system": "be brief", "prompt": "hello", "response": "fine"}], "template-refuses"),
        ([{"prompt": "hello", "responses": []}, {"prompt": "hello"}], "no-answer"),
        ([{"prompt": "hello", "responses": [" ", ""]}], "empty-turn"),
    ],
)
def test_a_file_without_a_score_is_2_and_its_rows_are_there(
    armorm: Armorm, picky_folder: Path, tmp_path: Path, command: str, rows: list[dict[str, Any]], fault: str
):
    file = file_of(tmp_path, rows)
    said = f"not one of its {len(rows)} rows can be scored; the first: {fault}: "
    code, out, err = armorm(command, picky_folder, file, "--quiet")
    assert (code, len(out.splitlines())) == (2, len(rows))
    assert said in err
    assert all(json.loads(line)["error"] for line in out.splitlines())
    for _ in range(2):  # again where the file is finished
        code, _, err = armorm(command, picky_folder, file, "--out", tmp_path / "out.jsonl", "--quiet")
        assert (code, said in err) == (2, True)
    assert len(read_lines(tmp_path / "out.jsonl")) == len(rows)


def test_one_scored_row_is_enough(armorm: Armorm, picky_folder: Path, tmp_path: Path):
    rows = [{"prompt": "hello"}, {"prompt": "hello", "response": "fine"}]
    assert armorm("score", picky_folder, file_of(tmp_path, rows), "--quiet")[0] == 0


def test_a_benchmark_names_what_its_template_refuses(picky_folder: Path, tmp_path: Path):
    suite = suite_of(file_of(tmp_path, [*PAIRS, SYSTEM]))
    for _ in range(2):
        results = run_benchmark(str(picky_folder), suite, tmp_path / "out", reporter=QUIET)
        assert results.left_out == {"template-refuses": 1}
        assert results.figures.official.overall.unscored == 1
        assert "s: template-refuses: the chat template refuses this conversation" in results.fault_examples[-1]
    with pytest.raises(DataError, match="not one of the 1 items can be scored; the first: s: template-refuses"):
        run_benchmark(str(picky_folder), suite_of(file_of(tmp_path, [SYSTEM], "s.jsonl")), tmp_path / "s", reporter=QUIET)


def test_selections_count_what_has_no_score_alike(tmp_path: Path):
    rows = [
        {"prompt": "a", "response": "fine", "score": 0.5},
        {"prompt": "a", "response": "bad", "score": None, "error": "template-refuses: no; change it"},
        {"prompt": "b", "responses": ["x", "y"], "scores": [None, 1.0], "error": "answer 1: not-finite: no number"},
        {"prompt": "c", "error": "missing-field: needs"},
    ]
    file = file_of(tmp_path, rows)
    pairs, of_pairs = build_pairs(file)
    list(pairs)
    _, of_select = select(file, min_score=0.0)
    for found in (of_pairs, of_select):
        assert (found.answers, found.unscored) == (2, 3)
        assert found.reasons == {"template-refuses": 1, "not-finite": 1, "missing-field": 1}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "null"),
        ([1.0, float("inf")], "[1.0, null]"),
        ({"a": {"b": (float("-inf"), "NaN")}}, '{"a": {"b": [null, "NaN"]}}'),
        (np.float64("nan"), "null"),
        ("ä", '"ä"'),
        (Path("x"), '"x"'),
    ],
)
def test_what_is_no_number_is_null(value: Any, written: str):
    assert json_text(value) == written


@pytest.mark.parametrize("out", [False, True])
def test_the_inputs_own_nan_is_null_in_the_output(armorm: Armorm, model: Path, tmp_path: Path, out: bool):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "a", "response": "b", "score": 1, "weight": NaN, "id": NaN, "more": [{"x": -Infinity}]}\n', encoding="utf-8"
    )
    words = ("--out", tmp_path / "out.jsonl") if out else ()
    code, printed, _ = armorm("score", model, tmp_path / "rows.jsonl", "--quiet", *words)
    line = (tmp_path / "out.jsonl").read_text(encoding="utf-8") if out else printed
    row = json.loads(line, parse_constant=pytest.fail)
    assert (code, row["id"]) == (0, 1)  # a row without an id is named after its place
    assert not out or (row["weight"], row["more"]) == (None, [{"x": None}])
    chosen = tmp_path / "scored.jsonl"
    chosen.write_text('{"prompt": "a", "response": "b", "score": 1, "weight": NaN}\n', encoding="utf-8")
    code, printed, _ = armorm("select", chosen, "--min-score", 0)
    assert json.loads(printed, parse_constant=pytest.fail)["weight"] is None


# -- files of nothing --------------------------------------------------------------------------------------------------------

NO_ROWS = {
    "a.jsonl": b"",
    "b.jsonl": b"\n\n  \n",
    "c.csv": b"prompt,response\n",
    "d.json": b"[]",
    "e.jsonl.gz": gzip.compress(b""),
}


def empty_file(folder: Path, name: str) -> Path:
    file = folder / name
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), file)
    else:
        file.write_bytes(NO_ROWS[name])
    return file


@pytest.mark.parametrize("name", [*NO_ROWS, "f.parquet"])
def test_a_file_without_rows_is_told(armorm: Armorm, model: Path, tmp_path: Path, name: str):
    file = empty_file(tmp_path, name)
    asked = [("score", model, file), ("best-of", model, file, "--out", tmp_path / "out.jsonl"), ("data", "validate", file)]
    for words in (*asked, ("select", file, "--keep-top", 0.5), ("pairs", file)):
        code, _, err = armorm(*words, "--quiet")
        assert (code, "holds no row" in " ".join(err.split())) == (2, True), (words, err)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("error", [{"error": "empty-turn: fill it in"}, {}])
@pytest.mark.parametrize("row", [{"response": "a", "score": None}, {"responses": ["a", "b"], "scores": [None, None]}])
def test_a_file_without_a_score_is_told(armorm: Armorm, tmp_path: Path, row: dict[str, Any], error: dict[str, str]):
    file = file_of(tmp_path, [{"prompt": "hi", **row, **error}])
    for words in (("select", file, "--keep-top", 0.5), ("pairs", file)):
        code, out, err = armorm(*words, "--quiet")
        assert (code, out) == (2, "")
        assert "answers has a score" in err
        assert ("the first: empty-turn: fill it in" in err) == bool(error)


# -- models that are none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./gone", "/gone/model", "~/gone", "runs/mine/model", "tests/gone", "..\\gone", "gone/"])
@pytest.mark.parametrize("command", ["score", "bench"])
def test_a_missing_path_is_not_looked_for_on_the_hub(
    armorm: Armorm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str
):
    monkeypatch.setattr("armorm.model.folder.PreTrainedConfig.get_config_dict", pytest.fail)
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    file = file_of(tmp_path, PAIRS)
    code, _, err = armorm(command, name, *(("--suite", file) if command == "bench" else (file,)), "--quiet")
    assert (code, "no such folder" in err) == (2, True)


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "some-owner/some.name"])
def test_a_hub_id_is_no_missing_path(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    check_name(name)


def an_encoder(folder: Path) -> None:
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def another_encoder(folder: Path) -> None:
    config = {"architectures": ["ModernBertForSequenceClassification"], "model_type": "modernbert"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def both_halves(folder: Path) -> None:
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (an_encoder, "BertForSequenceClassification, an encoder"),
        (another_encoder, "ModernBertForSequenceClassification, an encoder"),
        (both_halves, "T5ForConditionalGeneration, an encoder"),
        (an_adapter, "merge the two with peft's `merge_and_unload()`"),
    ],
)
def test_a_folder_of_another_kind_is_told_what_it_is(write: Callable[[Path], None], said: str, armorm: Armorm, tmp_path: Path):
    (tmp_path / "m").mkdir()
    write(tmp_path / "m")
    file = file_of(tmp_path, PAIRS)
    for words in (("bench", tmp_path / "m", "--suite", file), ("score", tmp_path / "m", file), ("explain", tmp_path / "m", file)):
        code, _, err = armorm(*words)
        assert (code, said in err) == (2, True), err


def test_a_model_with_several_labels_is_told_so(armorm: Armorm, tiny_folder: Path, tmp_path: Path):
    config = transformers.AutoConfig.from_pretrained(tiny_folder, num_labels=3)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path / "m")
    tiny_tokenizer().save_pretrained(tmp_path / "m")
    file = file_of(tmp_path, PAIRS)
    for words in (("bench", tmp_path / "m", "--suite", file, "--quiet"), ("score", tmp_path / "m", file, "--quiet")):
        code, _, err = armorm(*words)
        assert (code, "LlamaForSequenceClassification with 3 labels" in err) == (2, True), err


def test_a_home_folder_is_written_out(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(model.parent))
    assert ModelScorer.load("~/model").name == str(model)
    with pytest.raises(CheckpointError, match="no such folder"):
        ModelScorer.load("~/another")
