"""Streaming scores: every row once and in order, runs that are stopped and go on, files of three kinds."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import read_lines, write_lines
from small_tables import table_of

from armorm.conversation import Conversation
from armorm.data.answer_rows import answer_rows, group_neighbours
from armorm.data.files import records
from armorm.data.row_writing import row_writer, write_rows
from armorm.data.shapes import Columns, RowFormat
from armorm.errors import CheckpointError, DataError, InUse, StorageError
from armorm.features.packed import run_tree
from armorm.features.prefixes import Tree
from armorm.jobs import score_file as scoring_files
from armorm.jobs.score_file import Job, count_rows, score_job, stream_rows, write_scores
from armorm.jobs.select import best_of_job
from armorm.model.reward_model import RewardModel
from armorm.progress import Reporter
from armorm.scoring.table import ScoreTable

QUIET = Reporter(quiet=True)


def length_of(conversation: Conversation) -> float:
    """A score that a test can compute: characters of the whole conversation."""
    return float(sum(len(m["content"]) for m in conversation))


class Counting:
    """Scores by length; remembers what it was asked, and breaks off at the end of a wanted call."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.calls: list[list[Conversation]] = []
        self.breaks_at = breaks_at

    def __call__(self, conversations: Sequence[Conversation]) -> ScoreTable:
        self.calls.append(list(conversations))
        if self.breaks_at is not None and len(self.calls) > self.breaks_at:
            raise KeyboardInterrupt
        return table_of([length_of(c) for c in conversations])

    @property
    def asked(self) -> int:
        return sum(map(len, self.calls))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_files, "WINDOW_ANSWERS", 8)


def simple_rows(n: int) -> list[dict[str, Any]]:
    return [{"id": f"r{i}", "prompt": f"question {i // 3}", "response": "x" * (1 + i * 7 % 11), "lang": "en"} for i in range(n)]


def run(file: Path, out: Path, score: Any = None, job: Job | None = None, model_key: str = "m") -> Any:
    return write_scores(file, out, score or Counting(), job or score_job(), model_key=model_key, reporter=QUIET)


def back(path: Path) -> list[dict[str, Any]]:
    return [r.values for r in records(path)]


# -- rows --------------------------------------------------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "hello"}]
FINE = {"role": "assistant", "content": "fine"}


@pytest.mark.parametrize(
    ("row", "answers", "many"),
    [
        ({"messages": [*HELLO, FINE]}, ["fine"], False),
        ({"messages": json.dumps([*HELLO, FINE])}, ["fine"], False),
        ({"prompt": "hello", "response": "fine"}, ["fine"], False),
        ({"prompt": HELLO, "completion": [FINE]}, ["fine"], False),
        ({"prompt": "hello", "responses": ["fine", "well"]}, ["fine", "well"], True),
        ({"prompt": HELLO, "completions": [[FINE], [FINE]]}, ["fine", "fine"], True),
        ({"prompt": "hello", "chosen": "fine", "rejected": "bad"}, ["fine", "bad"], True),
        ({"chosen": [*HELLO, FINE], "rejected": [*HELLO, FINE]}, ["fine", "fine"], True),
        ({"prompt": HELLO, "chosen": [FINE], "rejected": [FINE]}, ["fine", "fine"], True),
    ],
)
def test_the_columns_that_are_understood(tmp_path: Path, row: dict[str, Any], answers: list[str], many: bool):
    write_lines(tmp_path / "rows.jsonl", [row])
    (found,) = answer_rows(records(tmp_path / "rows.jsonl"))
    assert (found.error, list(found.answers), found.many) == (None, answers, many)
    assert [dict(m) for m in found.context] == HELLO


