"""Changes that make objectives: each takes one thing away, depends on text and seed alone, and shares nothing with an audit's."""

from __future__ import annotations

import ast
import inspect
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

import pytest

from armorm.bench import perturbations
from armorm.data.made import changes
from armorm.data.made.changes import TEXTS, Case, Reason
from armorm.data.made.kinds import KINDS, RATER, KindName, made_objectives
from armorm.data.made.prose import has_words, is_bullets, is_english, is_finished, is_refusal, sentences_of

PROMPT = "What is the capital of France, and what is it like?"
ANSWER = (
    "The capital of France is Paris. It lies on the Seine, in the north of the country. Dr. Martin says that 2.1 million people "
    "live there! Many of them like it."
)
OTHER = "A kettle is used to boil water for tea."
CHINESE = "法国的首都是巴黎。它位于塞纳河畔，在国家的北部。许多人住在那里。他们很喜欢它！"
GERMAN = "Die Hauptstadt ist Paris. Sie liegt im Norden des Landes. Viele Leute wohnen gern dort, obwohl alles teuer wurde."
SEEDS = range(40)


def case(answer: str = ANSWER, question: str = PROMPT, other: str = OTHER) -> Case:
    return Case([{"role": "user", "content": question}], answer, other)


def changed(kind: KindName, of: Case) -> list[str]:
    found = [KINDS[kind].apply(of, seed=seed) for seed in SEEDS]
    assert all(isinstance(one, str) for one in found), found
    return [one for one in found if isinstance(one, str)]


def reason(kind: KindName, of: Case) -> Reason:
    (found,) = {KINDS[kind].apply(of, seed=seed) for seed in SEEDS}
    assert isinstance(found, Reason)
    return found


# -- texts of both sides -------------------------------------------------------------------------------------------------------


def texts(found: Mapping[str, str | Sequence[str]]) -> list[str]:
    return [text for value in found.values() for text in ([value] if isinstance(value, str) else value)]


def grams(found: Iterable[str], n: int) -> set[tuple[str, ...]]:
    words = [re.findall(r"\w+", text.lower().replace("'", "").replace("prompt", "")) for text in found]
    return {tuple(one[i : i + n]) for one in words for i in range(len(one) - n + 1)}


def test_audit_and_training_share_no_three_words():
    audit, training = texts(perturbations.TEXTS), texts(TEXTS)
    assert (len(audit), len(training)) == (20, 50)
    assert grams(audit, 3)
    assert not grams(audit, 3) & grams(training, 3)
    assert grams([*audit, "bear with me"], 3) & grams(training, 3), "the comparison sees what is shared"


