"""Whoever reads a row reads the same: scoring, training, benchmarks, validation and a dry run agree on texts and faults."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from small_rows import gpt, says, write

from armorm.conversation import is_utf8, text_of, turns_of
from armorm.data.answer_rows import answer_row
from armorm.data.export import export
from armorm.data.files import BadRecord, Record, records
from armorm.data.opening import Request, RowKind, open_source
from armorm.data.reading import Stream, stream_items, stream_pairs, stream_ratings
from armorm.data.rows import texts_of
from armorm.data.shapes import SHAPES, Columns, kind_of_row
from armorm.data.validate import validate
from armorm.objectives import Objective, Objectives
from armorm.recipe import Recipe
from armorm.run.rows import survey_rows

HELP = Objectives([Objective(name="help", min=0, max=4)])
ONLY_RATED = {"no-rating", "rating-not-a-number", "rating-not-finite", "rating-off-scale"}
"""What only a row to be learnt from can lack: a rating."""
ONLY_PAIRED = {"chosen-equals-rejected", "many-answers"}
"""What only two answers in order can lack: a difference, and being two."""

# -- rows of every format --------------------------------------------------------------------------------------------------------

ODD = [
    "",
    " ",
    "\n\n  indented\n",
    "[]",
    "{}",
    '["a", "b"]',
    '{"role": "assistant", "content": "x"}',
    '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]',
    "[{'role': 'user', 'content': 'q'}]",
    "null",
    "nan",
    "N/A",
    "\ud800",
    "\x00",
    "\n\nHuman: a\n\nAssistant: b",
    "\ufeff“déjà” 🙂",
    'a,"b"\r\nc',
]
TEXT = st.sampled_from(["Seven.", "Eight.", "Name a prime."]) | st.sampled_from(ODD) | st.text(max_size=6)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


RICH = {
    "plain": says,
    "parts": lambda text: says(part(text)),
    "calls": lambda text: says(text, tool_calls=[CALL]),
    "called": lambda text: says(text, function_call={"name": "f", "arguments": "{}"}),
    "thinks": lambda text: says(text, reasoning_content="hm"),
    "weighs": lambda text: says(text, weight=1.0),
}
"""A text as the turn of an assistant."""
ONE = {
    "messages": lambda ask, turn, text: {"messages": [user(ask), turn(text)]},
    "messages as text": lambda ask, turn, text: {"messages": json.dumps([user(ask), turn(text)])},
    "agent": lambda ask, turn, text: {
        "messages": [user(ask), says("", tool_calls=[CALL]), {"role": "tool", "content": "22"}, turn(text)],
        "tools": [{"name": "weather"}],
    },
    "response": lambda ask, turn, text: {"prompt": ask, "response": text},
    "system": lambda ask, turn, text: {"prompt": ask, "response": text, "system": ""},
    "completion": lambda ask, turn, text: {"prompt": [user(ask)], "completion": [turn(text)], "label": True},
    "sharegpt": lambda ask, turn, text: {"conversations": [{"from": "human", "value": ask}, gpt(text)]},
    "alpaca": lambda ask, turn, text: {"instruction": ask, "input": "", "output": text, "history": []},
    "openrlhf": lambda ask, turn, text: {"input": ask, "output": text, "reward": 0.5},
}
MANY = {
    "responses": lambda ask, turn, one, two: {"prompt": ask, "responses": [one, two]},
    "completions": lambda ask, turn, one, two: {"prompt": [user(ask)], "completions": [[turn(one)], [turn(two)]]},
    "unranked": lambda ask, turn, one, two: {"context": ask, "completions": [{"completion": one}, {"completion": two}]},
}
PAIRS = {
    "texts": lambda ask, turn, one, two: {"prompt": ask, "chosen": one, "rejected": two},
    "turns": lambda ask, turn, one, two: {"prompt": [user(ask)], "chosen": [turn(one)], "rejected": [turn(two)]},
    "whole": lambda ask, turn, one, two: {"chosen": [user(ask), turn(one)], "rejected": [user(ask), turn(two)]},
    "both": lambda ask, turn, one, two: {"prompt": ask, "chosen": [user(ask), turn(one)], "rejected": [user(ask), turn(two)]},
    "lists": lambda ask, turn, one, two: {"prompt": ask, "chosen": [one], "rejected": [two]},
    "swift": lambda ask, turn, one, two: {"messages": [user(ask), turn(one)], "rejected_response": two},
    "swift turns": lambda ask, turn, one, two: {
        "messages": [user(ask), turn(one)],
        "rejected_messages": [user(ask), turn(two)],
    },
    "nemo": lambda ask, turn, one, two: {
        "context": [user(ask)],
        "completions": [{"rank": 0, "completion": [turn(one)]}, {"rank": 1, "completion": [turn(two)]}],
    },
    "sharegpt": lambda ask, turn, one, two: {
        "conversations": [{"from": "human", "value": ask}],
        "chosen": gpt(one),
        "rejected": gpt(two),
    },
    "alpaca": lambda ask, turn, one, two: {"instruction": ask, "chosen": one, "rejected": two},
    "openrlhf": lambda ask, turn, one, two: {"input": ask, "chosen": one, "rejected": two},
    "implicit": lambda ask, turn, one, two: {"chosen": f"{ask} {one}", "rejected": f"{ask} {two}"},
    "transcripts": lambda ask, turn, one, two: {
        side: f"\n\nHuman: {ask}\n\nAssistant: {text}" for side, text in (("chosen", one), ("rejected", two))
    },
}
EVERY = [(kind, name) for kind, makers in (("one", ONE), ("many", MANY), ("pair", PAIRS)) for name in makers]
TOLD = {"implicit", "transcripts"}
"""Formats in which the texts decide where an answer starts."""


@st.composite
def whole_rows(draw: st.DrawFn, kind: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """A row of a format, and the texts in it: what is asked, then the answers."""
    texts = [draw(TEXT) for _ in range(2 if kind == "one" else 3)]
    turn = RICH[draw(st.sampled_from(sorted(RICH)))]
    ask, *answers = texts
    makers: Any = {"one": ONE, "many": MANY, "pair": PAIRS}[kind]
    return makers[name](ask, turn, *answers), texts


ANYTHING = st.sampled_from(
    [None, "", " ", 3, 0.5, True, math.nan, [], {}, [[]], ["x"], [None], {"role": "user"}, [user("q")], part("x"), "[]", "x"]
)
RATING = st.sampled_from([3, 0, "2", True, None, math.nan, "N/A", "", -100, "good", [3]])


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """A file's ending, and rows of one format; in some, columns are missing, more, or hold what they shouldn't."""
    kind, name = draw(st.sampled_from(EVERY))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row, _ = draw(whole_rows(kind, name))
        if draw(st.booleans()):
            row |= {"help": draw(RATING)}
        if not draw(st.integers(0, 2)):
            other, _ = draw(st.sampled_from(EVERY).flatmap(lambda one: whole_rows(*one)))
            row[draw(st.sampled_from(sorted({*row, *other, "system", "tools"})))] = draw(ANYTHING)
        if not draw(st.integers(0, 3)):
            del row[draw(st.sampled_from(sorted(row)))]
        rows.append(row)
    return draw(st.sampled_from(["jsonl", "json", "csv", "parquet"])), rows


# -- what each reader says -------------------------------------------------------------------------------------------------------

Said = tuple[str | None, Any]
"""A fault's name, or None and the context with the answers."""