def test_a_system_message_stands_in_front(tmp_path: Path):
    write_lines(tmp_path / "rows.jsonl", [{"system": "be brief", "prompt": "hello", "response": "fine"}])
    (found,) = answer_rows(records(tmp_path / "rows.jsonl"))
    assert [m["role"] for m in found.context] == ["system", "user"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({}, "missing-field"),
        ({"prompt": "hello"}, "missing-field"),
        ({"prompt": "", "response": "fine"}, "empty-turn"),
        ({"prompt": "hello", "response": ""}, "empty-turn"),
        ({"prompt": "hello", "response": 3}, "not-messages"),
        ({"prompt": "hello", "responses": []}, "no-answer"),
        ({"prompt": "hello", "responses": '["fine", "well"]'}, "missing-field"),
        ({"prompt": "hello", "responses": [" ", ""]}, "empty-turn"),
        ({"messages": HELLO}, "no-answer"),
        ({"messages": "[}"}, "not-messages"),
        ({"chosen": [*HELLO, FINE], "rejected": [{"role": "user", "content": "hi"}, FINE]}, "different-contexts"),
        ({"prompt": [FINE, *HELLO], "response": "fine"}, "not-alternating"),
    ],
)
def test_faults_are_named(tmp_path: Path, row: dict[str, Any], fault: str):
    write_lines(tmp_path / "rows.jsonl", [row])
    (found,) = answer_rows(records(tmp_path / "rows.jsonl"))
    assert found.error is not None
    assert found.error.startswith(f"{fault}: ")
    assert not found.answers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3),
    max_leaves=8,
)
columns = st.sampled_from(
    ["messages", "prompt", "system", "response", "responses", "completion", "chosen", "rejected", "id", "score"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(columns, json_values, max_size=5), max_size=6),
    kind=st.sampled_from(["jsonl", "jsonl.gz", "parquet"]),
)
def test_any_rows_give_one_row_each(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], kind: str):
    folder = tmp_path_factory.mktemp("any")
    write_lines(folder / "rows.jsonl", rows)
    finished = run(folder / "rows.jsonl", folder / f"out.{kind}")
    assert finished.rows == len(rows)
    found = back(folder / f"out.{kind}")
    assert len(found) == len(rows)
    for row in found:
        assert row.get("score") is not None or row.get("scores") is not None or row["error"]


# -- scores ------------------------------------------------------------------------------------------------------------------


def test_rows_keep_their_order_and_their_scores(tmp_path: Path, small_windows: None):
    rows = simple_rows(50)
    rows[7] = {"id": "broken", "prompt": "hello"}
    rows[20] = {"id": "many", "prompt": "hello", "responses": ["a", "", "abc"]}
    write_lines(tmp_path / "rows.jsonl", rows)
    finished = run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    found = read_lines(tmp_path / "out.jsonl")
    assert [r["id"] for r in found] == [r["id"] for r in rows]
    assert (finished.rows, finished.faulty, finished.resumed) == (50, 2, 0)
    assert found[7]["score"] is None
    assert found[7]["error"].startswith("missing-field")
    assert found[20]["scores"] == [6.0, None, 8.0]
    assert found[20]["error"].startswith("answer 2: empty-turn")
    for row, got in zip(rows, found, strict=True):
        if row["id"] not in ("broken", "many"):
            assert got == {**row, "score": float(len(row["prompt"]) + len(row["response"])), "truncated": False}


def test_a_window_is_asked_for_at_once_and_its_prompts_are_computed_once(
    tmp_path: Path, small_windows: None, tiny_model: RewardModel, monkeypatch: pytest.MonkeyPatch
):
    write_lines(tmp_path / "rows.jsonl", [simple_rows(18)[i] for i in (0, 3, 6, 1, 4, 7, 9, 10, 12)])
    score = Counting()
    list(stream_rows(tmp_path / "rows.jsonl", score, score_job(), QUIET))
    prompts = [[c[0]["content"][-1] for c in call] for call in score.calls]
    assert prompts == [list("01201233"), ["4"]]
    read: list[tuple[int, ...]] = []

    def counted(tree: Tree, *others: Any) -> Any:
        read.append(tree.ids)
        return run_tree(tree, *others)

    monkeypatch.setattr("armorm.features.extract.run_tree", counted)
    list(stream_rows(tmp_path / "rows.jsonl", tiny_model.engine().score, score_job(), QUIET))
    texts = [tiny_model.renderer.tokenizer.decode(ids) for ids in read]
    assert [sorted(c for c in text if c.isdigit()) for text in texts] == [list("0123"), ["4"]]


