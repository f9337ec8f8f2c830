"""Conversations: what is one, in whatever people hold it; what is named when it is none; when two prompts are the same."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from armorm.conversation import (
    Fault,
    answer_of,
    entries_of,
    fault_in,
    is_utf8,
    parse_conversation,
    prompt_group,
    split_answer,
    text_of,
    turns_of,
)
from armorm.errors import ConversationError

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "now", "parameters": {"type": "object"}}}


def turns(*contents, system=None):
    roles = ("user", "assistant")
    talk = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + talk


def parsed(*messages, **more):
    return list(parse_conversation(list(messages), **more).messages)


# -- faults ------------------------------------------------------------------------------------------------------------

ENDLESS: list[object] = []
ENDLESS += [ENDLESS, ENDLESS]
NESTED: object = "x"
for _ in range(150):
    NESTED = [NESTED]
FAULTS = [
    ("hello", "not-messages"),
    (b"hello", "not-messages"),
    (None, "not-messages"),
    (1.5, "not-messages"),
    ([], "not-messages"),
    ({}, "not-messages"),
    ({"role": "user", "content": "a"}, "not-messages"),
    (["hello"], "not-messages"),
    ([{"role": "user"}], "not-messages"),
    ([{"role": "user", "content": ["part"]}], "not-messages"),
    ([{"role": "user", "content": 7}], "not-messages"),
    ([{"role": 1, "content": "a"}], "not-messages"),
    ([*turns("a"), {"role": "assistant", "content": "", "tool_calls": "weather()"}], "not-messages"),
    ([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], "not-text"),
    ([{"role": "user", "content": "see", "images": ["a.png"]}], "not-text"),
    ([*turns("hi"), {"role": "assistant", "content": [{"type": "audio", "audio": "x"}]}], "not-text"),
    ([{"role": "robot", "content": "a"}], "unknown-role"),
    ([{"from": "narrator", "value": "a"}], "unknown-role"),
    (turns("hi", " \n "), "empty-turn"),
    (turns("", "hello"), "empty-turn"),
    ([*turns("hi"), {"role": "assistant", "content": "", "reasoning_content": ""}], "empty-turn"),
    ([{"role": "user", "content": ENDLESS}], "too-deep"),
    ([*turns("hi"), {"role": "assistant", "content": "a", "tool_calls": [{"arguments": {"a": NESTED}}]}], "too-deep"),
    ([*turns("hi"), {"role": "assistant", "content": "a", "tool_calls": [{"arguments": {"a": b"x"}}]}], "not-messages"),
    ([*turns("hi"), {"role": "assistant", "content": "a", "tool_calls": [{"arguments": {"a": [{1, 2}]}}]}], "not-messages"),
    ([*turns("hi"), {"role": "assistant", "content": "a", "tool_calls": [{"arguments": {(1, 2): 3}}]}], "not-messages"),
    ([{**turns("hi")[0], "tools": [{"name": "f", "x": object()}]}, *turns("hi", "a")[1:]], "not-messages"),
    ([{**turns("hi")[0], "tools": [{"name": "f", "x": {1: 1, "1": 2}}]}, *turns("hi", "a")[1:]], "not-messages"),
    ([{**turns("hi")[0], "tools": [{"name": "f", "x": 10**5000}]}, *turns("hi", "a")[1:]], "not-messages"),
    ([{**turns("hi")[0], "tools": [{"name": "f", "x": {10**5000: 1}}]}, *turns("hi", "a")[1:]], "not-messages"),
    ([{**turns("hi")[0], "tools": [{"name": "f", "x": {"\ud800": 1}}]}, *turns("hi", "a")[1:]], "not-utf8"),
    (turns("hi", "\ud800"), "not-utf8"),
    ([*turns("hi"), {"role": "assistant", "content": "a", "thinking": "\udc00"}], "not-utf8"),
    (turns("hi"), "no-answer"),
    (turns("hi", "hello", "and?"), "no-answer"),
    ([*turns("hi", "hello"), {"role": "tool", "content": "22 C"}], "no-answer"),
    (turns("hi", "hello")[1:], "not-alternating"),
    ([*turns("hi"), *turns("hi"), *turns("", "a")[1:]], "not-alternating"),
    ([*turns("hi"), {"role": "tool", "content": "x"}, *turns("", "a")[1:]], "not-alternating"),
    ([*turns("hi", "hello"), {"role": "system", "content": "late"}, *turns("a", "b")], "not-alternating"),
    ([{"role": "system", "content": "only"}, {"role": "assistant", "content": "b"}], "not-alternating"),
]
BY_OTHERS = {"python-repr", "too-long", "template-refuses", "tool-calls-unread", "tool-turns-unread", "answer-unread"}
"""Faults that a file's reader or a chat template finds."""


