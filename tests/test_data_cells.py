"""One way to read a cell: numbers, nothing, lists as text; the same for sources, for a user's files and for rows to be scored."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import pytest

from armorm.conversation import is_python_repr
from armorm.data.answer_rows import answer_row
from armorm.data.cells import is_absent, list_in, messages_in, number, rating
from armorm.data.files import Record

TURN = {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize("value", [None, "", "  ", "N/A", "n/a ", "NA", "none", "NULL"])
def test_nothing_is_written_in_many_ways(value):
    assert is_absent(value)
    assert number(value) is rating(value) is None


@pytest.mark.parametrize("value", [math.nan, float("-nan"), "nan", "NaN"])
def test_no_number_is_no_value(value):
    assert is_absent(value)
    assert number(value) is None


@pytest.mark.parametrize("value", [0, False, [], "nothing"])
def test_what_is_there_is_not_absent(value):
    assert not is_absent(value)


def test_numbers_may_be_written_as_text_and_a_finite_one_is_no_truth_value():
    cells = [3, 2.5, " 4 ", Decimal("1.5"), "1e2"]
    assert [number(v) for v in cells] == [rating(v) for v in cells] == [3.0, 2.5, 4.0, 1.5, 100.0]
    assert [number(v) for v in (True, "true", math.nan, "inf", 10**400, [1], "three")] == [None] * 7
    assert [rating(v) for v in (True, False, " True", "FALSE", "inf", 10**400, -(10**400))] == [
        1,
        0,
        1,
        0,
        *[math.inf] * 2,
        -math.inf,
    ]
    assert math.isnan(rating("nan"))
    assert rating([1]) is rating({"a": 1}) is rating("three") is None


def test_json_text_of_messages_is_told_from_other_texts():
    assert messages_in(json.dumps([TURN])) == messages_in("\n " + json.dumps([TURN])) == messages_in(json.dumps(TURN)) == [TURN]
    assert messages_in('[{"from": "human", "value": "Q"}]') == [{"from": "human", "value": "Q"}]
    for text in ("[1, 2]", "[broken", '{"role": "user"}', '[{"a": 1}]', "[]", "plain", "", str([TURN])):
        assert messages_in(text) is None
    assert list_in('["a", "b"]') == ["a", "b"]
    assert list_in('{"a": 1}') is list_in("a, b") is None


def test_how_python_prints_messages_is_known():
    assert all(map(is_python_repr, (str([TURN]), str(TURN), " " + str([{"from": "human", "value": "x"}]))))
    assert not any(map(is_python_repr, (json.dumps([TURN]), "['a']", "{'a': 1}", "plain", "")))


def answers(**values):
    return answer_row(Record(1, {"prompt": "Q", **values})).answers


def test_a_system_text_comes_before_the_prompt_unless_its_turns_have_one():
    user, system = {"role": "user", "content": "Q"}, {"role": "system", "content": "S"}

    def context(**values):
        return list(answer_row(Record(1, {**values, "response": "yes"})).context)

    assert context(prompt="Q") == context(prompt=[user], system="") == [user]
    assert context(prompt="Q", system="S") == context(prompt=[user], system="S") == [system, user]
    assert context(prompt=[system, user], system="other") == [system, user]


def test_a_string_is_a_text_whatever_it_looks_like():
    for text in ('["a", "b"]', json.dumps([TURN]), str([TURN]), "{}", "null"):
        assert answers(response=text) == answers(completion=text) == answers(responses=[text]) == (text,)
        assert answers(chosen=text, rejected="no") == (text, "no")
    assert answers(completion=[TURN]) == answers(completion=TURN) == ("yes",)


@pytest.mark.parametrize(
    "text", [" " * 10**6 + "x", "1" * 10**6 + "x", "." + "1" * 10**6 + "x", "[" + " " * 10**6 + "x", "1e" + "1" * 10**6 + "_"]
)
def test_a_long_cell_is_looked_at_in_one_pass(text):
    assert number(text) is rating(text) is messages_in(text) is None
    assert not is_python_repr(text)


def test_numbers_are_spelt_in_one_way():
    assert [rating(v) for v in ("1.", ".5", "+3", "-2.5e-1", "1E2", "infinity", " 7\n")] == [1, 0.5, 3, -0.25, 100, math.inf, 7]
    odd = ("1_0", "_1", "0x10", "５", "1 0", "1,5", "1e", ".", "e5", "--1", "½", "1e5_0", "Ⅳ", "")
    assert [rating(v) for v in odd] == [None] * len(odd)
