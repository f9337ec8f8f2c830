"""Best of n, the best part of a file, pairs for DPO; and their commands."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import Armorm, read_lines, write_lines
from small_tables import table_of

from armorm.data.files import records
from armorm.data.reading import stream_pairs
from armorm.data.row_writing import write_rows
from armorm.data.shapes import Columns, RowFormat
from armorm.disk import write_sealed
from armorm.errors import CheckpointError, DataError
from armorm.jobs.score_file import Job, score_job, stream_rows, write_scores
from armorm.jobs.select import best_of_job, build_pairs, select
from armorm.progress import Reporter
from armorm.run.train import Run
from armorm.scoring.engine import Engine
from armorm.scoring.table import ScoreTable

QUIET = Reporter(quiet=True)
NAN = math.nan


def by_length(conversations: Any) -> ScoreTable:
    return table_of([float(len(c[-1]["content"])) for c in conversations])


def best(path: Path, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
    write_lines(path / "rows.jsonl", rows)
    return list(stream_rows(path / "rows.jsonl", by_length, best_of_job(**options), QUIET))


def file_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_lines(path / "scored.jsonl", rows)
    return path / "scored.jsonl"


# -- best of n ---------------------------------------------------------------------------------------------------------------


def test_the_best_of_a_list(tmp_path: Path):
    (row,) = best(tmp_path, [{"id": "q", "prompt": "hi", "responses": ["a", "abc", "", "ab", "xyz"]}])
    assert (row["best"], row["response"], row["score"], row["margin"]) == (1, "abc", 3.0, 0.0)
    assert row["scores"] == [1.0, 3.0, None, 2.0, 3.0]
    assert row["prompt"] == [{"role": "user", "content": "hi"}]


def test_neighbours_with_one_prompt_are_one_question(tmp_path: Path):
    rows = [{"id": i, "prompt": f"q{i // 2}", "response": "x" * (i + 1)} for i in range(4)]
    rows.insert(2, {"id": "broken", "prompt": "q0"})
    rows.append({"id": 9, "prompt": "q0", "response": "alone"})
    found = best(tmp_path, rows, top_k=2)
    assert [r["id"] for r in found] == [0, "broken", 2, 9]
    assert found[0]["ids"] == [0, 1]
    assert (found[0]["best"], found[0]["margin"]) == (1, 1.0)
    assert [t["index"] for t in found[2]["top"]] == [1, 0]
    assert found[1]["best"] is None
    assert found[1]["error"].startswith("missing-field")
    assert found[3]["margin"] is None
    assert "ids" not in found[3]


UNSCORED: dict[str, list[float]] = {
    "first": [NAN, 1.0, 3.0, 2.0],
    "best first": [NAN, 3.0, 1.0, 2.0],
    "last": [2.0, 1.0, NAN],
    "infinite": [math.inf, 0.5, -math.inf, 0.7],
    "all but one": [NAN, NAN, -7.0, NAN],
    "all": [NAN, NAN, NAN],
    "all infinite": [math.inf, NAN, -math.inf],
    "only": [NAN],
}


@pytest.mark.parametrize("top_k", [1, 4])
@pytest.mark.parametrize("apart", [False, True], ids=["a list", "neighbours"])
@pytest.mark.parametrize("scores", UNSCORED.values(), ids=UNSCORED.keys())
def test_an_answer_without_a_number_is_never_the_best(scores: list[float], apart: bool, top_k: int, tmp_path: Path):
    answers = [f"answer {j}" for j in range(len(scores))]
    whole = [{"id": "q", "prompt": "hi", "responses": answers}]
    write_lines(tmp_path / "rows.jsonl", [{"prompt": "hi", "response": a} for a in answers] if apart else whole)

    def score(conversations: Sequence[Any]) -> ScoreTable:
        return table_of([scores[int(c[-1]["content"].split()[1])] for c in conversations])

    (row,) = stream_rows(tmp_path / "rows.jsonl", score, best_of_job(top_k=top_k), QUIET)
    ranked = sorted((j for j, s in enumerate(scores) if math.isfinite(s)), key=lambda j: -scores[j])
    assert json.loads(json.dumps(row, allow_nan=False))["best"] == (ranked[0] if ranked else None)
    assert row["error"].count("not-finite: the model gives this answer no finite number") == len(scores) - len(ranked)
    if not ranked:
        assert "response" not in row
        assert row["score"] is None
        return
    assert (row["response"], row["score"]) == (answers[ranked[0]], pytest.approx(scores[ranked[0]]))
    assert row["margin"] == (pytest.approx(scores[ranked[0]] - scores[ranked[1]]) if len(ranked) > 1 else None)
    assert row["scores"] == [pytest.approx(s) if math.isfinite(s) else None for s in scores]
    assert [one["index"] for one in row.get("top", [])] == (ranked if top_k > 1 else [])


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_commands_that_select_pass_over_answers_without_a_number(
    kind: str, armorm: Armorm, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A decoder that gives no number for an answer with "bad" in it: no command takes one, and it is said how many there are."""
    original = Engine.score

    def spoiled(self: Engine, conversations: Sequence[Any], **how: Any) -> ScoreTable:
        table = original(self, conversations, **how)
        bad = torch.tensor([["bad" in c[-1]["content"]] for c in conversations])
        rewards, terms = (torch.where(bad, torch.nan, column) for column in (table.trained.rewards, table.trained.terms))
        return replace(table, trained=table.trained._replace(rewards=rewards, terms=terms))

    monkeypatch.setattr(Engine, "score", spoiled)
    answers = [["bad one", "fine"], ["fine thank you", "bad", "return x"], ["bad", "bad bad"]]
    write_lines(tmp_path / "rows.jsonl", [{"id": f"q{i}", "prompt": f"hello {i}", "responses": a} for i, a in enumerate(answers)])
    model, scored = run.folder / "model", tmp_path / f"scored.{kind}"
    _, out, err = armorm("best-of", model, tmp_path / "rows.jsonl")
    found = [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]
    assert [row["best"] is None for row in found] == [False, False, True]
    assert "not-finite" in err
    assert "bad" not in found[0]["response"] + found[1]["response"]
    assert all("not-finite" in row["error"] for row in found)
    armorm("score", model, tmp_path / "rows.jsonl", "--out", scored, "--quiet")
    unscored = [[score is None for score in row.values["scores"]] for row in records(scored)]
    assert unscored == [["bad" in answer for answer in some] for some in answers]
    _, out, err = armorm("select", scored, "--keep-top", 1.0)
    assert [json.loads(line)["messages"][-1]["content"] for line in out.splitlines()] == ["fine", "fine thank you", "return x"]
    assert "4" in err
    _, out, _ = armorm("pairs", scored, "--quiet")
    (pair,) = map(json.loads, out.splitlines())
    assert {pair["chosen"][0]["content"], pair["rejected"][0]["content"]} == {"fine thank you", "return x"}


