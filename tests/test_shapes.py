"""Rows as people have them: what each kind of row says, in whatever format, and what is wrong with those that say nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from small_rows import gpt, says, write

from armorm.conversation import parse_conversation, prompt_group
from armorm.data import reading
from armorm.data.answer_rows import AnswerRow, answer_row, answer_rows
from armorm.data.files import Record, in_cells, records
from armorm.data.opening import Request, open_source
from armorm.data.reading import stream_items
from armorm.data.shapes import SHAPES, Columns, RowFormat, kind_of_row
from armorm.errors import ConversationError
from armorm.model.reward_model import RewardModel

ASK = {"role": "user", "content": "Name a prime."}
HUMAN = {"from": "human", "value": "Name a prime."}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}
SCALES = [{"name": "helpfulness", "min": 0, "max": 4}, {"name": "safety", "min": 0, "max": 1}]


def read(row: Mapping[str, Any], span: Any = "last-turn", **columns: Any) -> AnswerRow:
    return answer_row(Record(1, dict(row), "rows.jsonl"), RowFormat(Columns(**columns), span=span))


def opened(path: Path, objectives: Any = None, kind: Any = None, **rows: Any) -> Any:
    """The source, read: its kind, its rows, what was counted."""
    if objectives is not None:
        write(path.with_name("objectives.json"), objectives)
    found = open_source(Request(str(path), kind=kind, rows=RowFormat(**rows)))
    return found.kind, list(found.stream), found.stream.faults


# -- types decide, not looks ---------------------------------------------------------------------------------------------------

LETTERS = '["a", "b"]'


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("text", [LETTERS, '{"a": 1}', json.dumps([says("Seven.")]), "[{'role': 'user', 'content': 'x'}]", "[]"])
def test_a_string_is_text_whatever_it_looks_like(tmp_path: Path, ending: str, text: str):
    rows = [
        {"prompt": "Give a list.", "response": text},
        {"prompt": "Give a list.", "responses": [text]},
        {"prompt": "Give a list.", "chosen": text, "rejected": "no"},
        {"messages": [{"role": "user", "content": "Give a list."}, says(text)]},
        {"prompt": text, "response": text},
    ]
    found = [next(answer_rows(records(write(tmp_path / f"{i}.{ending}", [row])))) for i, row in enumerate(rows)]
    assert [(r.error, r.answers[0]) for r in found] == [(None, text)] * 5
    assert found[4].context == ({"role": "user", "content": text},)


TURNS = [[ASK, says("Seven."), says("Eight.")], [{"role": "user", "content": "Hm?"}, says("Yes."), says("No.")]]


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": ask["content"], "chosen": [ask, good], "rejected": [ask, bad]} for ask, good, bad in TURNS],
        [{"prompt": [ask], "chosen": [good], "rejected": [bad]} for ask, good, bad in TURNS],
        [{"prompt": ask["content"], "chosen": good, "rejected": bad} for ask, good, bad in TURNS],
        [{"chosen": [ask, good], "rejected": [ask, bad]} for ask, good, bad in TURNS],
        [{"prompt": [ask], "responses": [good["content"], bad["content"]]} for ask, good, bad in TURNS],
        [{"messages": [ask, good], "rejected_messages": [ask, bad]} for ask, good, bad in TURNS],
        [{"context": [a], "completions": [{"rank": 0, "completion": [g]}, {"rank": 1, "completion": [b]}]} for a, g, b in TURNS],
        [
            {"instruction": a["content"], "input": "", "history": [["Hi.", "Hello."]], "chosen": "x", "rejected": "y"}
            for a, _, _ in TURNS
        ],
    ],
)
def test_the_csv_that_a_table_of_lists_becomes_reads_as_the_lists(tmp_path: Path, rows: list[dict[str, Any]]):
    lists, texts = (list(answer_rows(records(write(tmp_path / f"r.{kind}", rows)))) for kind in ("jsonl", "csv"))
    assert [r.error for r in lists] == [None, None]
    assert [(r.context, r.answers) for r in texts] == [(r.context, r.answers) for r in lists]


def test_a_csv_says_which_columns_it_read_as_messages(tmp_path: Path):
    path = write(tmp_path / "r.csv", [{"prompt": "q", "chosen": [says("a")], "rejected": [says("b")]}] * 2)
    kind, rows, faults = opened(path)
    assert (kind, len(rows), faults.counts) == ("pairs", 2, {})
    assert faults.notes == {
        "chosen: JSON text read as messages": 2,
        "rejected: JSON text read as messages": 2,
        "repeated": 1,
    }


def test_a_csv_column_is_decided_as_a_whole_and_a_setting_forces_either(tmp_path: Path):
    written = json.dumps([says("a")])
    path = write(tmp_path / "r.csv", [{"prompt": "q", "response": r} for r in (written, "plain")])
    assert [r.answers for r in answer_rows(records(path))] == [(written,), ("plain",)]
    assert [r.notes for r in answer_rows(records(path))] == [("response: JSON text kept as text",), ()]
    assert [r.answers for r in answer_rows(records(path, "messages"))] == [("a",), ("plain",)]
    path = write(tmp_path / "r.csv", [{"prompt": "q", "response": written}] * 2)
    assert [r.answers for r in answer_rows(records(path, "text"))] == [(written,)] * 2
    path = write(tmp_path / "r.jsonl", [{"prompt": json.dumps([ASK]), "response": written}])
    assert [r.answers for r in answer_rows(records(path, "messages"))] == [("a",)]


def test_a_cell_that_is_no_messages_in_a_column_of_messages_is_a_fault(tmp_path: Path):
    path = write(tmp_path / "r.csv", [{"prompt": "q", "response": [says("a")]}] * 256 + [{"prompt": "q", "response": "plain"}])
    *_, last = answer_rows(records(path))
    assert (last.error or "").startswith("not-messages: this column holds messages as JSON text in other rows")


def test_cells_of_records_that_no_file_holds_are_read_as_asked():
    found = [Record(1, {"prompt": "q", "chosen": json.dumps([says("a")]), "rejected": json.dumps([says("b")])})]
    assert [row.answers for row in answer_rows(in_cells(iter(found), "messages"))] == [("a", "b")]
    assert list(in_cells(iter(found), "text")) == found


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "csv"])
def test_messages_as_json_text_are_messages_anywhere(tmp_path: Path, ending: str):
    rows = [{"messages": json.dumps([ASK, says("Seven.")])}]
    (found,) = answer_rows(records(write(tmp_path / f"r.{ending}", rows)))
    assert (found.error, found.answers) == (None, ("Seven.",))
    assert not [note for note in found.notes if "kept as text" in note]
    assert read({"conversations": json.dumps([HUMAN, gpt("Seven.")])}).answers == ("Seven.",)
    mapped = read({"talk": json.dumps([ASK, says("Seven.")])}, messages="talk")
    assert (mapped.answers, mapped.notes) == (("Seven.",), ())


@pytest.mark.parametrize("shown", [str([ASK, says("a")]), str(np.array([ASK, says("a")])), f" [ {ASK}, {says('a')}]"])
def test_messages_as_python_prints_them_are_named(tmp_path: Path, shown: str):
    assert (read({"messages": shown}).error or "").startswith("python-repr: ")
    path = write(tmp_path / "r.csv", [{"prompt": "q", "chosen": shown, "rejected": "b"}])
    assert opened(path)[2].counts == {"python-repr": 1}
    assert opened(path, cells="text")[2].counts == {}


# -- tool calls, reasoning, parts -----------------------------------------------------------------------------------------------


def test_what_an_assistant_does_is_part_of_its_answer():
    actions = [
        says("Let me look.", tool_calls=[CALL]),
        says("Let me look.", tool_calls=[{"type": "function", "function": {"name": "delete", "arguments": {"confirm": True}}}]),
        says("Let me look."),
        says(None, tool_calls=[CALL]),
        says("", function_call={"name": "weather", "arguments": '{"city": "Lyon"}'}),
        says("", tool_calls=json.dumps([CALL])),
    ]
    found = [read({"messages": [ASK, action]}) for action in actions]
    assert [r.error for r in found] == [None] * 6
    assert len({json.dumps(r.answers) for r in found}) == 4  # the last three say the same
    assert found[3].answers == found[4].answers == found[5].answers


def test_a_pair_may_differ_in_a_calls_arguments_alone(tmp_path: Path):
    other = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    sides = {"chosen": [says("I look.", tool_calls=[CALL])], "rejected": [says("I look.", tool_calls=[other])]}
    rows = [
        {"prompt": [ASK], **sides, "tools": [{"name": "weather"}]},
        {"prompt": [ASK], "chosen": sides["chosen"], "rejected": [says("I don't know.")]},
        {"prompt": [ASK], "chosen": [says("51", thinking="17 * 3")], "rejected": [says("51", thinking="a guess")]},
        {"prompt": [ASK], "chosen": [says("51 ")], "rejected": [says(" 51")]},
    ]
    _, kept, faults = opened(write(tmp_path / "r.jsonl", rows))
    assert (len(kept), faults.counts) == (3, {"chosen-equals-rejected": 1})
    assert kept[0].context[0]["tools"] == [{"name": "weather"}]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_kept_under_its_name(key: str):
    (answer,) = read({"messages": [ASK, says("51", **{key: "17 * 3 = 51."})]}).answers
    assert answer == (says("51", **{key: "17 * 3 = 51."}),)
    assert read({"messages": [ASK, says("51", **{key: ""})]}).answers == ("51",)


def test_an_agents_conversation_is_ordinary():
    steps = [says("", tool_calls=[CALL]), {"role": "tool", "name": "weather", "content": "22 C"}, says("It is 22.")]
    row = read({"messages": [ASK, *steps]})
    assert (row.error, [m["role"] for m in row.context]) == (None, ["user", "assistant", "tool"])
    assert row.answers == ("It is 22.",)
    assert len(read({"messages": [ASK, *steps]}, "trajectory").answers[0]) == 3
    twice = [ASK, says("One moment."), says("Seven.")]  # an assistant may speak twice
    assert read({"messages": twice}).answers == ("Seven.",)
    silent = [ASK, steps[0], {"role": "tool", "content": "", "tool_call_id": "1"}, says("Done.")]
    assert read({"messages": silent}).error is None
    assert (read({"messages": [{"role": "tool", "content": "22"}, says("x")]}).error or "").startswith("not-alternating")


TEXT_PART = {"type": "text", "text": "Seven is prime."}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, says([TEXT_PART])]}, "Seven is prime."),
        ({"prompt": [ASK], "completion": [says([TEXT_PART])]}, "Seven is prime."),
        ({"prompt": [ASK], "response": [TEXT_PART]}, "Seven is prime."),
        ({"prompt": [{"type": "text", "text": "q"}], "response": "Seven is prime."}, "Seven is prime."),
        ({"messages": [ASK, says([TEXT_PART, {"type": "text", "text": " So is two."}])]}, "Seven is prime. So is two."),
        ({"messages": [ASK, says([{"type": "output_text", "text": "x"}])]}, "x"),
        ({"messages": [ASK, says({"type": "text", "text": "x"})]}, "x"),
    ],
)
def test_parts_that_are_text_are_joined(row: dict[str, Any], answer: str):
    found = read(row)
    assert (found.error, found.answers) == (None, (answer,))


@pytest.mark.parametrize(
    "part",
    [{"type": "image", "image": "a.png"}, {"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_audio"}, {"text": 3}],
)
def test_other_parts_are_named(part: dict[str, Any]):
    error = read(
        {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What is shown?"}]}, says("A cat.")]}
    ).error
    assert (error or "").startswith("not-text: turn 1 holds ")


def test_reasoning_among_the_parts_is_reasoning():
    (answer,) = read({"messages": [ASK, says([{"type": "thinking", "thinking": "hm"}, TEXT_PART])]}).answers
    assert answer == (says("Seven is prime.", reasoning_content="hm"),)


def test_an_empty_system_message_is_none_and_a_key_that_is_not_read_is_noted():
    plain = [ASK, says("Seven.")]
    empty = [
        read({"messages": [{"role": "system", "content": ""}, *plain]}),
        read({"messages": [{"role": "system", "content": [{"type": "text", "text": " "}]}, *plain]}),
        read({"system": "", "prompt": "Name a prime.", "response": "Seven."}),
    ]
    for row in empty:
        assert (row.error, row.context, row.answers, row.notes) == (None, (ASK,), ("Seven.",), ("empty-system",))
    told = read({"messages": [ASK, says("Seven.", weight=1)]})
    assert (told.answers, told.notes) == (("Seven.",), ("key 'weight' of messages not read",))


@pytest.mark.parametrize("answer", ["    return 7", "\n\n    return 7\n\n", "\treturn 7 "])
def test_white_space_around_an_answer_is_kept(answer: str):
    assert read({"prompt": "Complete: def f(x):", "response": answer}).answers == (answer,)


# -- anything that holds messages in order -------------------------------------------------------------------------------------

TALK = [ASK, says("Seven.")]
HOLDERS = [
    tuple(TALK),
    np.array(TALK, dtype=object),
    pd.Series(TALK),
    pd.DataFrame({"messages": [TALK, TALK]})["messages"][1],
    {"messages": TALK},
    {"messages": np.array(TALK, dtype=object), "helpfulness": 3, "tools": None},
    datasets.Dataset.from_list([{"messages": TALK}])[0],
    datasets.Dataset.from_list([{"messages": TALK}])[0]["messages"],
    [{"role": "user", "content": np.array([{"type": "text", "text": "Name a prime."}], dtype=object)}, says("Seven.")],
]


@pytest.mark.parametrize("given", HOLDERS, ids=lambda given: type(given).__name__)
def test_any_ordered_collection_of_messages_is_a_conversation(given: Any):
    assert list(parse_conversation(given).messages) == TALK


def test_a_generator_is_one_too_and_a_row_brings_its_tools():
    assert list(parse_conversation(turn for turn in TALK).messages) == TALK
    first, _ = parse_conversation({"messages": TALK, "tools": [{"name": "weather"}]}).messages
    assert first["tools"] == [{"name": "weather"}]


@pytest.mark.parametrize("given", [3, None, math.nan, "hello", b"hello", {"role": "user"}, {1, 2}, [3], [TALK], [[]]])
def test_what_is_no_conversation_is_named(given: Any):
    with pytest.raises(ConversationError, match=r"^not-messages: (got|turn 1)"):
        parse_conversation(given)


def test_a_model_scores_them_all_and_numbers_what_is_none(tiny_model: RewardModel):
    table = pd.DataFrame({"messages": [TALK, [ASK, says("Eight.")]]})
    plain = [one.score for one in tiny_model.score(table["messages"].tolist())]
    for given in (
        table["messages"],
        (one for one in table["messages"]),
        table.to_dict("records"),
        datasets.Dataset.from_pandas(table)["messages"],
        np.array([*table["messages"], None], dtype=object)[:2],
    ):
        assert [one.score for one in tiny_model.score(given)] == plain
    for one in (tuple(TALK), np.array(TALK, dtype=object), pd.Series(TALK), {"messages": TALK}, iter(TALK)):
        assert tiny_model.score(one).score == tiny_model.score(TALK).score
    for wrong, kind in ((3, "an int"), (None, "nothing"), (math.nan, "a float"), ("hi", "a str")):
        with pytest.raises(ConversationError, match=f"(?s)2.*{kind}"):
            tiny_model.score([TALK, wrong])


# -- ratings -------------------------------------------------------------------------------------------------------------------


def rated(**ratings: Any) -> dict[str, Any]:
    return {"prompt": "Name a prime.", "response": "Seven.", **ratings}


@pytest.mark.parametrize(("none", "noted"), [(math.nan, True), (None, False), ("", False), ("N/A", True), (" ", False)])
def test_a_rating_that_is_none_is_missing(tmp_path: Path, none: Any, noted: bool):
    _, rows, faults = opened(write(tmp_path / "r.jsonl", [rated(helpfulness=3, safety=none)]), SCALES)
    assert ([r.ratings for r in rows], faults.counts) == ([{"helpfulness": 3.0}], {})
    assert faults.notes == ({"rating-na": 1} if noted else {})


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_nan_is_missing_in_every_file(tmp_path: Path, ending: str):
    rows = [rated(helpfulness=3.0, safety=math.nan), rated(helpfulness=math.nan, safety=1.0), rated(helpfulness=2.0, safety=0.0)]
    _, kept, faults = opened(write(tmp_path / f"r.{ending}", rows), SCALES)
    assert [r.ratings for r in kept] == [{"helpfulness": 3}, {"safety": 1}, {"helpfulness": 2, "safety": 0}]
    assert faults.counts == {}


@pytest.mark.parametrize("number", [-100, -1, 999, "-100"])
def test_a_number_that_means_no_rating_is_a_fault_until_it_is_named(tmp_path: Path, number: Any):
    path = write(tmp_path / "r.jsonl", [rated(helpfulness=3, safety=number), rated(helpfulness=2, safety=1)])
    _, rows, faults = opened(path, SCALES)
    assert (len(rows), faults.counts) == (1, {"rating-off-scale": 1})
    assert "`missing`" in faults.examples[0]
    _, rows, faults = opened(path, columns=Columns(missing=(float(number),)))
    assert ([r.ratings for r in rows], faults.notes) == (
        [{"helpfulness": 3}, {"helpfulness": 2, "safety": 1}],
        {"rating-missing": 1},
    )


def test_a_missing_number_is_no_end_of_a_range_that_is_seen(tmp_path: Path):
    path = write(tmp_path / "r.jsonl", [rated(helpfulness=n) for n in (3, -100, 1)])
    found = open_source(Request(str(path), rows=RowFormat(Columns(missing=(-100,)))))
    assert [(o.name, o.min, o.max) for o in found.objectives] == [("helpfulness", 1, 3)]


# -- the identity of a prompt --------------------------------------------------------------------------------------------------


def group(text: str) -> str:
    return prompt_group([{"role": "user", "content": text}])


APART = [
    ("What is 12 + 5?", "What is 12 - 5?"),
    ("What is 12 + 5?", "What is 12 * 5?"),
    ("12 − 5", "12 * 5"),
    ("12 — 5", "12 5"),
    ("-5", "5"),
    ("10%", "10"),
    ("$5", "5"),
    ("a = b", "a == b"),
    ("2^3", "23"),
    ("x²", "x2"),
    ("1.5", "15"),
    ("1,5", "15"),
    ("C", "C++"),
    ("C++", "C#"),
    (".NET", "NET"),
    ("5!", "5"),
    ("What is 5!?", "What is 5?"),
    ("n!", "n"),
    ("3!!", "3!"),
    ("f'(x)", "f(x)"),
    ("की", "का"),
    ("resume", "résumé"),
    ("אָ", "א"),
    ("p → q", "p q"),
    ("*args", "**args"),
    ("😀", "😢"),
    ("it's", "its"),
    ("???", "!!!"),
]
TOGETHER = [
    ("Hello, world!", "hello world"),
    ("What is 2 + 2?", " what\nIS 2 + 2"),
    ("“Name a prime.”", "Name a prime"),
    ('"Name a prime"', "name a prime?"),
    ("'Name a prime.'", "Name a prime"),
    ("‘Name a prime’", "Name a prime"),
    ("Name a prime…", "Name a prime..."),
    ("Name a prime !", "Name a prime"),
    ("你好！", "你好"),
    ("「你好。」", "你好"),
    ("¿Qué?", "qué"),
    ("«Bonjour»", "bonjour"),
    ("cafe\u0301", "café"),
    ("STRASSE", "straße"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_may_change_a_question_keeps_prompts_apart(one: str, other: str):
    assert group(one) != group(other)


@pytest.mark.parametrize(("one", "other"), TOGETHER)
def test_case_space_marks_and_quotes_keep_no_prompts_apart(one: str, other: str):
    assert group(one) == group(other)


def test_prompts_that_are_only_alike_leave_training_alone(tmp_path: Path, armorm: Any):
    train = [{"prompt": f"What is 12 {sign} 5?", "chosen": "x", "rejected": "y"} for sign in "+-/"]
    write(tmp_path / "train.jsonl", [*train, {"prompt": "what is 12 * 5", "chosen": "x", "rejected": "y"}])
    write(tmp_path / "bench.jsonl", [{"prompt": "What is 12 * 5?", "chosen": "60", "rejected": "17"}])
    words = ("--against", tmp_path / "bench.jsonl", "--json", "--quiet")
    code, out, _ = armorm("data", "inspect", tmp_path / "train.jsonl", *words)
    (leak,) = json.loads(out)["leakage"]
    assert (code, leak["exact"]["rows"]) == (0, 1)


# -- what kind of rows a file holds --------------------------------------------------------------------------------------------

PAIR = {"prompt": "Name a tree.", "chosen": "Oak.", "rejected": "A car."}


@pytest.mark.parametrize(
    "broken",
    [
        {"prompt": "Name a prime.", "chosen": "Seven."},
        {"prompt": "Name a prime.", "chosen": "Seven.", "rejected": None},
        {},
        {"messages": "oops"},
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "chosen": [], "rejected": []},
    ],
)
def test_a_broken_first_row_does_not_decide_for_the_rest(tmp_path: Path, broken: dict[str, Any]):
    path = write(tmp_path / "r.jsonl", [broken, PAIR, {**PAIR, "prompt": "Name a fish."}])
    kind, rows, faults = opened(path)
    assert (kind, len(rows), sum(faults.counts.values())) == ("pairs", 2, 1)
    (line,) = faults.examples
    assert any(
        fitting in line for fitting in ("'chosen' + 'rejected'", "'rejected' is empty", "'chosen' is empty", "not-messages")
    )


def test_a_line_that_is_no_json_does_not_decide_either(tmp_path: Path):
    path = write(tmp_path / "r.jsonl", [PAIR])
    path.write_text("{\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    kind, rows, faults = opened(path)
    assert (kind, len(rows), faults.counts) == ("pairs", 1, {"not-json": 1})


@pytest.mark.parametrize("text", ["{}", "\n {}", "\ufeff{}"])
def test_one_json_object_is_one_row(tmp_path: Path, text: str):
    row = {"prompt": "Name a prime number.", "responses": ["Seven is prime.", "Eight is prime."]}
    path = tmp_path / "r.json"
    path.write_text(text.format(json.dumps(row, indent=1)) if text == "{}" else text.replace("{}", json.dumps(row)), "utf-8")
    (found,) = answer_rows(records(path))
    assert (found.row, found.answers) == (1, ("Seven is prime.", "Eight is prime."))


@pytest.mark.parametrize(
    ("row", "kind", "says_so"),
    [
        (
            {"prompt": "q", "responses": ["a", "b"]},
            "ratings",
            "lists answers without an order (give each answer a row of its own",
        ),
        ({"prompt": "q", "responses": ["a", "b"]}, "pairs", "lists answers without an order"),
        (PAIR, "ratings", "is a pair (read such rows as pairs"),
        ({"prompt": "q", "response": "a"}, "pairs", "has one answer (read such rows as ratings"),
        ({"query": "q"}, "pairs", "needs 'chosen' + 'rejected' (fill the columns in, or say which column holds what)"),
        ({"chosen": "abc", "rejected": "xyz"}, "pairs", "the answers don't start alike (give their prompt in column 'prompt')"),
        ({"prompt": "q", "response": "a"}, "ratings", "no objective is known: list the objectives"),
        ({"prompt": "q", "chosen": ["a"], "rejected": []}, "pairs", "column 'rejected' is empty"),
    ],
)
def test_a_remedy_fits_the_row(tmp_path: Path, row: dict[str, Any], kind: Any, says_so: str):
    _, rows, faults = opened(write(tmp_path / "r.jsonl", [row]), kind=kind)
    (line,) = faults.examples
    assert not rows
    assert says_so in line
    assert ": )" not in line


# -- formats -------------------------------------------------------------------------------------------------------------------

PRIME, SEVEN, EIGHT = "Name a prime.", "Seven.", "Eight."
FORMATS: list[tuple[str, dict[str, Any], list[str], list[str], str]] = [
    # format, row, context, answers, kind
    ("sharegpt", {"conversations": [HUMAN], "chosen": gpt(SEVEN), "rejected": gpt(EIGHT)}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("sharegpt", {"conversations": [HUMAN], "chosen": SEVEN, "rejected": EIGHT}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("sharegpt", {"conversations": [HUMAN], "chosen": [gpt(SEVEN)], "rejected": [gpt(EIGHT)]}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("sharegpt", {"conversations": [ASK], "chosen": says(SEVEN), "rejected": says(EIGHT)}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("sharegpt", {"conversations": [HUMAN, gpt(SEVEN)]}, [PRIME], [SEVEN], "one"),
    ("sharegpt", {"conversations": [HUMAN, gpt(SEVEN)], "system": "S"}, ["S", PRIME], [SEVEN], "one"),
    ("sharegpt", {"conversations": [{"from": "system", "value": "S"}, HUMAN, gpt(SEVEN)]}, ["S", PRIME], [SEVEN], "one"),
    (
        "sharegpt",
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                {"from": "observation", "value": "22"},
                gpt(SEVEN),
            ]
        },
        [PRIME, "", "22"],
        [SEVEN],
        "one",
    ),
    ("alpaca", {"instruction": "Translate.", "input": "good morning", "chosen": "a", "rejected": "b"},
     ["Translate.\ngood morning"], ["a", "b"], "pair"),
    ("alpaca", {"instruction": PRIME, "input": "", "output": SEVEN}, [PRIME], [SEVEN], "one"),
    ("alpaca", {"instruction": PRIME, "input": None, "output": SEVEN, "system": "S"}, ["S", PRIME], [SEVEN], "one"),
    ("alpaca", {"instruction": PRIME, "history": [["a", "b"]], "output": SEVEN}, ["a", "b", PRIME], [SEVEN], "one"),
    ("alpaca", {"instruction": PRIME, "history": "[]", "output": SEVEN}, [PRIME], [SEVEN], "one"),
    ("alpaca", {"instruction": PRIME, "history": '[["a", "b"]]', "output": SEVEN}, ["a", "b", PRIME], [SEVEN], "one"),
    ("swift", {"messages": [ASK, says(SEVEN)], "rejected_response": EIGHT}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("swift", {"messages": [ASK, says(SEVEN)], "rejected_response": [EIGHT, "Nine."]}, [PRIME], [SEVEN, EIGHT, "Nine."], "pair"),
    ("swift", {"messages": [ASK, says(SEVEN)], "rejected_messages": [ASK, says(EIGHT)]}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("swift", {"messages": [{"role": "system", "content": "S"}, ASK, says(SEVEN)], "rejected_response": EIGHT},
     ["S", PRIME], [SEVEN, EIGHT], "pair"),
    ("nemo", {"context": [ASK], "completions": [{"rank": 0, "completion": [says(SEVEN)]},
                                                {"rank": 1, "completion": [says(EIGHT)]}]}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("nemo", {"context": PRIME, "completions": [{"rank": 2, "completion": EIGHT}, {"rank": 1, "completion": SEVEN}]},
     [PRIME], [EIGHT, SEVEN], "pair"),
    ("nemo", {"context": PRIME, "completions": [{"rank": 0, "completion": SEVEN}, {"rank": 0, "completion": EIGHT}]},
     [PRIME], [SEVEN, EIGHT], "many"),
    ("nemo", {"context": PRIME, "completions": [{"rank": 0, "completion": SEVEN}, {"rank": math.nan, "completion": EIGHT}]},
     [PRIME], [SEVEN, EIGHT], "many"),
    ("prompt", {"prompt": PRIME, "completion": SEVEN, "label": True}, [PRIME], [SEVEN], "one"),
    ("prompt", {"prompt": [ASK], "completion": [says(SEVEN)], "label": False}, [PRIME], [SEVEN], "one"),
    ("prompt", {"prompt": PRIME, "completions": [SEVEN, EIGHT]}, [PRIME], [SEVEN, EIGHT], "many"),
    ("prompt", {"prompt": PRIME, "chosen": [SEVEN], "rejected": [EIGHT, "Nine."]}, [PRIME], [SEVEN, EIGHT, "Nine."], "pair"),
    ("prompt", {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
     ["The sky is"], [" blue.", " green."], "pair"),
    ("openrlhf", {"input": PRIME, "output": SEVEN, "reward": 0.7}, [PRIME], [SEVEN], "one"),
    ("openrlhf", {"input": [ASK], "chosen": [says(SEVEN)], "rejected": [says(EIGHT)]}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("openrlhf", {"input": PRIME, "chosen": SEVEN, "rejected": EIGHT}, [PRIME], [SEVEN, EIGHT], "pair"),
    ("implicit", {"chosen": "The sky is blue.", "rejected": "The sky is blue and vast."},
     ["The sky is blue"], [".", " and vast."], "pair"),
    ("implicit", {"chosen": "The sky is blue.", "rejected": "The sky is green."}, ["The sky is"], [" blue.", " green."], "pair"),
    ("implicit", {"chosen": "\n\nHuman: Name a prime.\n\nAssistant: Seven.",
                  "rejected": "\n\nHuman: Name a prime.\n\nAssistant: Eight."},
     [PRIME], [SEVEN, EIGHT], "pair"),
    ("implicit", {"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                  "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}, ["a", "b", "c"], ["d", "e"], "pair"),
    ("implicit", {"chosen": [ASK, says(SEVEN)], "rejected": [ASK, says(EIGHT)]}, [PRIME], [SEVEN, EIGHT], "pair"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "context", "answers", "kind"), FORMATS)
def test_a_format_is_seen_by_its_shape_or_told(name: Any, row: dict[str, Any], context: list[str], answers: list[str], kind: str):
    for found in (read(row), read(row, format=name)):
        assert (found.error, [m["content"] for m in found.context], list(found.answers)) == (None, context, answers)
    assert kind_of_row(row) == kind_of_row(row, Columns(format=name)) == kind


def test_every_format_is_met_above_and_its_examples_are_its_own():
    assert {name for name, *_ in FORMATS} | {"messages"} == {shape.name for shape in SHAPES}
    for shape in SHAPES:
        for example in shape.examples:
            found = [read(example, format=other.name) for other in SHAPES]
            assert read(example).error is None
            assert found[SHAPES.index(shape)].answers == read(example).answers


def test_another_format_is_refused_with_what_it_needs():
    assert read({"prompt": "q", "response": "a"}, format="nemo").error == (
        "missing-field: needs `context` + `completions`, each with its `completion` and `rank` (the lowest is the best); "
        "fill the columns in, or say which column holds what"
    )


def test_the_lowest_rank_wins_whatever_the_order():
    ranks = [{"rank": r, "completion": str(r)} for r in (3, 1, 2)]
    (item,) = stream_items([Record(1, {"context": "q", "completions": ranks})], source="s", where="s")
    assert (item.chosen, item.rejected) == (("1",), ("3", "2"))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"query": PRIME, "response": SEVEN}, {"prompt": "query"}),
        ({"query": PRIME, "text": SEVEN}, {"prompt": "query", "response": "text"}),
        ({"dialogue": [ASK, says(SEVEN)]}, {"messages": "dialogue"}),
        ({"q": [ASK], "answer": [says(SEVEN)], "sys": ""}, {"prompt": "q", "response": "answer", "system": "sys"}),
    ],
)
def test_columns_can_be_mapped(row: dict[str, Any], columns: dict[str, str]):
    assert read(row).error is not None
    found = read(row, **columns)
    assert ([m["content"] for m in found.context], found.answers) == ([PRIME], (SEVEN,))


def test_columns_are_mapped_on_the_command_line(tmp_path: Path, armorm: Any):
    rows = [{"query": f"Why {i}?", "response": "So.", "feedback": i / 4, "good": "win", "bad": "lose"} for i in range(4)]
    path = write(tmp_path / "r.json", rows)
    code, out, _ = armorm("data", "validate", path, "--columns", "prompt=query", "--json", "--quiet")
    assert (code, json.loads(out)["sources"][0]["rated"]) == (0, {"feedback": 4})
    pair = ("--columns", "prompt=query", "--columns", "chosen=good", "--columns", "rejected=bad")
    code, out, _ = armorm("data", "validate", path, *pair, "--as", "pairs", "--json", "--quiet")
    assert (code, json.loads(out)["sources"][0]["rows"]) == (0, 4)
    code, out, err = armorm("data", "validate", path, "--columns", "promt=query")
    assert code == 2
    assert "promt" in err


def test_a_row_of_longer_conversations_has_no_one_context():
    more = [*TALK, {"role": "user", "content": "Sure?"}, says("Yes.")]
    assert (read({"chosen": TALK, "rejected": more}).error or "").startswith("different-contexts")


@pytest.mark.parametrize("column", ["system", "tools", "messages", "chosen", "conversations", "responses", "history", "id"])
def test_nan_in_a_column_of_texts_is_nothing(column: str):
    row = read({"prompt": PRIME, "response": SEVEN, column: math.nan})
    assert (row.error, row.context, row.answers, row.id) == (None, (ASK,), (SEVEN,), 1)


@pytest.mark.parametrize("name", [None, "", math.nan])
def test_a_row_without_an_id_is_named_after_its_place(name: Any):
    assert read({"prompt": PRIME, "response": SEVEN, "id": name}).id == 1
    assert read({"prompt": PRIME, "response": SEVEN, "id": 0}).id == 0


@pytest.mark.parametrize("answers", [["Seven.", "Seven.", " Seven."], [SEVEN]])
def test_a_list_of_samples_is_as_long_as_it_is(answers: list[str]):
    assert read({"prompt": PRIME, "responses": answers}).answers == tuple(answers)


def test_a_sample_that_is_none_costs_the_others_nothing():
    row = read({"prompt": PRIME, "responses": ["Crow.", None, 7]})
    assert (row.error, row.answers[0], [bool(f) for f in row.faults]) == (None, "Crow.", [False, True, True])
    assert (read({"prompt": PRIME, "responses": []}).error or "").startswith("no-answer")
    assert (read({"prompt": PRIME, "responses": "Crow."}).error or "").startswith("missing-field")


# -- ids -----------------------------------------------------------------------------------------------------------------------


def named(i: str, prompt: str, response: str, helpfulness: int = 1) -> dict[str, Any]:
    return {"id": i, "prompt": prompt, "response": response, "helpfulness": helpfulness}


def test_answers_to_one_prompt_may_share_its_id(tmp_path: Path):
    rows = [
        named("p1", PRIME, SEVEN, 4),
        named("p1", PRIME, EIGHT),
        named("p2", "Name a tree.", "Oak."),
        named("p1", PRIME, "Nine."),
    ]
    _, kept, faults = opened(write(tmp_path / "r.jsonl", rows), SCALES)
    assert ([r.id for r in kept], faults.counts) == (["p1", "p1#2", "p2", "p1#3"], {})


def test_numbers_that_are_taken_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    digests = [0]
    original = reading._digest

    def counted(text: str) -> bytes:
        digests[0] += 1
        return original(text)

    monkeypatch.setattr(reading, "_digest", counted)
    many = 400
    taken = [named(f"a#{i + 2}", f"question {i}", SEVEN) for i in range(many)]
    path = write(tmp_path / "rows.jsonl", [*taken, *(named("a", PRIME, f"answer {i}") for i in range(many))])
    _, kept, faults = opened(path, SCALES)
    assert faults.counts == {}
    assert [row.id for row in kept][many:] == ["a", *(f"a#{i + 2}" for i in range(many, 2 * many - 1))]
    assert digests[0] < 10 * 2 * many


@pytest.mark.parametrize(
    "second",
    [
        named("p1", "Name a tree.", SEVEN),  # another prompt
        named("p1", PRIME, SEVEN),  # the same row again
        {"id": "p1", "messages": [{"role": "system", "content": "S"}, *TALK], "helpfulness": 1},
    ],
)
def test_an_id_for_another_prompt_or_the_same_row_is_a_fault(tmp_path: Path, second: dict[str, Any]):
    _, kept, faults = opened(write(tmp_path / "r.jsonl", [named("p1", PRIME, SEVEN), second]), SCALES)
    assert (len(kept), faults.counts) == (1, {"duplicate-id": 1})


def test_pairs_of_one_prompt_share_its_id_as_well(tmp_path: Path):
    rows = [{"id": 7, **PAIR}, {"id": 7, **PAIR, "rejected": "A hat."}]
    _, kept, faults = opened(write(tmp_path / "r.jsonl", rows))
    assert ([r.id for r in kept], faults.counts) == (["7", "7#2"], {})


# -- the command line ------------------------------------------------------------------------------------------------------------


def test_validate_takes_missing_numbers_cells_and_formats(tmp_path: Path, armorm: Any):
    def counted(path: Path, *words: object) -> tuple[int, dict[str, Any]]:
        code, out, _ = armorm("data", "validate", path, *words, "--json", "--quiet")
        (source,) = json.loads(out)["sources"]
        return code, source

    write(tmp_path / "objectives.json", SCALES)
    path = write(tmp_path / "ratings.jsonl", [rated(helpfulness=3, safety=-100), rated(helpfulness=2, safety=-1)])
    code, source = counted(path)
    assert (code, source["faults"]) == (2, {"rating-off-scale": 2})
    code, source = counted(path, "--missing", "-100", "--missing", "-1")
    assert (code, source["rated"], source["notes"]) == (0, {"helpfulness": 2, "safety": 0}, {"rating-missing": 2})

    path = write(tmp_path / "pairs.csv", [{"prompt": "q", "chosen": [says("a")], "rejected": [says("b")]}])
    assert set(counted(path)[1]["notes"]) == {f"{side}: JSON text read as messages" for side in ("chosen", "rejected")}
    assert set(counted(path, "--cells", "text")[1]["notes"]) == {
        f"{side}: JSON text kept as text" for side in ("chosen", "rejected")
    }

    path = write(tmp_path / "told.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert counted(path, "--format", "prompt")[0] == 0
    assert counted(path, "--format", "sharegpt", "--as", "pairs")[1]["faults"] == {"missing-field": 1}
    for wrong in (("--format", "excel"), ("--cells", "lists"), ("--answer", "first"), ("--columns", "prompt")):
        assert armorm("data", "validate", path, *wrong)[0] == 2


def test_an_export_reads_back_as_what_it_was_made_of(tmp_path: Path, armorm: Any):
    sides = {"chosen": [says("I look.", tool_calls=[CALL])], "rejected": [says("51", reasoning_content="a guess")]}
    path = write(
        tmp_path / "r.jsonl", [{"id": "a", "prompt": [ASK], **sides, "tools": [{"name": "weather"}]}, {"id": "b", **PAIR}]
    )
    assert armorm("data", "export", path, "--out", tmp_path / "out.parquet", "--quiet")[0] == 0
    kept = pq.read_schema(tmp_path / "out.parquet").field("chosen").type.value_type
    assert {field.name for field in kept} == {"role", "content", "tool_calls", "reasoning_content", "tools"}
    assert opened(tmp_path / "out.parquet")[1] == [dataclasses.replace(row, source="out") for row in opened(path)[1]]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_scores_of_a_file_do_not_depend_on_its_kind(tmp_path: Path, ending: str, tiny_model: RewardModel, armorm: Any):
    tiny_model.save_pretrained(tmp_path / "model")
    rows = [
        {"prompt": [ASK], "responses": ["fine", "well"]},
        {"prompt": [{"role": "user", "content": "Hm?"}], "responses": ["fine"]},
    ]
    code, out, _ = armorm("score", tmp_path / "model", write(tmp_path / f"r.{ending}", rows), "--quiet")
    found = [json.loads(line)["scores"] for line in out.splitlines()]
    talks = [[*row["prompt"], says(text)] for row in rows for text in row["responses"]]
    plain = [round(one.score, 4) for one in tiny_model.score(talks)]
    assert (code, [round(score, 4) for scores in found for score in scores]) == (0, plain)
