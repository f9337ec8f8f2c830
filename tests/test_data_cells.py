"""One way to read a cell: numbers, nothing, lists as text; the same for sources, for a user's files and for rows to be scored."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import pytest

from armorm.data.answer_rows import answer_row
from armorm.data.cells import context_turns, is_absent, number, parse_list, rating
from armorm.data.files import Record

TURN = {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize("value", [None, "", "  ", "N/A", "n/a ", "NA", "none", "NULL"])
def test_nothing_is_written_in_many_ways(value):
    assert is_absent(value)
    assert number(value) is rating(value) is None


@pytest.mark.parametrize("value", ["nan", math.nan, 0, False, [], "nothing"])
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


def test_a_list_may_be_stored_as_text():
    assert parse_list(json.dumps([TURN])) == parse_list("\n " + json.dumps([TURN])) == [TURN]
    assert parse_list([TURN]) == [TURN]
    for text in ("[1, 2]", "[broken", '{"role": "user"}', "plain", ""):
        assert parse_list(text) is text


def test_a_system_text_comes_before_the_prompt_unless_its_turns_have_one():
    user, system = {"role": "user", "content": "Q"}, {"role": "system", "content": "S"}
    assert context_turns("Q", None) == context_turns([user], "") == [user]
    assert context_turns("Q", "S") == context_turns([user], "S") == context_turns([system, user], "other") == [system, user]


def test_an_answer_that_is_a_json_list_stays_a_text_and_one_of_turns_is_read():
    def answers(**values):
        return answer_row(Record(1, {"prompt": "Q", **values})).answers

    assert answers(response='["a", "b"]') == ('["a", "b"]',)
    assert answers(response=json.dumps([TURN])) == answers(completion=[TURN]) == ("yes",)
    assert answers(chosen='["a"]', rejected="no") == ('["a"]', "no")
    assert answers(responses='["a", "b"]') == ("a", "b")