def told(stream: Stream[Any]) -> Said:
    rows = list(stream)
    if not rows:
        (fault,) = stream.faults.counts
        return fault, None
    context, answers = texts_of(rows[0])
    return None, (list(context), list(map(turns_of, answers)))


def read(one: Record | BadRecord) -> dict[str, Said]:
    """What each reader says of a record."""
    return {
        "ratings": told(stream_ratings([one], source="s", objectives=HELP, where="s")),
        "pairs": told(stream_pairs([one], source="s", where="s")),
        "items": told(stream_items([one], source="s", where="s")),
    }


def scored(one: Record | BadRecord) -> Said:
    row = answer_row(one)
    fault = row.error or next((fault for fault in row.faults if fault), None)  # scoring goes on with the other answers
    if fault:
        return fault.partition(":")[0], None
    better_first = sorted(range(len(row.answers)), key=lambda i: not (row.wins or [True] * len(row.answers))[i])
    return None, (list(row.context), [turns_of(row.answers[i]) for i in better_first])


SETTINGS = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(files())
def test_every_reader_says_the_same_of_every_row(tmp_path_factory: pytest.TempPathFactory, file: tuple[str, list[Any]]):
    ending, rows = file
    path = tmp_path_factory.getbasetemp() / f"agree.{ending}"
    try:
        write(path, rows)
    except (pa.ArrowException, UnicodeEncodeError):  # a column of several types, or no UTF-8: no such file can be
        assume(False)
    counts = {"ratings": Counter[str](), "pairs": Counter[str](), "bench": Counter[str]()}
    for one in records(path):
        score, found = scored(one), read(one)
        for reader, name in (("ratings", "ratings"), ("pairs", "pairs"), ("items", "bench")):
            counts[name].update([found[reader][0]] if found[reader][0] else [])
        kind = kind_of_row(one.values) if isinstance(one, Record) else None
        event(f"{kind}: {score[0]}")
        if kind == "one":
            assert found["ratings"] == score or found["ratings"][0] in ONLY_RATED
            assert found["pairs"][0] == found["items"][0]
            assert found["pairs"][0] in {"missing-field", score[0]} - {None}
        elif kind == "pair":
            assert found["pairs"] == score or found["pairs"][0] in ONLY_PAIRED
            assert found["items"] == score or found["items"][0] in ONLY_PAIRED
        elif kind == "many":
            assert {found[reader][0] for reader in found} <= {"missing-field", score[0]} | ONLY_RATED
            assert None not in {found[reader][0] for reader in ("pairs", "items")}
        else:
            assert score[0] is not None
            assert {found[reader][0] for reader in found} <= {score[0], "missing-field"}
    assert_files_agree(path, counts)