@pytest.mark.parametrize(("messages", "fault"), FAULTS)
def test_each_fault_is_named_with_its_remedy(messages, fault):
    found = fault_in(messages)
    assert found == fault
    assert found.remedy
    with pytest.raises(ConversationError, match=fault) as error:
        parse_conversation(messages)
    assert error.value.fault == fault


def test_every_fault_is_met_above():
    assert {fault for _, fault in FAULTS} | BY_OTHERS == set(Fault.REMEDIES)


def test_a_fault_says_which_turn_it_is_and_what_was_seen():
    assert "turn 2 by the assistant" in str(fault_in(turns("hi", "")).error())
    assert "turn 3 holds 'video'" in fault_in([*turns("a", "b"), {"role": "user", "content": [{"type": "video"}]}]).sentence
    assert "got a float" in fault_in(0.5).sentence
    assert "turn 1 is by 'robot'" in fault_in([{"role": "robot", "content": "a"}]).sentence


def test_utf8_means_no_unpaired_surrogate():
    assert is_utf8("déjà 🙂")
    assert not is_utf8("\udc80")


# -- what conversations come in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hold",
    [
        tuple,
        iter,
        lambda m: (x for x in m),
        lambda m: np.array(m, dtype=object),
        pd.Series,
        lambda m: pd.DataFrame({"messages": [m]})["messages"][0],
        lambda m: datasets.Dataset.from_dict({"messages": [m]})["messages"][0],
        lambda m: {"messages": m, "other": 1},
        lambda m: {"messages": np.array(m, dtype=object)},
    ],
)
def test_whatever_holds_messages_in_order_is_a_conversation(hold):
    messages = turns("a", "b", "c", "d", system="s")
    assert list(parse_conversation(hold(messages)).messages) == messages


@pytest.mark.parametrize("nothing", [None, "text", b"text", {"a": 1}, {1, 2}, 3, object()])
def test_what_holds_nothing_in_order_has_no_entries(nothing):
    assert entries_of(nothing) is None


def test_numpy_texts_become_plain_ones():
    (one, _) = parsed({"role": np.str_("user"), "content": np.str_("a")}, {"role": "assistant", "content": "b"})
    assert one == {"role": "user", "content": "a"}


def test_a_developer_is_the_system():
    assert parsed({"role": "developer", "content": "s"}, *turns("a", "b")) == turns("a", "b", system="s")


def test_speakers_of_other_formats_are_roles():
    said = [("system", "s"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("bot", "d"), ("observation", "e"), ("chatgpt", "f")]
    roles = [m["role"] for m in parsed(*({"from": who, "value": what} for who, what in said))]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]


# -- parts of a message ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "Name a prime."}], "Name a prime."),
        ([{"type": "text", "text": "Name "}, {"type": "text", "text": "a prime."}], "Name a prime."),
        ([{"type": "input_text", "text": "Name a prime."}], "Name a prime."),
        ([{"text": "Name a prime."}], "Name a prime."),
        ({"type": "text", "text": "Name a prime."}, "Name a prime."),
        (np.array([{"type": "text", "text": "Name a prime."}], dtype=object), "Name a prime."),
    ],
)
def test_parts_that_are_text_are_one_text(content, text):
    assert parsed({"role": "user", "content": content}, *turns("", "Seven.")[1:]) == turns(text, "Seven.")


def test_reasoning_among_the_parts_is_reasoning():
    parts = [{"type": "thinking", "thinking": "17 * 3"}, {"type": "text", "text": "51"}]
    assert parsed(*turns("q"), {"role": "assistant", "content": parts})[1] == {
        "role": "assistant",
        "content": "51",
        "reasoning_content": "17 * 3",
    }


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_stays_under_its_name(key):
    assert parsed(*turns("q"), {"role": "assistant", "content": "51", key: "17 * 3"})[1][key] == "17 * 3"