# -- the best part -----------------------------------------------------------------------------------------------------------


def scored_rows(scores: list[float | None], prompts: int = 1) -> list[dict[str, Any]]:
    return [
        {"id": i, "prompt": f"q{i % prompts}", "response": f"answer {i}", "score": s, "lang": "en"} for i, s in enumerate(scores)
    ]


def kept(path: Path, rows: list[dict[str, Any]], **how: Any) -> list[Any]:
    found, counts = select(file_of(path, rows), **how)
    ids = [r["id"] for r in found]
    assert len(ids) == counts.out
    return ids


def test_the_top_share_is_exact(tmp_path: Path):
    rows = scored_rows([0.1, 0.5, 0.5, None, 0.9, 0.5])
    assert kept(tmp_path, rows, keep_top=0.2) == [4]
    assert kept(tmp_path, rows, keep_top=0.4) == [1, 4]  # equal scores: the earlier row
    assert kept(tmp_path, rows, keep_top=1.0) == [0, 1, 2, 4, 5]
    assert kept(tmp_path, rows, min_score=0.5) == [1, 2, 4, 5]
    assert kept(tmp_path, rows, min_score=0.5, keep_top=0.4) == [1, 4]


def test_the_top_share_of_each_prompt(tmp_path: Path):
    rows = scored_rows([0.1, 0.9, 0.2, 0.8, 0.3, None], prompts=2)
    assert kept(tmp_path, rows, keep_top=0.5) == [1, 3, 4]
    assert kept(tmp_path, rows, keep_top=0.3, per_prompt=True) == [1, 4]
    assert kept(tmp_path, rows, keep_top=0.01, per_prompt=True) == [1, 4]


