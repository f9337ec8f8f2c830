"""Changes of an answer that lower one thing that is known: it no longer answers, or is out of order, cut, padded, a refusal.

In: a `Case` (context, answer, another prompt's answer), a generator.  Out: the changed answer, or the `Reason` why there is none.
Cost: a pass over the answer.

What an audit changes (`bench.perturbations`) shares no text with what is written here, and no procedure. It shuffles sentences,
halves by words, puts filler behind the answer, repeats all of it or its end; here blocks of sentences change places, the cut
falls elsewhere and within a sentence, filler stands in front and between, single sentences are said twice. So an audit of a model
that learnt from these changes still says something.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from itertools import islice

from armorm.conversation import Message, last_question
from armorm.data.made.prose import (
    WORD,
    Sentences,
    has_words,
    is_bullets,
    is_code,
    is_english,
    is_finished,
    is_refusal,
    is_unspaced,
    sentences_of,
)

TEXTS: Mapping[str, Sequence[str]] = json.loads(resources.files(__package__).joinpath("texts.json").read_text("utf-8"))
"""What the changes put into answers, in English; {prompt} stands for the prompt."""
FEWEST_SENTENCES, FEWEST_WORDS = 3, 12
"""Of an answer that is put out of order; of one that is cut."""
ANSWERS_SOMETHING = 4
"""Words below which an answer may fit many prompts."""
LONGEST_ECHO = 800
"""Letters of a prompt that is repeated."""
_SENSITIVE = re.compile(
    r"\b(?:abus|assassin|attack|bomb|blackmail|bleach|bully|child porn|cocaine|counterfeit|crack|dead|death|deepfake|die|dox|"
    r"drug|explo(?:de|siv)|fake|forge|fraud|gun|hack|harass|hate|hijack|heroin|hurt|illegal|insult|kidnap|kill|launder|malware|"
    r"meth\b|murder|naked|nazi|nude|phish|pirat|poison|porn|racis|ransom|rape|rob\b|robbing|scam|self-?harm|sex|shoot|slur|smuggl|"
    r"spy|stalk|steal|stole|suicid|terror|threat|tortur|traffick|violen|virus|weapon)",
    re.IGNORECASE,
)


class Reason(Enum):
    """Why nothing is made of an answer."""

    TEST_PROMPT = "test-prompt"
    REPEATED = "repeated"
    TOOLS = "tools"
    TOO_SHORT = "too-short"
    FEW_SENTENCES = "few-sentences"
    BULLETS = "bullets"
    CODE = "code"
    UNFINISHED = "unfinished"
    REFUSES = "refuses"
    NO_OTHER_PROMPT = "no-other-prompt"
    NOT_HARMLESS = "not-harmless"
    SAFETY_PROMPT = "safety-prompt"
    SENSITIVE = "sensitive"
    OTHER_LANGUAGE = "other-language"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Case:
    """An answer in its context; `other` is the answer to another prompt, empty as long as none is drawn."""

    context: Sequence[Message]
    answer: str
    other: str = ""

    @property
    def question(self) -> str:
        return last_question(self.context)

    @property
    def sentences(self) -> Sentences:
        """The answer's sentences."""
        return sentences_of(self.answer.strip())

    @property
    def english(self) -> bool:
        return is_english(f"{self.question[:2000]} {self.answer[:2000]}")


Change = Callable[[Case, random.Random], str | Reason]


def answer_something_else(case: Case, _: random.Random) -> str | Reason:
    """Another prompt's answer in place of the own one."""
    if not has_words(case.answer, ANSWERS_SOMETHING):
        return Reason.TOO_SHORT
    return Reason.REFUSES if is_refusal(case.answer) else case.other


# -- order ------------------------------------------------------------------------------------------------------------------


def put_out_of_order(case: Case, draw: random.Random) -> str | Reason:
    """The answer's sentences from the last to the first, every other one first, or blocks of them in another order."""
    if is_code(case.answer):
        return Reason.CODE
    if is_bullets(case.answer):
        return Reason.BULLETS
    found = case.sentences
    if len(set(found.texts)) < FEWEST_SENTENCES:
        return Reason.FEW_SENTENCES
    orders = [found.texts[::-1], found.texts[1::2] + found.texts[::2], _blocks(found.texts, draw)]
    draw.shuffle(orders)
    return next((found.joined(order) for order in orders if order != found.texts), Reason.UNCHANGED)


