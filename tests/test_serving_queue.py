"""What waits for the decoder: tokens counted, prompts together, nobody starved."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.rendering import Rendered
from armorm.serving.batching import Row, Waiting


def row(prompt: int, answer: int, *, prompt_tokens: int = 10, asker: str = "") -> Row:
    return Row(Rendered((prompt,) * prompt_tokens, (7,) * answer, (9,)), None, asker, 0)


def tokens(rows: list[Row]) -> int:
    return sum(map(len, {r.rendered.prompt for r in rows})) + sum(r.tail for r in rows)


def test_a_shared_prompt_counts_once_while_it_waits_and_leaves_with_its_last_row():
    waiting, rows = Waiting(), [row(1, 4), row(1, 5), row(2, 6)]
    assert waiting.added_by(r.rendered for r in rows) == 10 + 5 + 6 + 10 + 7
    waiting.add(rows)
    assert (waiting.tokens, len(waiting)) == (38, 3)
    assert waiting.added_by([row(1, 3).rendered]) == 4
    waiting.drop(rows[:1])
    assert waiting.tokens == 33
    waiting.drop(rows)
    assert (waiting.tokens, len(waiting)) == (0, 0)
    assert waiting.take(100) == []


def test_answers_to_one_prompt_go_together_whoever_asked():
    waiting = Waiting()
    mine, other, theirs = row(1, 5, asker="a"), row(2, 30, asker="b"), row(1, 5, asker="c")
    waiting.add([mine])
    waiting.add([other])
    waiting.add([theirs])
    assert waiting.take(10 + 6 + 6 + 3) == [mine, theirs]
    assert waiting.take(25) == [other]  # longer than the budget: by itself


def test_a_prompt_that_everybody_asks_about_starves_nobody():
    waiting, patient = Waiting(), row(2, 5)
    waiting.add([row(1, 5) for _ in range(10)])
    waiting.add([patient])
    taken: list[Row] = []
    batches = 0
    while patient not in taken:
        taken = waiting.take(10 + 4 * 6)
        waiting.add([row(1, 5) for _ in range(6)])
        batches += 1
        assert batches <= 4  # 10 rows before it, 4 of them in a batch


def test_a_group_is_not_torn_apart_to_fill_a_batch():
    waiting, group = Waiting(), [row(2, 20), row(2, 20)]
    waiting.add([row(1, 20)])
    waiting.add(group)
    small = row(3, 4)
    waiting.add([small])
    assert small in waiting.take(70)
    assert waiting.take(70) == group


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=25),
    st.integers(1, 120),
    st.sets(st.integers(0, 24)),
)
def test_every_row_comes_out_once_within_the_budget_and_the_count_ends_at_nothing(given_rows, budget, dropped):
    waiting, rows = Waiting(), [row(prompt, answer) for prompt, answer in given_rows]
    waiting.add(rows)
    gone = [r for i, r in enumerate(rows) if i in dropped]
    waiting.drop(gone)
    left = [r for r in rows if r not in gone]
    taken: list[Row] = []
    while batch := waiting.take(budget):
        oldest = min((r for r in left if r not in taken), key=lambda r: r.number)
        assert oldest in batch
        assert tokens(batch) <= budget or len(batch) == 1
        taken += batch
        assert waiting.tokens == tokens([r for r in left if r not in taken])
    assert sorted(map(id, taken)) == sorted(map(id, left))
    assert (waiting.tokens, len(waiting)) == (0, 0)