def test_what_is_kept_is_a_conversation_to_train_on(tmp_path: Path):
    rows = [{"id": "q", "prompt": "hi", "responses": ["a", "b"], "scores": [0.2, 0.7], "lang": "en"}]
    found, counts = select(file_of(tmp_path, rows), keep_top=0.5)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "b"}]
    assert list(found) == [{"id": "q#1", "lang": "en", "messages": turns, "score": 0.7}]
    assert (counts.answers, counts.unscored, counts.prompts) == (2, 0, 1)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.none() | st.floats(-2, 2), min_size=1, max_size=30),
    share=st.floats(0.01, 1),
    prompts=st.integers(1, 5),
    per_prompt=st.booleans(),
)
def test_no_kept_answer_is_worse_than_one_left_out(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], share: float, prompts: int, per_prompt: bool
):
    rows = scored_rows(scores, prompts)
    ids = set(kept(tmp_path_factory.mktemp("top"), rows, keep_top=share, per_prompt=per_prompt))
    groups = range(prompts) if per_prompt else [None]
    for group in groups:
        some = [r for r in rows if r["score"] is not None and (group is None or r["id"] % prompts == group)]
        inside = [r["score"] for r in some if r["id"] in ids]
        outside = [r["score"] for r in some if r["id"] not in ids]
        assert len(inside) == min(len(some), max(1, int(np.ceil(share * len(some) - 1e-9))))
        assert not inside or not outside or min(inside) >= max(outside)


@pytest.mark.parametrize("how", [{}, {"keep_top": 0.0}, {"keep_top": 1.5}])
def test_a_selection_by_nothing_is_refused(tmp_path: Path, how: dict[str, Any]):
    with pytest.raises(DataError, match="keep_top"):
        select(file_of(tmp_path, scored_rows([0.1])), **how)


@pytest.mark.parametrize(
    ("row", "match"),
    [({}, "has no scores"), ({"scores": [1.0]}, "don't match"), ({"scores": 3}, "don't match")],
)
def test_a_file_without_scores_says_what_to_do(tmp_path: Path, row: dict[str, Any], match: str):
    file = file_of(tmp_path, [{"prompt": "hi", "responses": ["a", "b"], **row}])
    with pytest.raises(DataError, match=match):
        select(file, keep_top=0.5)


# -- pairs -------------------------------------------------------------------------------------------------------------------


def test_pairs_are_the_best_against_the_worst(tmp_path: Path):
    rows = [{"id": "q", "prompt": "hi", "responses": ["a", "b", "c"], "scores": [0.2, 0.9, 0.5]}]
    found, counts = build_pairs(file_of(tmp_path, rows), margin=0.1)
    assert list(found) == [
        {
            "id": "q",
            "prompt": [{"role": "user", "content": "hi"}],
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "assistant", "content": "a"}],
            "score_chosen": 0.9,
            "score_rejected": 0.2,
        }
    ]
    assert (counts.out, counts.answers, counts.prompts) == (1, 3, 1)


def test_every_pair_with_its_margin(tmp_path: Path):
    rows = [{"id": "q", "prompt": "hi", "responses": ["a", "b", "c", "b "], "scores": [0.2, 0.9, 0.5, 0.1]}]
    found, _ = build_pairs(file_of(tmp_path, rows), margin=0.35, every=True)
    sides = [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in found]
    assert sides == [("b", "c"), ("b", "a")]  # the same text twice is no pair, and two texts make one


def test_ties_and_prompts_with_one_answer_make_no_pair(tmp_path: Path):
    rows = [
        {"id": 1, "prompt": "tie", "responses": ["a", "b"], "scores": [0.5, 0.5]},
        {"id": 2, "prompt": "one", "response": "a", "score": 0.5},
        {"id": 3, "prompt": "null", "responses": ["a", "b"], "scores": [0.5, None]},
        {"id": 4, "prompt": "one", "response": "b", "score": 0.9},
        {"id": 5, "prompt": "bad"},
    ]
    found, counts = build_pairs(file_of(tmp_path, rows))
    assert list(found) == []
    assert (counts.scattered, counts.unscored) == (1, 2)


