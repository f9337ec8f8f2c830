"""Long conversations: the same turns stay as when the oldest are dropped one by one, for work that follows the length."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm import rendering
from armorm.bounded import Remembered
from armorm.conversation import parse_conversation, prompt_group
from armorm.data.shapes import RowFault, read_texts
from armorm.errors import ConversationError
from armorm.rendering import Renderer, Rendering
from armorm.rounds import Rounds, most

TEMPLATES = sorted(p for p in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja") if "_training" not in p.name)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lyon"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": {"type": "object"}}}


def talk(turns, *, system=None):
    said = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i} says {i * 7}"} for i in range(turns)]
    return [*([{"role": "system", "content": system}] if system else []), *said]


def dropped_one_by_one(renderer, messages):
    """What stays, and its rendering: the oldest question with its answers goes until the rest fits or one is left."""
    whole = Renderer(renderer.tokenizer, max_tokens=10**6, rendering=renderer.rendering)
    kept = list(messages)
    while len(got := whole.render(kept)) > renderer.max_tokens:
        head = 1 if kept[0]["role"] == "system" else 0
        users = [i for i, m in enumerate(kept) if m["role"] == "user"]
        if len(users) < 2:
            break
        tools = kept[0].get("tools")
        kept = kept[:head] + kept[users[1] :]
        kept[0] = {**kept[0], "tools": tools} if tools else kept[0]
    return len(messages) - len(kept), got


def random_talk(draw, *, system, tools):
    """Rounds of a question and one answer, or a call with its result and two."""
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for i in range(draw.randint(2, 6)):
        messages.append({"role": "user", "content": f"question {i} " + "word " * draw.randint(0, 30)})
        if tools and draw.random() < 0.4:
            messages.append({"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]})
            messages.append({"role": "tool", "name": "weather", "content": f"{i} C"})
        messages.append({"role": "assistant", "content": f"answer {i} " + "text " * draw.randint(0, 30)})
    if tools:
        messages[0] = {**messages[0], "tools": [TOOL]}
    return messages


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_the_same_turns_stay_as_when_the_oldest_are_dropped_one_by_one(path, new_tokenizer):
    tokenizer = new_tokenizer()
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    draw, compared = random.Random(path.stem), 0
    for i in range(4):
        messages = random_talk(draw, system=i % 3 == 0, tools=i % 4 == 1)
        try:
            whole = Renderer(tokenizer, max_tokens=10**6).render(messages)
        except ConversationError:
            continue
        # No less than the last round needs, so that nothing else is cut.
        renderer = Renderer(tokenizer, max_tokens=draw.randint(len(whole) // 2, len(whole)))
        turns, want = dropped_one_by_one(renderer, messages)
        got = renderer.render(messages)
        assert got.dropped_turns == turns
        assert got.ids == want.ids or (got.cut_tokens and len(want) > renderer.max_tokens)
        compared += 1
    assert compared >= 1


@pytest.mark.parametrize("rendering_", [Rendering(), Rendering(answer="trajectory"), Rendering(system="merged")], ids=range(3))
@pytest.mark.parametrize("whole", [True, False])
def test_nor_does_it_matter_whether_the_template_saw_the_whole(rendering_, whole, new_tokenizer, monkeypatch):
    if not whole:
        monkeypatch.setattr(rendering, "WHOLE", 100)
    messages = talk(40, system="Be brief.")
    renderer = Renderer(new_tokenizer(), max_tokens=200, rendering=rendering_)
    got = renderer.render(messages)
    if rendering_.system == "merged":  # it goes with the turn that it was merged into
        messages = [{"role": "user", "content": f"Be brief.\n\n{messages[1]['content']}"}, *messages[2:]]
        renderer = Renderer(new_tokenizer(), max_tokens=200)
    turns, want = dropped_one_by_one(renderer, messages)
    assert (got.dropped_turns, got.ids) == (turns, want.ids)
    assert 20 < turns < 38
    assert renderer.check(messages) == ()


class Work:
    """Counts what templates and tokenizers are given."""

    def __init__(self, monkeypatch):
        self.calls = self.shown = self.encoded = 0
        template, encode = rendering.apply_template, rendering.encode

        def counted_template(tokenizer, messages, **more):
            self.calls += 1
            self.shown += sum(len(str(m["content"])) for m in messages)
            return template(tokenizer, messages, **more)

        def counted_encode(tokenizer, text, **more):
            self.encoded += len(text)
            return encode(tokenizer, text, **more)

        monkeypatch.setattr(rendering, "apply_template", counted_template)
        monkeypatch.setattr(rendering, "encode", counted_encode)

    def of(self, renderer, messages):
        self.calls = self.shown = self.encoded = 0
        renderer.render(messages)
        return self.calls, self.shown, self.encoded


def test_work_follows_the_length_and_then_what_fits(new_tokenizer, monkeypatch):
    renderer, work = Renderer(new_tokenizer(), max_tokens=256), Work(monkeypatch)
    work.of(renderer, talk(100))
    short, long = work.of(renderer, talk(200)), work.of(renderer, talk(2000))
    assert long[0] <= short[0] + 40  # renderings: a few more steps to find what fits
    assert long[1] < 12 * short[1]
    assert long[2] < 12 * short[2]
    monkeypatch.setattr(rendering, "WHOLE", 1000)
    hundreds, thousands = work.of(renderer, talk(202)), work.of(renderer, talk(20_002))
    assert thousands[0] == hundreds[0]
    assert thousands[1] < 1.5 * hundreds[1]
    assert thousands[2] < 1.5 * hundreds[2]


def test_a_question_that_is_too_long_is_refused_before_the_template_sees_it(new_tokenizer, monkeypatch):
    renderer, work = Renderer(new_tokenizer(), max_tokens=256), Work(monkeypatch)
    monkeypatch.setattr(rendering, "LONGEST", 5000)
    monkeypatch.setattr(rendering, "WHOLE", 2000)
    older = [{"role": "user", "content": "x" * 9000}, {"role": "assistant", "content": "y" * 9000}]
    assert work.of(renderer, [*older, *talk(2)])[1] < 1000
    assert renderer.render([*older, *talk(2)]).ids == Renderer(new_tokenizer(), max_tokens=256).render(talk(2)).ids
    for messages in ([*talk(1), {"role": "assistant", "content": "x" * 6000}], talk(2, system="x" * 6000), older):
        work.calls = 0
        for ask in (renderer.render, renderer.check):
            with pytest.raises(ConversationError, match="too-long: the last question and its answer have"):
                ask(messages)
        assert work.calls == 0
    with pytest.raises(ConversationError, match="too-long: a text has 6,000"):
        renderer.plain("x" * 6000)


@given(st.integers(1, 300), st.integers(0, 300), st.integers(-3, 400))
@settings(max_examples=300, deadline=None)
def test_the_search_finds_the_largest_number_that_fits(count, largest, guess):
    asked = []

    def fits(n):
        assert 1 <= n <= count
        asked.append(n)
        return n <= largest

    assert most(count, fits, guess=max(guess, 1)) == max(min(largest, count), 1)
    assert len(asked) == len(set(asked)) <= 2 * count.bit_length() + 2


def test_rounds_keep_the_system_message_and_the_tools():
    context = tuple(talk(7, system="s"))
    rounds = Rounds(context, "answer")
    assert rounds.count == 4
    assert rounds.newest(4) is context
    assert rounds.newest(2) == (context[0], *context[5:])
    assert [rounds.within(rounds.size(n)) for n in (1, 2, 4)] == [1, 2, 4]
    first, *others = talk(5)
    assert Rounds(({**first, "tools": [TOOL]}, *others), "a").newest(1) == ({**others[-1], "tools": [TOOL]},)
    assert Rounds((), "a").count == 1


# -- what else looks at every turn ----------------------------------------------------------------------------------------------


MARKS = [".", "！", '"', "?.", '!"', '"!', "“", "¿ ", ' "', "—", "»!", "…”", "! ", ' "! ']


@pytest.mark.parametrize("text", [*(mark * 10**5 + "a" for mark in MARKS), "a" + "\u0301\u0323" * 10**5])
def test_a_prompt_of_marks_has_a_group_at_once(text):
    assert prompt_group([{"role": "user", "content": text}]) == prompt_group([{"role": "user", "content": f" {text}"}])


def test_marks_of_sentences_are_still_no_difference():
    def group(text):
        return prompt_group([{"role": "user", "content": text}])

    assert (
        group("Who are you?")
        == group("who are you")
        == group('"Who are you"')
        == group("Who are you ?")
        == group("¿Who are you!")
    )
    assert group("a .b") != group("a b")
    assert group("n!") != group("n")
    assert group("n！") != group("n")
    assert group("e\u0301t\u00e9") == group("\u00e9te\u0301")


def test_tools_of_many_turns_are_listed_once():
    tools = [{"type": "function", "function": {"name": f"f{i % 700}"}} for i in range(1400)]
    messages = [{**m, "tools": [tool]} for m, tool in zip(talk(1400), tools, strict=True)]
    assert parse_conversation(messages).messages[0]["tools"] == tools[:700]


def test_answers_to_a_long_context_have_a_limit():
    with pytest.raises(RowFault, match="too-long"):
        read_texts({"prompt": talk(3001), "responses": ["a"] * 3000})


# -- what is kept ---------------------------------------------------------------------------------------------------------------


def test_what_is_remembered_has_a_weight():
    asked = []
    double = Remembered(lambda n: asked.append(n) or 2 * n, lambda n, _: n, limit=10)
    assert [double(n) for n in (3, 4, 3, 4)] == [6, 8, 6, 8]
    assert (asked, double.bytes, len(double)) == ([3, 4], 7, 2)
    assert double(3) == 6  # the latest to be asked for
    assert double(5) == 10  # pushes 4 out
    assert (double.bytes, len(double)) == (8, 2)
    assert double(4) == 8
    assert asked == [3, 4, 5, 4]
    assert double(11) == double(11) == 22  # too heavy to be kept
    assert asked[-2:] == [11, 11]
    assert double.bytes <= 10


def test_a_copy_remembers_for_itself(new_tokenizer):
    renderer = Renderer(new_tokenizer(), max_tokens=64)
    want = renderer.render(talk(2))
    other = copy.deepcopy(renderer)
    assert len(renderer._frame) == 1
    assert len(other._frame) == 0
    assert other.render(talk(2)) == want
    assert other._frame._compute.__self__ is other


def test_prompts_of_any_size_leave_a_bounded_memory(new_tokenizer, monkeypatch):
    monkeypatch.setattr(rendering, "REMEMBERED", 10**6)
    renderer = Renderer(new_tokenizer(), max_tokens=64)
    for i in range(40):
        renderer.render([{"role": "user", "content": f"{i} " + "word " * 4000}, {"role": "assistant", "content": "a"}])
    for kept in (renderer._frame, renderer._prompt_ids):
        assert kept.bytes <= 10**6
        assert len(kept) < 30