def test_own_columns_and_full_output(tmp_path: Path):
    write_lines(tmp_path / "rows.jsonl", [{**simple_rows(1)[0], "score": "old", "error": "old"}])
    (row,) = stream_rows(tmp_path / "rows.jsonl", Counting(), score_job(own_columns=False, full=True), QUIET)
    assert {"id", "score", "rewards", "raw", "gate", "coefficients", "contributions", "truncated"} <= set(row)
    assert not {"prompt", "response", "lang"} & set(row)
    (row,) = stream_rows(tmp_path / "rows.jsonl", Counting(), score_job(), QUIET)
    assert (row["lang"], row["score"], "error" in row) == ("en", 11.0, False)


def test_a_conversation_that_the_template_refuses_costs_no_other_row_and_says_why(tmp_path: Path, picky: RewardModel):
    rows: list[dict[str, Any]] = [{"id": t, "prompt": "hi", "response": t} for t in ("fine", "refused", "well")]
    rows[1]["system"] = "be brief"
    rows.append({"id": "many", "system": "be brief", "prompt": "hi", "responses": ["fine", ""]})
    write_lines(tmp_path / "rows.jsonl", rows)
    finished = run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", picky.engine().score)
    fine, refused, well, many = read_lines(tmp_path / "out.jsonl")
    assert finished.faulty == 2
    assert refused["score"] is None
    assert refused["error"].startswith("template-refuses: the chat template refuses this conversation: no system; ")
    assert many["scores"] == [None, None]
    assert many["error"] == "; ".join(
        [
            f"answer 1: {refused['error']}",
            "answer 2: empty-turn: turn 3 by the assistant; fill in or remove the turn without text",
        ]
    )
    write_lines(tmp_path / "good.jsonl", [rows[0], rows[2]])
    without = list(stream_rows(tmp_path / "good.jsonl", picky.engine().score, score_job(), QUIET))
    assert [fine, well] == without
    for row in stream_rows(tmp_path / "rows.jsonl", picky.engine().score, score_job(full=True), QUIET):
        assert ("rewards" in row) == (row["id"] in ("fine", "well"))
    found = list(stream_rows(tmp_path / "rows.jsonl", picky.engine().score, best_of_job(), QUIET))
    assert [row["best"] for row in found] == [0, None, 0, None]
    assert (found[1]["error"], found[3]["error"]) == (refused["error"], many["error"])


def test_scores_are_the_models_own(tmp_path: Path, tiny_model: RewardModel):
    rows = simple_rows(7)
    write_lines(tmp_path / "rows.jsonl", rows)
    found = list(stream_rows(tmp_path / "rows.jsonl", tiny_model.engine().score, score_job(), QUIET))
    turns = [[{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}] for r in rows]
    alone = [tiny_model.score(t).score for t in turns]
    assert [r["score"] for r in found] == pytest.approx(alone, abs=1e-5)


# -- stopped and resumed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("breaks_at", [0, 1, 3, 7])
def test_a_stopped_run_goes_on_without_loss_or_repeat(tmp_path: Path, small_windows: None, kind: str, breaks_at: int):
    write_lines(tmp_path / "rows.jsonl", simple_rows(61))
    out = tmp_path / f"out.{kind}"
    first = Counting(breaks_at)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "rows.jsonl", out, first)
    assert not out.exists()
    second = Counting()
    finished = run(tmp_path / "rows.jsonl", out, second)
    assert [r["id"] for r in back(out)] == [f"r{i}" for i in range(61)]
    assert finished.rows == 61
    assert second.asked == 61 - finished.resumed
    assert finished.resumed == 8 * breaks_at
    assert first.asked - finished.resumed == min(8, 61 - finished.resumed)  # one window is computed again
    assert sorted(p.name for p in tmp_path.iterdir()) == [out.name, f"{out.name}.progress.json", "rows.jsonl"]
    whole = tmp_path / f"whole.{kind}"
    run(tmp_path / "rows.jsonl", whole)
    assert back(whole) == back(out)
    third = Counting()
    assert run(tmp_path / "rows.jsonl", out, third).resumed == 61
    assert third.asked == 0


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_half_a_chunk_at_the_end_is_dropped(tmp_path: Path, small_windows: None, kind: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    out = tmp_path / f"out.{kind}"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "rows.jsonl", out, Counting(3))
    with (tmp_path / f"out.{kind}.part").open("ab") as file:
        file.write(b'{"id": "half')
    run(tmp_path / "rows.jsonl", out)
    assert [r["id"] for r in back(out)] == [f"r{i}" for i in range(40)]