def test_neighbours_are_paired_and_our_own_reader_reads_the_pairs(tmp_path: Path):
    rows = scored_rows([0.1, 0.9, 0.4, 0.3])
    rows[3]["prompt"] = "another"
    found, _ = build_pairs(file_of(tmp_path, rows))
    write_lines(tmp_path / "pairs.jsonl", found)
    (pair,) = stream_pairs(records(tmp_path / "pairs.jsonl"), source="s", where="w")
    assert (pair.context, pair.chosen, pair.rejected) == (({"role": "user", "content": "q0"},), "answer 1", "answer 0")


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("name", ["p", 7, "p#0"])
def test_no_two_pairs_share_an_id(tmp_path: Path, name: Any, every: bool):
    rows = [{"id": name, "prompt": f"q{i}", "responses": ["a", "b", "c"], "scores": [0.1, 0.5, 0.9]} for i in range(3)]
    found = list(build_pairs(file_of(tmp_path, rows), every=every)[0])
    assert len({pair["id"] for pair in found}) == len(found) == (9 if every else 3)
    assert found[0]["id"] == (f"{name}#0" if every else name)


# -- rows as they were scored --------------------------------------------------------------------------------------------------

MAPPED = RowFormat(Columns(prompt="query", response="reply"))
ANSWERS = [{"id": i, "query": "hi", "prompt": "no", "reply": "a" * i, "response": "not this one"} for i in range(1, 4)]


def scored_as(path: Path, how: RowFormat, rows: list[dict[str, Any]] = ANSWERS, job: Job | None = None) -> Path:
    write_lines(path / "rows.jsonl", rows)
    write_scores(path / "rows.jsonl", path / "out.jsonl", by_length, job or score_job(), model_key="m", reporter=QUIET, rows=how)
    return path / "out.jsonl"


@pytest.mark.parametrize(
    "asked", [RowFormat(), MAPPED, RowFormat(Columns(response="reply")), RowFormat(Columns(prompt="query"), "text")]
)
def test_a_scored_file_is_read_as_it_was_scored(tmp_path: Path, asked: RowFormat):
    scored = scored_as(tmp_path, MAPPED)
    (row,) = select(scored, keep_top=0.1, rows=asked)[0]
    assert [m["content"] for m in row["messages"]] == ["hi", "aaa"]
    (pair,) = build_pairs(scored, rows=asked)[0]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("aaa", "a")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (RowFormat(Columns(response="response_2")), "response=reply, not response=response_2"),
        (RowFormat(Columns(system="persona")), "system=not set, not system=persona"),
        (RowFormat(span="trajectory"), "answer=not set, not answer=trajectory"),
        (RowFormat(cells="messages"), "cells=not set, not cells=messages"),
    ],
)
def test_reading_a_scored_file_in_another_way_is_refused(tmp_path: Path, asked: RowFormat, says: str):
    scored = scored_as(tmp_path, MAPPED)
    for use in (lambda: select(scored, keep_top=0.5, rows=asked), lambda: build_pairs(scored, rows=asked)):
        with pytest.raises(DataError, match=says):
            use()


def call(**arguments: Any) -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


ASKED = [{"role": "user", "content": "Q"}]
TABLES: dict[str, list[dict[str, Any]]] = {
    "texts and messages": [{"prompt": "Q", "response": "a"}, {"prompt": ASKED, "response": "abc"}],
    "texts and turns": [{"prompt": "Q", "response": "abc"}, {"prompt": "Q", "response": [call(x=1)]}],
    "arguments of each call": [
        {"messages": [*ASKED, call(**{name: None}), *ASKED, said]} for name, said in (("x", call()), ("y", call(z=1)))
    ],
    "lists of both": [{"prompt": "Q", "responses": ["a", [call(x=1)], "abc"]}],
}


@pytest.mark.parametrize("rows", TABLES.values(), ids=list(TABLES))
def test_parquet_and_json_lines_give_the_same_answers(tmp_path: Path, rows: list[dict[str, Any]]):
    write_lines(tmp_path / "rows.jsonl", [{"id": i, **row} for i, row in enumerate(rows)])
    made = []
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"out.{kind}"
        write_scores(tmp_path / "rows.jsonl", out, by_length, score_job(), model_key="m", reporter=QUIET)
        made.append((list(select(out, keep_top=1.0)[0]), list(build_pairs(out, every=True)[0])))
    assert made[0] == made[1]
    assert len(made[0][0]) >= 2