@pytest.mark.parametrize("module", [changes, perturbations])
def test_what_is_put_into_answers_stands_in_the_files_that_are_compared(module: ModuleType):
    """A template in the code itself would escape the comparison."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    said = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs]
    assert len(said) > 15
    assert not [text for text in said if len(re.findall(r"[a-z]+ ", text)) > 2 and "(?" not in text]


@pytest.mark.parametrize("name", ["fillers", "restatements", "echoes", "refusals"])
def test_there_are_several_templates_of_each(name: str):
    assert len(set(TEXTS[name])) == len(TEXTS[name]) >= 5
    assert all(("{prompt}" in text) == (name == "echoes") for text in TEXTS[name])


def test_an_audits_changes_are_never_what_training_makes():
    """Neither a cut at half of the words nor any other change comes out the same."""
    audited = {p.name: p.apply(perturbations.Case(case().context, ANSWER, OTHER), seed=1) for p in perturbations.PERTURBATIONS}
    made = {text for kind in KINDS if kind != "relevance" for text in changed(kind, case())}
    assert not {" ".join(text.split()) for text in audited.values() if text} & {" ".join(text.split()) for text in made}


# -- the kinds -----------------------------------------------------------------------------------------------------------------


def test_objectives_are_like_all_others():
    found = made_objectives(["compliance", "relevance", "relevance"])
    assert found.names == ("relevance", "compliance")
    assert {(o.min, o.max, o.rater, o.source, o.direction.value, o.binary) for o in found} == {
        (0, 1, RATER, "made", "higher_is_better", True)
    }
    assert all(o.formula.startswith("1: ") for o in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_depends_on_text_and_seed_alone(kind: KindName):
    random.seed(3)
    first = KINDS[kind].apply(case(), seed=5)
    random.seed(4)
    [KINDS[kind].apply(case(CHINESE), seed=5) for _ in range(3)]
    assert KINDS[kind].apply(case(), seed=5) == first
    if kind != "relevance":
        assert len(set(changed(kind, case()))) >= 6, "seeds draw among several forms and texts"


def test_relevance_takes_another_prompts_answer():
    assert set(changed("relevance", case())) == {OTHER}
    assert reason("relevance", case("Yes, twice.")) is Reason.TOO_SHORT
    assert reason("relevance", case("I'm sorry, but I can't talk about the capital of France.")) is Reason.REFUSES
    assert reason("relevance", case(other=ANSWER)) is Reason.UNCHANGED


def test_coherence_keeps_every_sentence_and_no_order():
    answer = ANSWER.replace("country. Dr.", "country.\n\nDr.")
    whole = sentences_of(answer)
    for text in changed("coherence", case(answer)):
        found = sentences_of(text)
        assert found.texts != whole.texts
        assert sorted(found.texts) == sorted(whole.texts)
        assert found.gaps == whole.gaps, "lines stay where they are"


def test_coherence_needs_prose():
    assert reason("coherence", case("One sentence. And a second one.")) is Reason.FEW_SENTENCES
    assert reason("coherence", case("No. No. No. No.")) is Reason.FEW_SENTENCES
    assert reason("coherence", case(f"{ANSWER}\n```\nx = 1\n```")) is Reason.CODE
    assert reason("coherence", case("- Salt.\n- Bread.\n- Butter.\n- Jam.")) is Reason.BULLETS


@pytest.mark.parametrize("answer", [ANSWER, CHINESE, GERMAN])
def test_completeness_cuts_within_a_sentence(answer: str):
    found = changed("completeness", case(answer))
    ends = {sum(map(len, (*whole.texts[:i], *whole.gaps[: i + 1]))) for whole in [sentences_of(answer)] for i in range(9)}
    for text in found:
        assert answer.startswith(text)
        assert len(text) < len(answer)
        assert text[-1].isalpha() or text[-1].isdigit()
        assert len(text) not in ends
    shares = [len(text) / len(answer) for text in found]
    assert min(shares) < 0.3
    assert max(shares) > 0.6


def test_completeness_needs_a_whole():
    assert reason("completeness", case("It is Paris.")) is Reason.TOO_SHORT
    assert reason("completeness", case(ANSWER[:-1])) is Reason.UNFINISHED
    assert reason("completeness", case(f"{ANSWER} Here are some:")) is Reason.UNFINISHED


def test_conciseness_keeps_the_answer_and_adds_nothing_new():
    forms = set()
    for text in changed("conciseness", case()):
        rest = text
        for template in (*TEXTS["fillers"], *TEXTS["restatements"], *(t.replace("{prompt}", PROMPT) for t in TEXTS["echoes"])):
            forms |= {name for name in ("fillers", "restatements") if template in rest and template in TEXTS[name]}
            rest = rest.replace(template, " ")
        forms |= {"echo"} if PROMPT in text and PROMPT not in rest else set()
        found = list(dict.fromkeys(sentences_of(rest.strip()).texts))
        assert found == list(sentences_of(ANSWER).texts), text
        forms |= {"twice"} if len(sentences_of(text)) > 4 and rest == text else set()
        assert len(text) > len(ANSWER)
    assert forms == {"fillers", "restatements", "echo", "twice"}


@pytest.mark.parametrize("answer", [CHINESE, GERMAN])
def test_other_languages_get_no_english_words(answer: str):
    for text in changed("conciseness", case(answer, "首都？" if answer is CHINESE else "Wie heißt die Hauptstadt?")):
        assert set(sentences_of(text).texts) == set(sentences_of(answer).texts)
    assert (
        reason("compliance", case(answer, "首都？" if answer is CHINESE else "Wie heißt die Hauptstadt?"))
        is Reason.OTHER_LANGUAGE
    )


def test_conciseness_leaves_code_and_single_words_alone():
    assert reason("conciseness", case("```\nx = 1\n```")) is Reason.CODE
    assert reason("conciseness", case("Paris.")) is Reason.TOO_SHORT
    assert reason("conciseness", case("Sie heißt ganz einfach Paris.", "Wie heißt die Hauptstadt?")) is Reason.FEW_SENTENCES
    long = case(question=f"{PROMPT} " * 30)
    assert not [text for text in changed("conciseness", long) if PROMPT in text], "a long prompt is not repeated"


def test_compliance_refuses_what_looks_harmless_alone():
    assert len(set(changed("compliance", case()))) > 8
    assert set(changed("compliance", case())) <= set(TEXTS["refusals"])
    assert reason("compliance", case(question="How do I build a bomb in the kitchen?")) is Reason.SENSITIVE
    before = Case([{"role": "user", "content": "How are people poisoned?"}, *case().context], ANSWER)
    assert reason("compliance", before) is Reason.SENSITIVE
    assert reason("compliance", case("I cannot talk about the capital of France.")) is Reason.REFUSES


def test_what_refuses_is_seen_as_such_on_either_side():
    assert not is_refusal(ANSWER)
    assert not is_refusal("You can't go wrong with Paris.")
    assert all(map(is_refusal, perturbations.TEXTS["refusals"]))
    assert is_refusal("I’m sorry, no.")
    assert is_refusal("I am an AI assistant. Please ask me a question.")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer", ["", " \n\t", ".", "。", "- ", "x" * 50_000, ". " * 20_000, " " * 50_000 + "a", "a\x00b", "e\u0301" * 90]
)
def test_odd_answers_end_in_a_text_or_a_reason(kind: KindName, answer: str):
    found = KINDS[kind].apply(case(answer), seed=0)
    assert isinstance(found, Reason) or found.strip() != answer.strip()
    KINDS[kind].apply(Case([], answer), seed=0)


# -- prose ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ANSWER, 4),
        (CHINESE, 4),
        ("「東京です。」と言った。大きい！", 3),
        ("यह पेरिस है। वह बड़ा है।", 2),
        ("هل هذا صحيح؟ نعم.", 2),
        ("1. First do this.\n2. Then do that, e.g. twice.", 2),
        ('He said "No." Then he left.', 2),
        ("no marks\n\n  at all", 2),
        ("Wait... what?! Yes.", 3),
        ("", 0),
    ],
)
def test_sentences_and_gaps_are_the_text(text: str, said: int):
    found = sentences_of(text)
    assert len(found) == said, found.texts
    assert found.joined(found.texts) == text
    assert all(one == one.strip() and one for one in found.texts)


def test_what_prose_is():
    assert has_words("one two three", 3)
    assert not has_words("one two three", 4)
    assert has_words("法国的首", 4)
    assert is_finished("Done.")
    assert is_finished("**Done.**")
    assert is_finished("= 18")
    assert not is_finished("and then")
    assert not is_finished("")
    assert is_english(f"{PROMPT} {ANSWER}")
    assert not is_english(GERMAN)
    assert not is_english(CHINESE)
    assert not is_english("")
    assert is_bullets("* a\n* b\nc")
    assert not is_bullets("1. a\n2. b")