@pytest.mark.parametrize("step", ["assemble", "place", "remove"])
def test_a_kill_between_the_last_row_and_the_end(tmp_path: Path, small_windows: None, step: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(20))
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"out.{kind}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(row_writer(out)), step, _stop)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "rows.jsonl", out)
        score = Counting()
        run(tmp_path / "rows.jsonl", out, score)
        assert score.asked == 0
        assert len(back(out)) == 20


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"model_key": "other"}, "another model"), ({"job": score_job(full=True)}, "another settings"), ({}, "another input")],
)
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, changed: dict[str, Any], what: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(5))
    run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    if not changed:
        write_lines(tmp_path / "rows.jsonl", simple_rows(6))
    with pytest.raises(DataError, match=what):
        run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", **changed)
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_foreign_file_the_input_and_unknown_endings_are_refused(tmp_path: Path):
    write_lines(tmp_path / "rows.jsonl", simple_rows(2))
    (tmp_path / "mine.jsonl").write_text("mine", encoding="utf-8")
    for name, match in (("mine.jsonl", "is there already"), ("rows.jsonl", "the input itself"), ("out.csv", "let the name end")):
        with pytest.raises(DataError, match=match):
            run(tmp_path / "rows.jsonl", tmp_path / name)
    assert (tmp_path / "mine.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_part_that_is_too_short_is_noticed(tmp_path: Path, small_windows: None):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(3))
    (tmp_path / "out.jsonl.part").write_bytes(b"")
    with pytest.raises(DataError, match="begin anew"):
        run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")


def test_grouped_rows_are_resumed_at_a_groups_end(tmp_path: Path, small_windows: None):
    write_lines(tmp_path / "rows.jsonl", simple_rows(31))
    job = Job("groups", lambda a: {"id": a.row.id, "rows": a.row.rows, "n": len(a.scores)}, {}, group_neighbours)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(2), job)
    finished = run(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", None, job)
    found = read_lines(tmp_path / "out.jsonl")
    assert finished.resumed > 0
    assert [r["id"] for r in found] == [f"r{i}" for i in range(0, 31, 3)]
    assert sum(r["rows"] for r in found) == finished.rows == 31


@pytest.mark.parametrize("job", [score_job(), best_of_job()], ids=lambda job: job.name)
@pytest.mark.parametrize("breaks_at", [1, 3, 5])
def test_a_column_that_only_early_rows_have_is_there_for_a_run_that_goes_on(
    tmp_path: Path, small_windows: None, job: Job, breaks_at: int
):
    rows = [{**row, **({"persona": "be kind"} if i == 2 else {})} for i, row in enumerate(simple_rows(48))]
    write_lines(tmp_path / "rows.jsonl", rows)
    asked = {"model_key": "m", "reporter": QUIET, "rows": RowFormat(Columns(system="persona"))}
    write_scores(tmp_path / "rows.jsonl", tmp_path / "whole.jsonl", Counting(), job, **asked)
    with pytest.raises(KeyboardInterrupt):
        write_scores(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(breaks_at), job, **asked)
    finished = write_scores(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(), job, **asked)
    assert (finished.rows, finished.resumed > 2) == (48, True)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_column_that_no_row_has_is_told_of_however_often_the_run_was_stopped(tmp_path: Path, small_windows: None):
    write_lines(tmp_path / "rows.jsonl", simple_rows(24))
    asked = {"model_key": "m", "reporter": QUIET, "rows": RowFormat(Columns(system="persona"))}
    with pytest.raises(KeyboardInterrupt):
        write_scores(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(1), score_job(), **asked)
    for _ in range(2):
        with pytest.raises(DataError, match="no row has the column 'persona'; the columns are id, lang, prompt, response"):
            write_scores(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", Counting(), score_job(), **asked)


@pytest.mark.parametrize("how", ["appended", "replaced", "touched"])
def test_an_input_that_changes_while_it_is_scored_is_told_of(tmp_path: Path, small_windows: None, how: str):
    file = tmp_path / "rows.jsonl"
    write_lines(file, simple_rows(40))

    class Changing(Counting):
        def __call__(self, conversations: Sequence[Conversation]) -> ScoreTable:
            if len(self.calls) == 2:
                data = file.read_bytes()
                (tmp_path / "other").write_bytes(data.replace(b"x", b"y") if how == "replaced" else data)
                if how == "replaced":
                    (tmp_path / "other").replace(file)
                os.utime(file, (1, 1))
                if how == "appended":
                    write_lines(file, simple_rows(41))
            return super().__call__(conversations)

    if how == "touched":  # it holds what it held
        assert run(file, tmp_path / "out.jsonl", Changing()).rows == 40
        return
    with pytest.raises(DataError, match=r"rows\.jsonl: was changed while it was scored: remove .*out\.jsonl\*"):
        run(file, tmp_path / "out.jsonl", Changing())
    assert not (tmp_path / "out.jsonl").exists()


# -- files -------------------------------------------------------------------------------------------------------------------


def test_parquet_parts_are_joined_under_one_schema(tmp_path: Path, small_windows: None):
    rows = simple_rows(24)
    for i, row in enumerate(rows):
        row["early" if i < 8 else "late"] = i
        row["mixed"] = i if i % 2 else str(i)
        row["widens"] = i if i < 8 else i + 0.5
        row["info"] = {"a": i} if i < 8 else {"b": "x"}
        row["empty"] = None
    write_lines(tmp_path / "rows.jsonl", rows)
    run(tmp_path / "rows.jsonl", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 24
    assert table.schema.field("mixed").type == pa.string()
    assert table.schema.field("widens").type == pa.float64()
    found = table.to_pylist()
    assert found[0]["mixed"] == '"0"'
    assert found[1]["mixed"] == "1"
    assert [r["early"] for r in found] == [*range(8), *[None] * 16]
    assert found[0]["info"] == {"a": 0, "b": None}
    assert found[9]["info"] == {"a": None, "b": "x"}
    assert not (tmp_path / "out.parquet.parts").exists()


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
}
MIXED: dict[str, list[Any]] = {
    "texts and messages": [{"prompt": "Q"}, {"prompt": [{"role": "user", "content": "Q"}]}],
    "numbers and texts": [{"prompt": "Q", "n": 1}, {"prompt": "Q", "n": "one"}, {"prompt": "Q", "n": '"1"'}],
    "objects without keys": [{"prompt": "Q", "n": {}}, {"prompt": "Q", "n": None}],
    "later chunks of another type": [{"prompt": "Q", "n": "1"}] * 20 + [{"prompt": "Q", "n": 1}] * 20,
    "calls with other arguments": [{"prompt": "Q", "own": [{**CALL, "x": {"arguments": {name: 1}}}]} for name in "xy"],
    "calls with a null": [{"prompt": "Q", "own": [{"arguments": {"x": 1, "y": None}}]}] * 2,
    "calls of later chunks": [{"prompt": "Q", "own": {"arguments": {"x" if i < 20 else "y": i}}} for i in range(40)],
    "half a pair": [{"prompt": "Q", "n": "\ud800"}],
}


@pytest.mark.parametrize("rows", MIXED.values(), ids=list(MIXED))
def test_parquet_and_json_lines_give_the_same_rows(tmp_path: Path, small_windows: None, rows: list[dict[str, Any]]):
    write_lines(tmp_path / "rows.jsonl", [{"id": i, **row, "response": f"answer {i}"} for i, row in enumerate(rows)])
    for kind in ("jsonl", "parquet"):
        run(tmp_path / "rows.jsonl", tmp_path / f"out.{kind}")
    lines, table = ([one.values for one in records(tmp_path / f"out.{kind}")] for kind in ("jsonl", "parquet"))
    # What only other rows have is null in a table.
    assert [{k: v for k, v in row.items() if v is not None} for row in table] == [
        {k: v for k, v in row.items() if v is not None} for row in lines
    ]


def test_a_parquet_file_that_names_no_encoded_column_stays_as_it_is(tmp_path: Path):
    pq.write_table(pa.table({"text": ['"Q"', "[1]"]}), tmp_path / "old.parquet")
    assert [one.values for one in records(tmp_path / "old.parquet")] == [{"text": '"Q"'}, {"text": "[1]"}]


def test_parquet_in_parquet_out(tmp_path: Path):
    pq.write_table(
        pa.Table.from_pylist([{"prompt": "hi", "responses": ["a", "abc"], "n": i} for i in range(5)]), tmp_path / "in.parquet"
    )
    run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [r["n"] for r in found] == list(range(5))
    assert found[0]["scores"] == [3.0, 5.0]
    assert [r["id"] for r in found] == [1, 2, 3, 4, 5]


def test_what_utf8_and_json_can_not_hold_is_escaped(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hi", "response": "a", "note": "\\ud800"}\n', encoding="utf-8")
    for kind in ("jsonl", "parquet"):
        run(tmp_path / "rows.jsonl", tmp_path / f"out.{kind}")
        assert "ud800" in str(ascii(back(tmp_path / f"out.{kind}")[0]["note"]))


def test_rows_are_written_whole_or_not_at_all(tmp_path: Path):
    def rows() -> Any:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(rows(), tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
    assert write_rows([{"a": 1}], tmp_path / "out.jsonl") == 1
    with pytest.raises(DataError, match="is there already"):
        write_rows([{"a": 2}], tmp_path / "out.jsonl")
    assert read_lines(tmp_path / "out.jsonl") == [{"a": 1}]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_rows_have_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr("armorm.data.row_writing.CHUNK", 4)
    out = tmp_path / f"out.{kind}"

    def rows() -> Any:
        for i in range(20):
            if i == 10:
                with pytest.raises(InUse, match=rf"is being written by process {os.getpid()} "):
                    write_rows([{"i": -1}] * 9, out)
            yield {"i": i}

    assert write_rows(rows(), out) == 20
    assert [row["i"] for row in back(out)] == list(range(20))
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz"])
def test_rows_that_are_not_all_there_make_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr("armorm.data.row_writing.CHUNK", 4)

    def rows() -> Any:
        for i in range(20):
            if i == 10:
                (tmp_path / f"out.{kind}.part").write_bytes(b"")
            yield {"i": i}

    with pytest.raises(StorageError, match="20 rows were written and 12 are there"):
        write_rows(rows(), tmp_path / f"out.{kind}")
    assert not list(tmp_path.iterdir())


KINDS = ["jsonl", "jsonl.gz", "parquet"]


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with and without hard links."""

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_comes_where_rows_are_to_be_stays_and_is_told_of(tmp_path: Path, links: None, kind: str):
    def rows() -> Any:
        yield {"a": 1}
        (tmp_path / f"out.{kind}").write_text("mine", encoding="utf-8")

    with pytest.raises(DataError, match=rf"out\.{kind}: something of this name came there while it was made, and stays"):
        write_rows(rows(), tmp_path / f"out.{kind}")
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["mine"]
    (tmp_path / f"out.{kind}").unlink()
    assert write_rows([{"a": 1}], tmp_path / f"out.{kind}") == 1


@pytest.mark.parametrize("theirs", ["file", "folder", "link"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_comes_where_scores_are_to_be_costs_no_score(
    tmp_path: Path, small_windows: None, links: None, kind: str, theirs: str
):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    out = tmp_path / f"out.{kind}"

    class Joined(Counting):
        def __call__(self, conversations: Sequence[Conversation]) -> ScoreTable:
            if len(self.calls) == 2:
                if theirs == "file":
                    out.write_text("mine", encoding="utf-8")
                elif theirs == "folder":
                    out.mkdir()
                else:
                    out.symlink_to(tmp_path / "nowhere")
            return super().__call__(conversations)

    with pytest.raises(DataError, match="something of this name came there while it was made"):
        run(tmp_path / "rows.jsonl", out, Joined())
    with pytest.raises(DataError, match="is a folder" if theirs == "folder" else "something of this name came there"):
        run(tmp_path / "rows.jsonl", out)
    assert theirs != "file" or out.read_text(encoding="utf-8") == "mine"
    out.rename(tmp_path / "theirs")
    score = Counting()
    assert (run(tmp_path / "rows.jsonl", out, score).resumed, score.asked) == (40, 0)
    assert [row["id"] for row in back(out)] == [f"r{i}" for i in range(40)]
    assert sorted(file.name for file in tmp_path.iterdir()) == [out.name, f"{out.name}.progress.json", "rows.jsonl", "theirs"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_while_the_file_gets_its_name_leaves_a_whole_one(
    tmp_path: Path, small_windows: None, monkeypatch: pytest.MonkeyPatch, kind: str
):
    write_lines(tmp_path / "rows.jsonl", simple_rows(20))
    with monkeypatch.context() as patch:
        patch.setattr("armorm.disk.remove_file", _stop)  # it has both names
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "rows.jsonl", tmp_path / f"out.{kind}")
    whole = (tmp_path / f"out.{kind}").read_bytes()
    score = Counting()
    assert (run(tmp_path / "rows.jsonl", tmp_path / f"out.{kind}", score).rows, score.asked) == (20, 0)
    assert (tmp_path / f"out.{kind}").read_bytes() == whole
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_no_rows_make_an_empty_file(tmp_path: Path, kind: str):
    (tmp_path / "rows.jsonl").touch()
    assert run(tmp_path / "rows.jsonl", tmp_path / f"out.{kind}").rows == 0
    assert back(tmp_path / f"out.{kind}") == []


def test_rows_are_counted_for_the_estimate(tmp_path: Path):
    write_lines(tmp_path / "rows.jsonl", simple_rows(12))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
    pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "rows.parquet")
    assert [count_rows(tmp_path / f"rows.{k}") for k in ("jsonl", "jsonl.gz", "parquet")] == [12, 12, 3]
    for kind in ("jsonl.gz", "parquet"):
        (tmp_path / f"rows.{kind}").rename(tmp_path / f"rows.{kind.upper()}")
    assert [count_rows(tmp_path / f"rows.{k}") for k in ("JSONL.GZ", "PARQUET")] == [12, 3]


def _stop(_self: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_of_two_jobs_on_one_file_the_second_is_told_of_the_first(tmp_path: Path, small_windows: None, kind: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    out, refused = tmp_path / f"out.{kind}", list[str]()

    class Joined(Counting):
        def __call__(self, conversations: Sequence[Conversation]) -> ScoreTable:
            if len(self.calls) == 2:  # in the middle of the first job
                with pytest.raises(DataError) as told:
                    run(tmp_path / "rows.jsonl", out)
                refused.append(str(told.value))
            return super().__call__(conversations)

    assert run(tmp_path / "rows.jsonl", out, Joined()).rows == 40
    assert len(refused) == 1
    assert f"is being written by process {os.getpid()}" in refused[0]
    assert [r["id"] for r in back(out)] == [f"r{i}" for i in range(40)]
    assert run(tmp_path / "rows.jsonl", out).resumed == 40


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_no_flip_of_what_stands_on_the_disk_reaches_the_finished_file(tmp_path: Path, small_windows: None, kind: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    out = tmp_path / f"out.{kind}"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "rows.jsonl", out, Counting(breaks_at=2))
    stopped = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != "rows.jsonl"}
    run(tmp_path / "rows.jsonl", out)
    draw = np.random.default_rng(0)
    finished = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file() and file.name != "rows.jsonl"}
    for state in (stopped, finished):
        for _ in range(40):
            for file in [f for f in tmp_path.rglob("*") if f.is_file() and f.name != "rows.jsonl"]:
                file.unlink()
            for file, data in state.items():
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(data)
            file = list(state)[int(draw.integers(len(state)))]
            data = bytearray(state[file])
            data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
            file.write_bytes(data)
            with pytest.raises((DataError, CheckpointError), match=r"damaged|not as it was written"):
                run(tmp_path / "rows.jsonl", out)