def test_without_word_of_how_it_was_scored_a_file_is_read_as_asked(tmp_path: Path):
    scored = scored_as(tmp_path, MAPPED)
    (tmp_path / "out.jsonl.progress.json").unlink()
    (row,) = select(scored, keep_top=0.1, rows=MAPPED)[0]
    assert row["messages"][-1]["content"] == "aaa"


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"inputs": {"job": "score", "rows": {"columns": 1}}}'])
def test_a_word_of_how_it_was_scored_that_is_damaged_is_not_passed_over(tmp_path: Path, broken: str):
    scored = scored_as(tmp_path, MAPPED)
    (tmp_path / "out.jsonl.progress.json").write_text(broken, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"out\.jsonl\.progress\.json: damaged: remove it, and say how the rows are read"):
        select(scored, keep_top=0.1, rows=MAPPED)


def test_scores_that_were_changed_since_are_not_selected_by(tmp_path: Path):
    scored = scored_as(tmp_path, MAPPED)
    scored.write_bytes(scored.read_bytes().replace(b"aaa", b"aab", 1))
    with pytest.raises(DataError, match="is not as it was written"):
        select(scored, keep_top=0.1, rows=MAPPED)


@pytest.mark.parametrize("job", [score_job(), best_of_job()], ids=lambda job: job.name)
@pytest.mark.parametrize("use", [lambda file: select(file, keep_top=1.0), build_pairs], ids=["select", "pairs"])
def test_what_any_job_wrote_is_checked_before_it_is_selected_from(tmp_path: Path, job: Job, use: Any):
    rows = [{"id": i, "prompt": f"q{i}", "response": "a" * (i + 1)} for i in range(3)]
    scored = scored_as(tmp_path, RowFormat(), rows, job)
    whole, progress = scored.read_bytes(), tmp_path / "out.jsonl.progress.json"
    use(scored)
    scored.write_bytes(whole.replace(b'"score": 2.0', b'"score": 9.0', 1))
    with pytest.raises(DataError, match="is not as it was written"):
        use(scored)
    scored.unlink()
    with pytest.raises(DataError, match=r"out\.jsonl: no such file"):
        use(scored)
    scored.write_bytes(whole)
    facts = json.loads(progress.read_text(encoding="utf-8"))
    del facts["sha256"]
    write_sealed(progress, {**facts, "output": ""})
    with pytest.raises(DataError, match="is not whole, its scoring was stopped"):
        use(scored)