@pytest.mark.parametrize(
    "calls",
    [
        [CALL],
        json.dumps([CALL]),
        [{"name": "weather", "arguments": {"city": "Lyon"}}],
        [{**CALL, "function": {"name": "weather", "arguments": '{"city": "Lyon"}'}}],
        np.array([CALL], dtype=object),
    ],
)
def test_tool_calls_have_one_form(calls):
    (_, answer) = parsed(*turns("q"), {"role": "assistant", "content": None, "tool_calls": calls})
    assert answer == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_values_of_tables_become_those_of_json_in_calls_and_tools():
    given = {
        "at": datetime(2026, 1, 2, 3, 4),
        "on": date(2026, 1, 2),
        "for": timedelta(hours=1),
        "price": Decimal("1.50"),
        "id": UUID(int=7),
        "of": [np.int64(3), np.float32(0.5), (True, None)],
        2: "two",
        np.int64(3): "three",
        True: None,
        None: 1,
        0.5: 2,
        date(2026, 1, 3): 3,
    }
    plain = {
        "at": "2026-01-02T03:04:00",
        "on": "2026-01-02",
        "for": "1:00:00",
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000007",
        "of": [3, 0.5, [True, None]],
        "2": "two",
        "3": "three",
        "true": None,
        "null": 1,
        "0.5": 2,
        "2026-01-03": 3,
    }
    call = {"function": {"name": "f", "arguments": given}}
    tool = {"type": "function", "function": {"name": "f", "x": given}}
    talk = parsed(*turns("q"), {"role": "assistant", "content": "", "tool_calls": [call]}, tools=[tool])
    assert talk[-1]["tool_calls"] == [{"function": {"name": "f", "arguments": plain}}]
    assert talk[0]["tools"] == [{"type": "function", "function": {"name": "f", "x": plain}}]
    assert json.loads(json.dumps(talk)) == talk


def test_older_names_of_a_call_are_calls():
    called = {"name": "weather", "arguments": '{"city": "Lyon"}'}
    assert parsed(*turns("q"), {"role": "assistant", "content": None, "function_call": called})[1]["tool_calls"] == [CALL]
    assert parsed({"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(called)})[1]["tool_calls"] == [
        CALL
    ]


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), TOOL, np.array([TOOL], dtype=object)])
def test_tools_stand_at_the_first_message(tools):
    for given in (turns("q", "a"), turns("q", "a", system="s")):
        first, *rest = parse_conversation(given, tools=tools).messages
        assert first["tools"] == [TOOL]
        assert not any("tools" in m for m in rest)
    assert parse_conversation({"messages": turns("q", "a"), "tools": tools}).messages[0]["tools"] == [TOOL]
    assert "tools" not in parse_conversation(turns("q", "a"), tools=[]).messages[0]


def test_an_agents_conversation_is_an_ordinary_one():
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "content": "", "name": "weather"}
    talk = [*turns("q"), called, result, result, *turns("", "It is 22.")[1:], *turns("", "Anything else?")[1:]]
    assert fault_in(talk) is None
    context, answer = split_answer(parsed(*talk), "trajectory")
    assert [m["role"] for m in context] == ["user"]
    assert [m["role"] for m in turns_of(answer)] == ["assistant", "tool", "tool", "assistant", "assistant"]
    context, answer = split_answer(parsed(*talk))
    assert (len(context), answer) == (5, "Anything else?")


@pytest.mark.parametrize("system", ["", "  ", "\n", None])
def test_an_empty_system_message_is_none_and_noted(system):
    found = parse_conversation([{"role": "system", "content": system}, *turns("a", "b")])
    assert (list(found.messages), found.notes) == (turns("a", "b"), ("empty-system",))


def test_keys_that_nothing_reads_are_noted_and_empty_ones_are_not():
    found = parse_conversation([{"role": "user", "content": "a", "weight": 0.5, "id": None}, *turns("", "b")[1:]])
    assert found.notes == ("key 'weight' of messages not read",)
    assert list(found.messages) == turns("a", "b")


def test_parsing_again_changes_nothing():
    talk = [*turns("q"), {"role": "assistant", "content": "x", "tool_calls": [CALL], "thinking": "hm"}]
    once = parse_conversation({"messages": talk, "tools": [TOOL]}).messages
    assert parse_conversation(once).messages == once