@pytest.mark.parametrize("stray", [3, [], {"role": "user"}])
def test_a_stray_column_of_another_format_makes_no_other_fault(stray: Any):
    """What is read as several answers is no single one, whatever stands in a column that a later format would read."""
    row = {
        "context": "Name a prime.",
        "completions": [{"completion": "Seven."}, {"completion": "Eight."}],
        "conversations": stray,
    }
    record = Record(1, row, "rows.jsonl")
    assert scored(record)[0] is None
    assert {said for said, _ in read(record).values()} == {"missing-field"}


@pytest.mark.parametrize("stray", [3, [], [user("q")], [user("Name a prime."), says("Nine.")]])
@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"swift", "swift turns"}))  # where `messages` are a side of the pair
def test_a_pair_is_a_pair_whatever_its_column_of_messages_holds(name: str, stray: Any):
    """What holds two answers in order is that to every reader of pairs and to scoring; ratings are read from the messages."""
    row = PAIRS[name]("Name a prime.", says, "Seven.", "Eight.")
    alone, both = (Record(1, one, "rows.jsonl") for one in (row, row | {"messages": stray, "help": 3}))
    assert kind_of_row(both.values) == "pair"
    assert read(both)["pairs"] == read(both)["items"] == scored(both) == scored(alone)
    rated = told(stream_ratings([Record(1, {"messages": stray, "help": 3}, "r")], source="s", objectives=HELP, where="s"))
    assert read(both)["ratings"] == rated


def assert_files_agree(path: Path, counts: Mapping[str, Counter[str]]) -> None:
    """`data validate` and a dry run count what the readers of rows say."""
    facts = path.with_name("objectives.json")
    facts.write_text(json.dumps(HELP.to_json()), encoding="utf-8")
    kinds: tuple[RowKind, ...] = ("ratings", "pairs")
    for kind in kinds:
        objectives = facts if kind == "ratings" else None
        valid = validate(open_source(Request(str(path), kind=kind, objectives=objectives)))
        assert (valid.faults.counts, valid.total - valid.kept) == (counts[kind], counts[kind].total())
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "ratings": [{"path": str(path), "name": "ratings"}],
            "pairs": [{"path": str(path), "name": "pairs"}],
            "bench": [{"name": "bench", "source": {"path": str(path)}}],
            "objectives": HELP.to_json(),
        }
    )
    surveyed, _ = survey_rows(recipe, HELP)
    assert {f.name: f.drops for f in surveyed} == counts


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(files(), st.sampled_from(["ratings", "pairs"]))
def test_an_export_holds_what_was_read(tmp_path_factory: pytest.TempPathFactory, file: tuple[str, list[Any]], kind: RowKind):
    ending, rows = file
    folder = tmp_path_factory.getbasetemp()
    path, facts = folder / f"agree.{ending}", folder / "objectives.json"
    facts.write_text(json.dumps(HELP.to_json()), encoding="utf-8")
    try:
        write(path, rows)
    except (pa.ArrowException, UnicodeEncodeError):
        assume(False)

    def kept(source: Path) -> list[Any]:
        stream = open_source(Request(str(source), kind=kind, objectives=facts if kind == "ratings" else None)).stream
        return [replace(row, source="") for row in stream]

    assume(kept(path))
    (folder / "out.parquet").unlink(missing_ok=True)
    export(open_source(Request(str(path), kind=kind, objectives=facts if kind == "ratings" else None)), folder / "out.parquet")
    assert kept(folder / "out.parquet") == kept(path)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(EVERY).flatmap(lambda one: st.tuples(st.just(one), whole_rows(*one))))
def test_a_whole_row_gives_the_texts_that_went_in(made: tuple[tuple[str, str], tuple[dict[str, Any], list[str]]]):
    (kind, name), (row, texts) = made
    assume(name not in TOLD)
    found = answer_row(Record(1, row, "rows.jsonl"))
    fault = found.error or next((fault for fault in found.faults if fault), "")
    if all(map(is_utf8, texts)) and all(text.strip() for text in texts):
        assert fault == ""
        assert next(m["content"] for m in found.context if m["role"] == "user") == texts[0]
        assert [answer if isinstance(answer, str) else answer[-1]["content"] for answer in found.answers] == texts[1:]
        assert all(text in text_of(answer) for text, answer in zip(texts[1:], found.answers, strict=True))
        assert kind_of_row(row) == kind
    elif fault:
        assert fault.partition(":")[0] in {"not-utf8", "empty-turn", "missing-field", "not-messages"}
    else:  # an answer may do something without a word
        assert all(map(is_utf8, texts))
        assert all(text.strip() or len(answer[-1]) > 2 for text, answer in zip(texts[1:], found.answers, strict=True))


def test_the_rows_above_are_of_every_format():
    texts = ["Name a prime.", "Seven.", "Eight."]
    makers: list[Any] = [*ONE.values(), *MANY.values(), *PAIRS.values()]
    rows = [m(texts[0], says, *texts[1 : m.__code__.co_argcount - 1]) for m in makers]
    met = {shape.name for shape in SHAPES for row in rows if kind_of_row(row, Columns(format=shape.name))}
    assert met == {shape.name for shape in SHAPES}