CHANGES = {
    "appended": lambda data: data + data.splitlines(keepends=True)[0],
    "cut": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "of the same length": lambda data: data.replace(b'"score": 3', b'"score": 9'),
    "gone": lambda _data: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("after", [0, 1], ids=["between the passes", "in the second"])
@pytest.mark.parametrize("out", [False, True], ids=["stdout", "file"])
def test_a_scored_file_that_changes_while_it_is_read_is_told_of(tmp_path: Path, change: Any, after: int, out: bool):
    file = file_of(tmp_path, scored_rows([1, 2, 3, 4]))
    rows, _ = select(file, keep_top=0.75)
    first = [next(rows) for _ in range(after)]
    data = change(file.read_bytes())
    file.unlink()
    if data is not None:
        file.write_bytes(data)
        os.utime(file, (1, 1))
    use = (lambda: write_rows(rows, tmp_path / "out.jsonl")) if out else (lambda: list(rows))
    said = "no such file" if data is None else "was changed while it was read: run this again"
    with pytest.raises(DataError, match=rf"scored\.jsonl: {said}"):
        use()
    assert len(first) == after
    assert not list(tmp_path.glob("out*"))


def test_a_scored_file_that_other_rows_come_from_than_were_counted_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system that tells no change: the rows themselves do."""
    monkeypatch.setattr("armorm.jobs.select.version_of", lambda _path: (1, 1, 1))
    for more in (5, 3):
        file = file_of(tmp_path, scored_rows([1.0] * 4))
        rows, _ = select(file, keep_top=1.0)
        file_of(tmp_path, scored_rows([1.0] * more))
        with pytest.raises(DataError, match="was changed while it was read"):
            list(rows)


def test_pairs_of_a_scored_file_that_changes_are_not_taken(tmp_path: Path):
    file = file_of(tmp_path, scored_rows([1, 2, 3, 4]))
    pairs, _ = build_pairs(file)
    file_of(tmp_path, scored_rows([1, 2, 3, 4, 5]))
    with pytest.raises(DataError, match="was changed while it was read"):
        list(pairs)


def test_the_best_of_n_have_columns_of_their_own(tmp_path: Path):
    best = scored_as(tmp_path, MAPPED, job=best_of_job())
    (row,) = select(best, keep_top=1.0)[0]
    assert row["messages"][-1]["content"] == "aaa"


@pytest.mark.parametrize("margin", [-0.1, float("nan")])
def test_a_margin_is_a_number_from_zero(tmp_path: Path, margin: float):
    with pytest.raises(DataError, match="`margin` is"):
        build_pairs(file_of(tmp_path, scored_rows([0.1])), margin=margin)


# -- commands ----------------------------------------------------------------------------------------------------------------


def test_score_then_select_then_pairs(armorm: Armorm, run: Run, rows: Path, tmp_path: Path):
    bench = read_lines(rows / "bench.jsonl")[:6]
    write_lines(tmp_path / "rows.jsonl", [{"prompt": r["prompt"], "responses": [r["chosen"], r["rejected"]]} for r in bench])
    model, scored = run.folder / "model", tmp_path / "scored.parquet"
    code, out, err = armorm("score", model, tmp_path / "rows.jsonl", "--out", scored, "--quiet")
    assert (code, err) == (0, "")
    assert "6 rows" in out
    table = pq.read_table(scored).to_pylist()
    assert all(len(r["scores"]) == 2 for r in table)
    code, out, err = armorm("pairs", scored, "--margin", 0, "--out", tmp_path / "pairs.jsonl")
    assert (code, out) == (0, "")
    assert "6 pairs" in err
    made = read_lines(tmp_path / "pairs.jsonl")
    assert all(p["score_chosen"] > p["score_rejected"] for p in made)
    assert {p["score_chosen"] for p in made} == {max(r["scores"]) for r in table}
    code, out, _ = armorm("select", scored, "--keep-top", 0.5, "--per-prompt", "--quiet")
    assert code == 0
    top = [json.loads(line) for line in out.splitlines()]
    assert [t["score"] for t in top] == [max(r["scores"]) for r in table]
    code, out, _ = armorm("best-of", model, tmp_path / "rows.jsonl", "--quiet")
    assert code == 0
    for line, row in zip(out.splitlines(), table, strict=True):
        found = json.loads(line)
        assert found["scores"] == pytest.approx(row["scores"], abs=1e-5)
        assert found["best"] == int(np.argmax(row["scores"]))


def test_wrong_use_is_2_with_a_remedy(armorm: Armorm, run: Run, tmp_path: Path):
    file = file_of(tmp_path, [{"prompt": "hi", "response": "a"}])
    for words, message in (
        (("select", file, "--keep-top", 0.2), "has no scores"),
        (("pairs", file), "has no scores"),
        (("score", run.folder / "model", file, "--out", tmp_path / "x.csv"), "let the name end in one of these"),
        (("best-of", run.folder / "model", tmp_path / "no.jsonl"), "no such file"),
    ):
        code, out, err = armorm(*words, "--quiet")
        assert (code, out) == (2, "")
        assert message in err


def test_an_audit_from_the_command_line(armorm: Armorm, run: Run, rows: Path, tmp_path: Path):
    words = ("audit", run.folder / "model", rows / "bench.jsonl", "--limit", 4, "--only", "truncated, flattery")
    code, out, err = armorm(*words, "--out", tmp_path, "--json", "--quiet")
    assert (code, err) == (0, "")
    assert [r["name"] for r in json.loads(out)["perturbations"]] == ["flattery", "truncated"]
    code, out, _ = armorm(*words, "--out", tmp_path, "--quiet")
    assert code == 0
    assert "cut to half" in out
    assert "audit.html" in out