def test_an_answer_is_a_text_where_it_is_no_more():
    plain, rich = turns("q", "a")[1:], [{"role": "assistant", "content": "a", "thinking": "b"}]
    assert answer_of(plain) == "a"
    assert answer_of(rich) == tuple(rich)
    assert list(turns_of("a")) == plain
    assert text_of(tuple(rich)) == "<think>\nb\n</think>\na"
    assert '"city": "Lyon"' in text_of(({"role": "assistant", "content": "", "tool_calls": [CALL]},))


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_prompt_group_ignores_case_space_and_the_marks_that_end_sentences():
    group = prompt_group(turns("What is  2 + 2?", "4"))
    for same in ("what IS 2 + 2", "“What is 2 + 2…”", "What\nis 2 + 2 ??", '"What is 2 + 2"'):
        assert group == prompt_group(turns(same, "five", "really?", system="s")), same
    assert group != prompt_group(turns("What is 2 + 3?", "4"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 + 5?", "What is 12 - 5?"),
        ("What is 12 - 5?", "What is 12 * 5?"),
        ("What is 12 / 5?", "What is 12 % 5?"),
        ("Explain C.", "Explain C++."),
        ("Explain C++.", "Explain C#."),
        ("कल", "काल"),
        ("किताब", "कताब"),
        ("What is 5!", "What is 5"),
        ("Is n! even?", "Is n even?"),
        ("x²", "x2"),
        ("1.5 times 2", "15 times 2"),
        ("1.5 times 2", "1,5 times 2"),
        ("f(x)", "f x"),
        ("x > y", "x < y"),
        ("-5", "5"),
        ("50%", "50"),
        ("$5", "€5"),
        ("résumé", "resume"),
        ("node.js", "node js"),
        ("😀", "😢"),
    ],
)
def test_what_may_change_the_question_is_kept(one, other):
    assert prompt_group(turns(one)) != prompt_group(turns(other))


def test_prompts_of_symbols_alone_stay_apart():
    assert prompt_group(turns("???")) != prompt_group(turns("!!!"))
    assert prompt_group(turns("???")) == prompt_group(turns(" ???\n"))


def test_a_group_is_stable_across_versions():
    assert prompt_group(turns("Hello, world!")) == "g" + "b94d27b9934d3e08"  # sha256 of "hello world"


MARKS = st.text(st.sampled_from("ab5é \n!！.,?…\"”»“„«¿¡—()'"), max_size=14)


def plainly_grouped(first: str) -> str:
    """The same rules as patterns that look back before each letter."""
    exclaimed = re.compile(r"(?<![\d)!！])(?<![\d)]\s)(?<!\b\w)[!！]++(?=[\"”»]*+(?:\s|$))")
    stops = re.compile(r"(?<![,.;:?…、。，；：？])[,.;:?…、。，；：？]++(?=([\"”»]*+)(?:\s|($)))")
    quotes = re.compile(r"(?:^|(?<=\s))[\"“„«¿¡]++(?:[\"”»]++(?=\s|$))?|(?<![\"”»])[\"”»]++(?=\s|$)|(?<!\d)(?<!\d\s)—(?!\s?\d)")
    opened = re.compile(r"[\s\"“„«‘'(\[]")

    def without(found: re.Match[str]) -> str:
        run, start = found[0], found.start()
        before = found.string[start - 1] if start else " "
        asks = before.isspace() and start > 0 and not run.strip("?？…") and found[2] is not None
        return " " if asks or not opened.match(before) else run[0] + " " * (len(run) > 1)

    whole = " ".join(unicodedata.normalize("NFC", first).split()).casefold()
    quoted = re.fullmatch(r"['‘「]([^'‘’「」]+)['’」]", whole)
    normal = stops.sub(without, exclaimed.sub(" ", quoted[1] if quoted else whole))
    normal = " ".join(quotes.sub(" ", normal).split()) or whole
    return "g" + hashlib.sha256(normal.encode("utf-8", "replace")).hexdigest()[:16]


@settings(deadline=None, max_examples=2000)
@for_all(MARKS)
def test_a_prompts_group_is_what_its_rules_say(text: str):
    assert prompt_group([{"role": "user", "content": text}]) == plainly_grouped(text)
