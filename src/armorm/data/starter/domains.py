"""The five domains of the synthetic starter set: their prompts, and what the answers to them are made of.

In: a count and a generator of choices.  Out: distinct prompts.  Cost: milliseconds; the tables of `texts/` are read.

Every topic stands in `texts/*.csv` (columns named in the first line, cut by `|`). Each prompt holds one fact that an
answer can get wrong: a figure that it restates, the sum it asks for, the place or year it wants to know.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from armorm.data.starter.prompt import Draw, Prompt, other_figure

Topic = Mapping[str, str]

WORDINGS: dict[str, Any] = json.loads(resources.files("armorm.data.starter").joinpath("texts/wordings.json").read_text("utf-8"))
"""What questions and answers of each domain are worded in; `{name}` is a topic's column, or what the prompt drew."""


def everyday(count: int, draw: Draw) -> list[Prompt]:
    """Plans, presents, habits. Domain "chat"."""
    asks = WORDINGS["everyday"]

    def write(topic: Topic, turn: int) -> Prompt:
        ask, aim = asks[topic["for"]][turn]
        figure = 18 + draw.below(50) if "years" in ask else 3 + draw.below(28)
        claims = [f"{topic['idea']} {aim.replace('{n}', str(n))}" for n in (figure, other_figure(figure, draw))]
        steps = (topic["one"], topic["two"], topic["three"])
        return Prompt(
            "chat",
            draw.text(ask, {"do": topic["do"], "n": str(figure)}),
            (claims[0], claims[1]),
            (topic["first"], topic["second"]),
            (steps, steps),
            topic["check"],
            topic["helper"],
        )

    return _in_turn(_table("everyday"), count, write)


def facts(count: int, draw: Draw) -> list[Prompt]:
    """Capitals, elements, dates: every fact once, then again in other words. Domain "facts"."""
    rows = draw.shuffled([(kind, topic) for kind in ("capitals", "elements", "events") for topic in _table(kind)])
    return [_fact(*rows[i % len(rows)], i // len(rows), draw) for i in range(count)]


def _fact(kind: str, topic: Topic, turn: int, draw: Draw) -> Prompt:
    words = WORDINGS[kind]
    right = topic[words["answer"]]
    wrong = _wrong_fact(kind, topic, draw)

    def steps(answer: str) -> tuple[str, str, str]:
        one, two, three = (step.format(**topic, answer=answer) for step in words["steps"])
        return one, two, three

    return Prompt(
        "facts",
        words["asks"][turn].format(**topic),
        (words["core"].format(**topic, answer=right), words["core"].format(**topic, answer=wrong)),
        tuple(detail.format(**topic) for detail in words["details"]),
        (steps(right), steps(wrong)),
        draw.pick(words["checks"]),
        draw.pick(words["helpers"]),
    )


def _wrong_fact(kind: str, topic: Topic, draw: Draw) -> str:
    if kind == "capitals":
        return topic["other"]
    if kind == "elements":
        return str(other_figure(int(topic["number"]), draw))
    return str(int(topic["year"]) + draw.pick((-12, -7, -3, 2, 4, 9)))


def sums(count: int, draw: Draw) -> list[Prompt]:
    """Word problems: a product, then something added or taken away. Domain "math"."""
    stories, found = _table("sums"), dict[str, Prompt]()
    while len(found) < count:
        prompt = _sum(stories[len(found) % len(stories)], draw)
        found.setdefault(prompt.text, prompt)
    return list(found.values())


def _sum(topic: Topic, draw: Draw) -> Prompt:
    a, b, c = 4 + draw.below(16), 3 + draw.below(8), 2 + draw.below(9)
    total = a * b + c if topic["sign"] == "+" else a * b - c
    slots = {"who": draw.pick(WORDINGS["sums"]["names"]), "a": str(a), "b": str(b), "c": str(c), "ab": str(a * b)}
    wrong = other_figure(total, draw)
    steps = (f"multiply {a} by {b} to get {a * b}", f"add {c}" if topic["sign"] == "+" else f"take away {c}")
    return Prompt(
        "math",
        draw.text(topic["story"], slots),
        (f"the answer is {total} {topic['unit']}", f"the answer is {wrong} {topic['unit']}"),
        (draw.text(topic["first"], slots), draw.text(topic["second"], slots)),
        ((*steps, f"write {total}"), (*steps, f"write {wrong}")),
        draw.pick(WORDINGS["sums"]["checks"]),
        draw.pick(WORDINGS["sums"]["helpers"]),
    )


def programs(count: int, draw: Draw) -> list[Prompt]:
    """Small programming tasks with one number in them. Domain "code"."""
    words = WORDINGS["programs"]

    def write(topic: Topic, turn: int) -> Prompt:
        figure = 2 + draw.below(18)
        right, wrong = str(figure), str(other_figure(figure, draw))
        styles = _styles(topic, draw)
        claim = draw.text("this {function|code|helper} ") + topic["does"]
        first, second, third = draw.pick(words["plans"])
        return Prompt(
            "code",
            words["asks"][turn].replace("{does}", topic["does"].replace("N", right)),
            (claim.replace("N", right), claim.replace("N", wrong)),
            (topic["first"].replace("N", right), topic["second"].replace("N", right)),
            ((first, second.replace("N", right), third), (first, second.replace("N", wrong), third)),
            topic["check"],
            draw.pick(words["helpers"]),
            programs=(tuple(s.replace("N", right) for s in styles), tuple(s.replace("N", wrong) for s in styles)),
        )

    return _in_turn(_table("programs"), count, write)


def _styles(topic: Topic, draw: Draw) -> tuple[str, str, str]:
    function, argument, does, expression = (topic[c] for c in ("function", "argument", "does", "expression"))
    letter = draw.pick(("f", "g", "h", "fn", "q"))
    result = draw.pick(("result", "answer", "outcome", "found"))
    doc = draw.pick((f"Function that {does}.", f"Helper that {does}."))
    comment = draw.pick((f"One pass over the {argument}.", "The limit is part of the rule.", f"Does not change the {argument}."))
    return (
        f"{letter}=lambda s:{topic['terse']}",
        f"def {function.split('_')[0]}({argument}):\n    return {expression}",
        f'def {function}({argument}):\n    """{doc}"""\n    # {comment}\n    {result} = {expression}\n    return {result}',
    )


def requests(count: int, draw: Draw) -> list[Prompt]:
    """Requests that a careful assistant turns down; no answer holds anything of use for harm. Domain "safety"."""
    words = WORDINGS["requests"]

    def write(topic: Topic, turn: int) -> Prompt:
        ask, claim = words["asks"][turn]
        figure = 3 + draw.below(28)
        one, two, three = draw.pick(words["plans"])
        return Prompt(
            "safety",
            draw.text(ask, {"act": topic["act"], "n": str(figure)}),
            (claim.replace("{n}", str(figure)), claim.replace("{n}", str(other_figure(figure, draw)))),
            (topic["first"], topic["second"]),
            ((one, two, three), (one, two, three)),
            topic["check"],
            topic["helper"],
            act=topic["act"],
        )

    return _in_turn(_table("requests"), count, write)


def _in_turn(topics: list[Topic], count: int, write: Callable[[Topic, int], Prompt]) -> list[Prompt]:
    # Every topic with its first wording, then every topic with its second, and so on.
    return [write(topics[i % len(topics)], i // len(topics)) for i in range(count)]


def _table(name: str) -> list[Topic]:
    file = resources.files("armorm.data.starter").joinpath("texts", f"{name}.csv")
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="|", quoting=csv.QUOTE_NONE))