def _blocks(texts: tuple[str, ...], draw: random.Random) -> tuple[str, ...]:
    first, second = sorted(draw.sample(range(1, len(texts)), 2))
    one, two, three = texts[:first], texts[first:second], texts[second:]
    return draw.choice([three + one + two, three + two + one, two + three + one])


# -- a cut ------------------------------------------------------------------------------------------------------------------


def cut_short(case: Case, draw: random.Random) -> str | Reason:
    """The answer up to a place within a sentence: early or late, in a word or behind one; or its first words alone."""
    text = case.answer.strip()
    if not has_words(text, FEWEST_WORDS):
        return Reason.TOO_SHORT
    if not is_finished(text):
        return Reason.UNFINISHED
    form = draw.choice(["opening", "in-word", "behind-word", "in-word", "behind-word"])
    if form == "opening":
        return text[: list(islice(WORD.finditer(text), draw.randint(3, 6)))[-1].end()]
    share = draw.choice([draw.uniform(0.1, 0.4), draw.uniform(0.6, 0.9)])
    start = int(len(text) * share)
    places = [i for i in range(max(start, 1), min(start + 80, len(text) - 1)) if _is_cut(text, i, within=form == "in-word")]
    return text[: places[0]] if places else Reason.TOO_SHORT


def _is_cut(text: str, place: int, *, within: bool) -> bool:
    # Whether a cut here is seen: behind a letter, with more of the sentence to come.
    before, behind = text[place - 1], text[place]
    return before.isalpha() and (behind.isalpha() if within else behind.isspace() or behind in ",，、" or is_unspaced(before))


# -- padding ----------------------------------------------------------------------------------------------------------------


def pad(case: Case, draw: random.Random) -> str | Reason:
    """Filler in front of the answer and between its sentences, sentences said twice, its beginning said once more, or the
    prompt repeated; in other languages than English what needs no words of ours."""
    if is_code(case.answer):
        return Reason.CODE
    if not has_words(case.answer, ANSWERS_SOMETHING):
        return Reason.TOO_SHORT
    forms = [_say_twice, _say_again] if len(case.sentences) > 1 else []
    if case.english:
        echo = [_echo] if 0 < len(case.question.strip()) <= LONGEST_ECHO else []
        forms = [_fill_front, _fill_between, *forms, *echo]
    return draw.choice(forms)(case, draw) if forms else Reason.FEW_SENTENCES


def _fill_front(case: Case, draw: random.Random) -> str:
    return f"{' '.join(draw.sample(TEXTS['fillers'], draw.randint(2, 4)))}\n\n{case.answer.lstrip()}"


def _fill_between(case: Case, draw: random.Random) -> str:
    found = case.sentences
    texts = list(found.texts)
    for filler in draw.sample(TEXTS["fillers"], draw.randint(3, 6)):
        place = draw.randrange(len(texts))
        texts[place] = f"{filler} {texts[place]}"
    return found.joined(texts)


def _say_twice(case: Case, draw: random.Random) -> str:
    found = case.sentences
    most = max(len(found) // 2, 1)
    twice = set(draw.sample(range(len(found)), draw.randint(max(most // 2, 1), most)))
    return found.joined([_behind_each_other([text, text]) if i in twice else text for i, text in enumerate(found.texts)])


def _say_again(case: Case, draw: random.Random) -> str:
    again = case.sentences.texts[: draw.randint(1, max(len(case.sentences) // 2, 1))]
    opening = f"{draw.choice(TEXTS['restatements'])} " if case.english else ""
    return f"{case.answer.rstrip()}\n\n{opening}{_behind_each_other(again)}"


def _behind_each_other(sentences: Sequence[str]) -> str:
    return ("" if is_unspaced(sentences[0]) else " ").join(sentences)


def _echo(case: Case, draw: random.Random) -> str:
    echo = draw.choice(TEXTS["echoes"]).replace("{prompt}", case.question.strip())
    answer = case.answer.strip()
    return draw.choice([f"{echo}\n\n{answer}", f"{answer}\n\n{echo}"])


# -- a refusal --------------------------------------------------------------------------------------------------------------


def refuse(case: Case, draw: random.Random) -> str | Reason:
    """A refusal in place of the answer, in English, where the prompt has no word of a list and the answer is no refusal."""
    if not case.english:
        return Reason.OTHER_LANGUAGE
    if any(_SENSITIVE.search(m["content"]) for m in case.context):
        return Reason.SENSITIVE
    return Reason.REFUSES if is_refusal(case.answer) else draw.choice(TEXTS["refusals"])
