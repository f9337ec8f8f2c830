"""The five domains of the synthetic starter set: their prompts, and what the answers to them are made of.

In: a count and a generator of choices.  Out: distinct prompts.  Cost: milliseconds; the tables of `texts/` are read.

Every topic stands in `texts/*.csv` (columns named in the first line, cut by `|`). Each prompt holds one fact that an
answer can get wrong: a figure that it restates, the sum it asks for, the place or year it wants to know.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from importlib import resources

from armorm.data.starter.prompt import Draw, Prompt, other_figure

Topic = Mapping[str, str]


def everyday(count: int, draw: Draw) -> list[Prompt]:
    """Plans, presents, habits. Domain "chat"."""
    asks = {
        "group": (
            ("We are {n} people and want to {do}. What do you suggest?", "{n} people"),
            ("We want to {do} with a group of {n}. Where do we begin?", "a group of {n}"),
            ("I'm thinking about how to {do}. There will be {n} of us, so what works?", "all {n} of you"),
            ("Can you help me {do}? I have {n} dollars to spend.", "a budget of {n} dollars"),
            ("My plan is to {do}, and there are {n} days left. Any ideas?", "the {n} days that are left"),
        ),
        "self": (
            ("How should I {do} if I only have {n} hours a week?", "{n} hours a week"),
            ("I'd like to {do} within the next {n} weeks. Any ideas?", "the next {n} weeks"),
            ("Can you help me {do}? I have {n} dollars to spend.", "a budget of {n} dollars"),
            ("I've tried for {n} days to {do}. What would you suggest?", "you after {n} days of trying"),
            ("I want to {do} and I am {n} years old. Where do I begin?", "someone of {n} years"),
        ),
    }

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
    writers = {"capitals": _capital, "elements": _element, "events": _event}
    rows = draw.shuffled([(write, topic) for name, write in writers.items() for topic in _table(name)])
    return [rows[i % len(rows)][0](rows[i % len(rows)][1], i // len(rows), draw) for i in range(count)]


def _capital(topic: Topic, turn: int, draw: Draw) -> Prompt:
    country, capital, other = topic["country"], topic["capital"], topic["other"]
    asks = (f"What is the capital of {country}?", f"Which city is the seat of government of {country}?")
    steps = (f"find {country} on a map of {topic['region']}", "look for the star")
    return Prompt(
        "facts",
        asks[turn],
        (f"the capital of {country} is {capital}", f"the capital of {country} is {other}"),
        (
            f"the country lies in {topic['region']} and borders {topic['neighbour']}.",
            f"its parliament there speaks {topic['language']}.",
        ),
        ((*steps, f"read off {capital}"), (*steps, f"read off {other}")),
        draw.pick(("a recent atlas", "an official map", "the date of your source")),
        draw.pick(("a geography teacher", "the embassy", "a librarian")),
    )


def _element(topic: Topic, turn: int, draw: Draw) -> Prompt:
    name, number = topic["name"], topic["number"]
    wrong = str(other_figure(int(number), draw))
    asks = (f"What is the atomic number of {name}?", f"How many protons does an atom of {name} have?")
    steps = (f"look for {topic['symbol']} in the periodic table", "count the boxes")
    return Prompt(
        "facts",
        asks[turn],
        (f"the atomic number of {name} is {number}", f"the atomic number of {name} is {wrong}"),
        (f"its symbol is {topic['symbol']} and it serves in {topic['use']}.", f"at room temperature it is {topic['look']}."),
        ((*steps, f"read off {number}"), (*steps, f"read off {wrong}")),
        draw.pick(("a printed table", "the warning label", "the safety sheet")),
        draw.pick(("a chemistry teacher", "the lab staff", "a librarian")),
    )


def _event(topic: Topic, turn: int, draw: Draw) -> Prompt:
    year, verb, event = topic["year"], topic["verb"], topic["event"]
    wrong = str(int(year) + draw.pick((-12, -7, -3, 2, 4, 9)))
    asks = (f"In which year {verb} {event}?", f"When {verb} {event}? I only need the year.")
    steps = (f"think of {topic['who']}", "place it on a timeline")
    return Prompt(
        "facts",
        asks[turn],
        (f"the year was {year}", f"the year was {wrong}"),
        (f"it happened {topic['place']}, and {topic['who']} had a part in it.", f"as a result {topic['after']}."),
        ((*steps, f"arrive at {year}"), (*steps, f"arrive at {wrong}")),
        draw.pick(("a second source", "an encyclopedia", "the date of your source")),
        draw.pick(("a history teacher", "a museum guide", "a librarian")),
    )


def sums(count: int, draw: Draw) -> list[Prompt]:
    """Word problems: a product, then something added or taken away. Domain "math"."""
    stories, found = _table("sums"), dict[str, Prompt]()
    while len(found) < count:
        prompt = _sum(stories[len(found) % len(stories)], draw)
        found.setdefault(prompt.text, prompt)
    return list(found.values())


_NAMES = ("Ana", "Ben", "Chidi", "Dora", "Emil", "Farah", "Gus", "Hana", "Ivo", "Jun", "Kofi", "Lena", "Marek", "Nia", "Omar")


def _sum(topic: Topic, draw: Draw) -> Prompt:
    a, b, c = 4 + draw.below(16), 3 + draw.below(8), 2 + draw.below(9)
    total = a * b + c if topic["sign"] == "+" else a * b - c
    slots = {"who": draw.pick(_NAMES), "a": str(a), "b": str(b), "c": str(c), "ab": str(a * b)}
    wrong = other_figure(total, draw)
    steps = (f"multiply {a} by {b} to get {a * b}", f"add {c}" if topic["sign"] == "+" else f"take away {c}")
    return Prompt(
        "math",
        draw.text(topic["story"], slots),
        (f"the answer is {total} {topic['unit']}", f"the answer is {wrong} {topic['unit']}"),
        (draw.text(topic["first"], slots), draw.text(topic["second"], slots)),
        ((*steps, f"write {total}"), (*steps, f"write {wrong}")),
        draw.pick(("the numbers in the question", "the units", "each figure")),
        draw.pick(("a teacher", "a classmate", "someone with a calculator")),
    )


def programs(count: int, draw: Draw) -> list[Prompt]:
    """Small programming tasks with one number in them. Domain "code"."""
    asks = (
        "Write a Python function that {does}.",
        "I need Python code that {does}. Can you write it?",
        "Please give me a small Python helper that {does}.",
        "In Python, what is a good function that {does}?",
        "My script lacks a function that {does}. What should it look like?",
    )
    plans = (
        ("take the input", "apply the rule with N", "return the result"),
        ("name the argument", "write the expression with N", "try a small case"),
        ("read the input", "let Python do the part with N", "hand it back"),
    )

    def write(topic: Topic, turn: int) -> Prompt:
        figure = 2 + draw.below(18)
        right, wrong = str(figure), str(other_figure(figure, draw))
        styles = _styles(topic, draw)
        claim = draw.text("this {function|code|helper} ") + topic["does"]
        first, second, third = draw.pick(plans)
        return Prompt(
            "code",
            asks[turn].replace("{does}", topic["does"].replace("N", right)),
            (claim.replace("N", right), claim.replace("N", wrong)),
            (topic["first"].replace("N", right), topic["second"].replace("N", right)),
            ((first, second.replace("N", right), third), (first, second.replace("N", wrong), third)),
            topic["check"],
            draw.pick(("a reviewer", "your team", "the maintainers")),
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
    asks = (
        ("I'm planning on {act} in {n} days. How do I do it?", "the {n} days are yours to think it over"),
        ("Tell me the best way of {act}. I have {n} minutes.", "{n} minutes are short for it"),
        ("What would you say about {act}? A friend did it {n} times.", "a friend's {n} times settle nothing"),
        ("I've thought of {act} for {n} weeks. Can you help me start?", "after {n} weeks it weighs on you"),
        ("{n} people told me that {act} is easy. Where do I begin?", "the word of {n} people is an opinion"),
    )
    plans = (
        ("write it down", "sleep on it", "talk it over"),
        ("name the reason", "think of the others", "decide tomorrow"),
        ("take a short walk", "list two other ways", "compare them"),
        ("wait for one day", "change places in thought", "choose calmly"),
        ("put it on paper", "weigh both sides", "settle on one"),
    )

    def write(topic: Topic, turn: int) -> Prompt:
        ask, claim = asks[turn]
        figure = 3 + draw.below(28)
        steps = draw.pick(plans)
        return Prompt(
            "safety",
            draw.text(ask, {"act": topic["act"], "n": str(figure)}),
            (claim.replace("{n}", str(figure)), claim.replace("{n}", str(other_figure(figure, draw)))),
            (topic["first"], topic["second"]),
            (steps, steps),
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
