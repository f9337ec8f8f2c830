"""Rated sets: records as published → rows, with every quirk counted."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.conversation import fault_in, prompt_group
from armorm.data.files import Record
from armorm.data.reading import stream_ratings
from armorm.data.sources.place import files_at
from armorm.data.sources.ratings.ultrafeedback import BY_ASPECT
from armorm.data.sources.read import source_ratings
from armorm.data.sources.registry import RELEASED_ORDER, objectives_of, rating_source, rating_sources
from armorm.objectives import Direction, Objectives, ScaleMap


def write(folder, name, rows):
    """Rows as a file of the kind that the name ends in, with its folders."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


def turns(*texts):
    return [{"content": t, "role": ("user", "assistant")[i % 2]} for i, t in enumerate(texts)]


def read(name, folder):
    return source_ratings(rating_source(name), path=str(folder)).read()


def said(row):
    """A row's texts by role, and its ratings."""
    return "|".join(f"{m['role'][0]}:{m['content']}" for m in row.messages), dict(row.ratings)


def counts(found):
    return found.faults.counts, found.faults.skipped, found.faults.notes


# HelpSteer and HelpSteer2


def steered(prompt, response, *five):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, five, strict=True))}


def five(name, *values):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {f"{name}-{a}": float(v) for a, v in zip(names, values, strict=True) if v is not None}


def test_helpsteer(tmp_path):
    rows = [
        steered("Why?", "Because.", 3, 3, 4, 2, 0),
        steered("Why?", "No idea.", 0, None, 4, 1, 1),
        steered("Why?", "Because.", 3, 3, 4, 2, 0),
        steered("Why?", "Off.", 5, 3, 4, 2, 0),
        steered("Why?", "Unrated.", None, None, None, None, None),
        {**steered("Why?", "", 1, 1, 1, 1, 1), "response": None},
        {**steered("Why?", "", 1, 1, 1, 1, 1), "prompt": ["Why?"]},
    ]
    folder = write(tmp_path, "train.jsonl.gz", rows)
    write(tmp_path, "validation.jsonl.gz", [steered("Not", "this", 0, 0, 0, 0, 0)])
    found = read("helpsteer", folder)
    assert [said(r) for r in found.rows] == [
        ("u:Why?|a:Because.", five("helpsteer", 3, 3, 4, 2, 0)),
        ("u:Why?|a:No idea.", five("helpsteer", 0, None, 4, 1, 1)),
    ]
    assert counts(found) == (
        {"rating-off-scale": 1, "no-rating": 1, "missing-field": 1, "not-text": 1},
        {"repeated": 1},
        {},
    )
    assert found.total == 7
    assert (found.rows[0].id, found.rows[0].group) == ("helpsteer-1", prompt_group(turns("why")))
    assert any("'response'" in e for e in found.faults.examples)
    assert any("'prompt'" in e for e in found.faults.examples)


def test_helpsteers_scale_is_that_of_the_released_model():
    objectives = Objectives(rating_source("helpsteer").objectives)
    assert [o.direction for o in objectives] == [Direction.HIGHER] * 4 + [Direction.NEUTRAL]
    units = objectives.to_unit(np.repeat(np.arange(5.0)[:, None], 5, axis=1))
    np.testing.assert_allclose(units, np.repeat([[0.1], [0.3], [0.5], [0.7], [0.9]], 5, axis=1))


def test_helpsteer2_conversations_are_taken_apart(tmp_path):
    several = "First?\n<extra_id_1>Assistant\nYes.\n\nIndeed.\n<extra_id_1>User\nSecond?"
    rows = [
        steered("One?", "One.", 4, 4, 4, 0, 0),
        steered(several, "Two.", 1, 2, 3, 4, 0),
        steered("One?\n<extra_id_1>System\nHm.", "Three.", 1, 2, 3, 4, 0),
        steered("One?\n<extra_id_1>Assistant\nYes.", "Four.", 1, 2, 3, 4, 0),
        steered("One?\n<extra_id_1>Assistant\n\n<extra_id_1>User\nTwo?", "Five.", 1, 2, 3, 4, 0),
        {"response": "No prompt."},
    ]
    write(tmp_path, "train.jsonl.gz", rows)
    write(tmp_path, "preference/preference.jsonl.gz", [{"split": "train", "prompt": "not this"}])
    found = read("helpsteer2", tmp_path)
    assert [said(r) for r in found.rows] == [
        ("u:One?|a:One.", five("helpsteer2", 4, 4, 4, 0, 0)),
        ("u:First?|a:Yes.\n\nIndeed.|u:Second?|a:Two.", five("helpsteer2", 1, 2, 3, 4, 0)),
        ("u:One?|a:Yes.|a:Four.", five("helpsteer2", 1, 2, 3, 4, 0)),
    ]
    assert counts(found) == (
        {"unknown-role": 1, "empty-turn": 1, "missing-field": 1},
        {},
        {"flattened-turns": 3},
    )


# UltraFeedback


def completion(response, ratings, overall=7.0, **more):
    """`ratings`: instruction following, truthfulness, honesty, helpfulness, each a text or None."""
    following, truthful, honest, helpful = ratings
    aspect = {"Rationale": "So.", "Rationale For Rating": None, "Type": None}
    return {
        "model": "m",
        "principle": "honesty",
        "custom_system_prompt": "Be honest.",
        "response": response,
        "annotations": {
            "instruction_following": None if following is None else {"Rating": following, **aspect},
            "truthfulness": None if truthful is None else {"Rating": truthful, **aspect},
            "honesty": None if honest is None else {"Rating": honest, **aspect},
            "helpfulness": None if helpful is None else {"Rating": helpful, **aspect},
        },
        "overall_score": overall,
        "critique": "Good.",
        "fine-grained_score": 4.0,
    }


def prompted(instruction, *completions, source="evol_instruct"):
    return {
        "source": source,
        "instruction": instruction,
        "models": ["m"] * len(completions),
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        "completions": list(completions),
    }


def ultra(overall=None, following=None, truthful=None, honest=None, helpful=None):
    values = {
        "overall_score": overall,
        "instruction_following": following,
        "truthfulness": truthful,
        "honesty": honest,
        "helpfulness": helpful,
    }
    return {f"ultrafeedback-{name}": float(v) for name, v in values.items() if v is not None}


ULTRAFEEDBACK = [
    prompted(
        "Plain?",
        completion("A", "4535", 7.5),
        completion("B", ("N/A", "3", " 4 ", "2"), 1.0),
        completion("C", "5555", 10.0),
        completion("D", ("5", None, "4", "4"), 8.0),
    ),
    prompted(
        "Odd?",
        completion("bug", "2132", 10.0),
        completion("85/100", "4444", 85.0),
        completion("nought", "1111", 0.0),
        completion("no score", "3333", None),
    ),
    prompted("Few?", completion("only aspects", "2322", 10.0), completion("nothing", ("N/A", None, None, "N/A"), None)),
    prompted("Paris?", *(completion(t, "5544", 9.0) for t in "wxyz"), source="truthful_qa"),
    prompted("None at all?"),
]

ULTRAFEEDBACK_ROWS = [
    ("u:Plain?|a:A", ultra(7.5, 4, 5, 3, 5)),
    ("u:Plain?|a:B", ultra(1, None, 3, 4, 2)),
    ("u:Plain?|a:C", ultra(10, 5, 5, 5, 5)),
    ("u:Plain?|a:D", ultra(8, 5, None, 4, 4)),
    ("u:Odd?|a:bug", ultra(None, 2, 1, 3, 2)),
    ("u:Odd?|a:85/100", ultra(None, 4, 4, 4, 4)),
    ("u:Odd?|a:nought", ultra(None, 1, 1, 1, 1)),
    ("u:Odd?|a:no score", ultra(None, 3, 3, 3, 3)),
    ("u:Few?|a:only aspects", ultra(10, 2, 3, 2, 2)),
    *((f"u:Paris?|a:{t}", ultra(9, 5, 5, 4, 4)) for t in "wxyz"),
]

ULTRAFEEDBACK_NOTES = {
    "rating-na": 1,
    "overall-score-bug": 1,
    "overall-score-above-10": 1,
    "overall-score-below-1": 1,
    "fewer-than-four": 1,
    "truthful-qa": 4,
}


@pytest.mark.parametrize("name", ["evol_instruct.jsonl", "data.parquet"])
def test_ultrafeedback(tmp_path, name):
    found = read("ultrafeedback", write(tmp_path, name, ULTRAFEEDBACK))
    assert [said(r) for r in found.rows] == ULTRAFEEDBACK_ROWS
    assert counts(found) == ({}, {"unrated": 1, "no-answers": 1}, ULTRAFEEDBACK_NOTES)
    assert found.rows[5].id == "ultrafeedback-2-1"


def test_ultrafeedback_is_read_from_all_its_files(tmp_path):
    for name in ("evol_instruct", "flan"):
        write(tmp_path, f"{name}.jsonl", [prompted(f"{name}?", *(completion(t, "5555") for t in "abcd"))])
    assert [r.id for r in read("ultrafeedback", tmp_path).rows] == [
        f"ultrafeedback-{n}{i}" for n in ("1-", "2-1-") for i in range(4)
    ]


def test_ultrafeedbacks_faulty_records(tmp_path):
    good = completion("fine", "5555", 9.0)
    rows = [
        prompted("Whole?", good, "no object", {**good, "response": None}, {**good, "annotations": ["4"]}),
        prompted(
            "Aspects?",
            {**good, "annotations": {"honesty": "5"}},
            completion("off", "6555"),
            completion("word", ["good"] * 4),
            good,
        ),
        {**prompted("No list?"), "completions": None},
        {"completions": [good]},
    ]
    found = read("ultrafeedback", write(tmp_path, "flan.jsonl", rows))
    assert [said(r)[0] for r in found.rows] == ["u:Whole?|a:fine", "u:Aspects?|a:fine"]
    assert counts(found) == ({"missing-field": 6, "rating-off-scale": 1, "rating-not-a-number": 1}, {}, {})


def test_ultrafeedbacks_revision_is_the_corrected_one():
    assert rating_source("ultrafeedback").place.revision == "40b436560ca83a8dba36114c22ab3c66e43f6d5e"


# BeaverTails


def judged(response, is_safe, prompt="How to?"):
    return {"prompt": prompt, "response": response, "category": {"animal_abuse": False}, "is_safe": is_safe}


def test_beavertails_keeps_every_annotator(tmp_path):
    rows = [
        judged("Like so.", True),
        judged("Like so.", False),
        judged("Like so.", True),
        judged("I won't.", "safe"),
        judged("Never.", "unsafe"),
        judged("Hm.", None),
        judged("Well.", "perhaps"),
        {"prompt": "How to?", "is_safe": True},
    ]
    write(tmp_path, "round0/30k/train.jsonl.gz", rows)
    for other in ("30k/test.jsonl.gz", "330k/train.jsonl.gz", "330k/test.jsonl.gz"):
        write(tmp_path, f"round0/{other}", [judged("not this", True)])
    found = read("beavertails", tmp_path)
    assert [(said(r)[0], *r.ratings.values()) for r in found.rows] == [
        ("u:How to?|a:Like so.", 1.0),
        ("u:How to?|a:Like so.", 0.0),
        ("u:How to?|a:Like so.", 1.0),
        ("u:How to?|a:I won't.", 1.0),
        ("u:How to?|a:Never.", 0.0),
    ]
    assert counts(found) == ({"no-rating": 1, "rating-not-a-number": 1, "missing-field": 1}, {}, {"repeated": 1})
    assert len({r.group for r in found.rows}) == 1


@pytest.mark.parametrize("name", ["round0/30k/train.jsonl.gz", "30k/train.jsonl", "data/30k_train-00000-of-00001.parquet"])
def test_beavertails_files_are_found_in_every_layout(tmp_path, name):
    write(tmp_path, name, [judged("A", True)])
    write(tmp_path, name.replace("30k", "330k"), [judged("B", True)])
    write(tmp_path, name.replace("train", "test"), [judged("C", True)])
    assert files_at(rating_source("beavertails").place, str(tmp_path)) == [tmp_path / name]


# CodeUltraFeedback


def coded(instruction, preference, texts, ratings):
    """`texts` and `ratings`: model → response, model → rating, each in its own order."""
    return {
        "instruction": instruction,
        "preference": preference,
        "models": list(texts),
        "responses": [{"model": m, "response": t} for m, t in texts.items()],
        "annotations": [{"model": m, "rating": r, "rationale": "So."} for m, r in ratings.items()],
    }


CODE = [
    coded("Sort.", "readability", {"a": "A", "b": "B", "c": "C", "d": "D"}, {"c": "3", "a": "1", "d": "N/A", "b": "3"}),
    coded("Loop.", "instruction-following", {"a": "A", "b": "B"}, {"b": "5"}),
    coded("Add.", "style", {"a": "A", "b": "B"}, {}),
]


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "data/train.jsonl"])
def test_code_ultrafeedback_joins_ratings_by_model(tmp_path, name):
    found = read("code-ultrafeedback", write(tmp_path, name, CODE))
    assert [said(r) for r in found.rows] == [
        ("u:Sort.|a:A", {"code-readability": 1.0}),
        ("u:Sort.|a:B", {"code-readability": 3.0}),
        ("u:Sort.|a:C", {"code-readability": 3.0}),
        ("u:Loop.|a:B", {"code-instruction-following": 5.0}),
    ]
    assert counts(found) == ({}, {"unrated": 4}, {})


def test_code_ultrafeedbacks_faulty_records(tmp_path):
    twice = coded("Twice.", "style", {"a": "A", "b": "B"}, {"a": "1", "b": "2"})
    rows = [
        coded("What?", "beauty", {"a": "A"}, {"a": "1"}),
        {**twice, "annotations": [*twice["annotations"], {"model": "b", "rating": "4"}]},
        coded("Orphan.", "style", {"a": "A"}, {"a": "6", "z": "4"}),
        coded("No text.", "style", {"a": None}, {"a": "4"}),
        {**twice, "instruction": "No list.", "responses": {"a": "A"}, "annotations": []},
        {**twice, "instruction": "No models.", "annotations": ["1", {"rating": "2"}]},
        {**twice, "preference": None},
    ]
    found = read("code-ultrafeedback", write(tmp_path, "train.jsonl", rows))
    assert [said(r) for r in found.rows] == [("u:Twice.|a:A", {"code-style": 1.0})]
    assert counts(found) == (
        {"unknown-preference": 1, "duplicate-id": 1, "missing-field": 5, "rating-off-scale": 1, "not-text": 1},
        {"unrated": 3},
        {},
    )


# Capybara, OpenOrca, Argilla's mathematics


def compared(chosen, rejected, chosen_rating=5, rejected_rating=4):
    return {
        "source": "Airoboros",
        "chosen": chosen,
        "chosen_rating": chosen_rating,
        "chosen_model": "m",
        "rejected": rejected,
        "rejected_rating": rejected_rating,
        "rejected_model": "n",
    }


CAPYBARA = [
    compared(turns("A", "B", "C", "good"), turns("A", "B", "C", "bad"), 5, 2),
    compared(turns("X", "good"), turns("X", "bad"), 4, None),
]


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "train.jsonl"])
def test_capybara_gives_both_conversations(tmp_path, name):
    found = read("capybara", write(tmp_path, name, CAPYBARA))
    assert [said(r) for r in found.rows] == [
        ("u:A|a:B|u:C|a:good", {"argilla-overall_quality": 5.0}),
        ("u:A|a:B|u:C|a:bad", {"argilla-overall_quality": 2.0}),
        ("u:X|a:good", {"argilla-overall_quality": 4.0}),
    ]
    assert counts(found) == ({}, {"unrated": 1}, {})
    assert [r.id for r in found.rows] == ["capybara-1-chosen", "capybara-1-rejected", "capybara-2-chosen"]


def test_capybaras_faulty_records(tmp_path):
    rows = [
        compared(turns("A", "B"), None),
        compared(turns("A", "B", "C"), turns("A", "C"), 5, 6),
        compared("text", [{"role": "human", "content": "A"}]),
    ]
    found = read("capybara", write(tmp_path, "train.jsonl", rows))
    assert [said(r)[0] for r in found.rows] == ["u:A|a:B"]
    assert counts(found) == ({"missing-field": 2, "no-answer": 1, "rating-off-scale": 1, "unknown-role": 1}, {}, {})


def orca(generations, rating, chosen, rejected, **more):
    score = max(rating) if rating and None not in rating else None
    fields = {"system": "Be kind.", "input": "Why?", "order": ["chosen", "rejected"], "status": "unchanged"}
    return {
        **fields,
        "generations": generations,
        "rating": rating,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": score,
        **more,
    }


ORCA = [
    orca(["good", "bad"], [9.0, 7.5], "good", "bad", order=["rejected", "chosen"]),
    orca(["bad", "good"], [1.0, 8.0], "good ", "bad", system="", status="swapped"),
    orca(["one", "two"], [8.0, 8.0], "two", "one", system="", status="tie"),
    orca(["x", "y"], None, "x", "y"),
]


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "train.jsonl"])
def test_openorca_rates_generations(tmp_path, name):
    found = read("openorca", write(tmp_path, name, ORCA))
    assert [(said(r)[0], *r.ratings.values()) for r in found.rows] == [
        ("s:Be kind.|u:Why?|a:good", 9.0),
        ("s:Be kind.|u:Why?|a:bad", 7.5),
        ("u:Why?|a:bad", 1.0),
        ("u:Why?|a:good", 8.0),
        ("u:Why?|a:one", 8.0),
        ("u:Why?|a:two", 8.0),
    ]
    assert set(found.rows[0].ratings) == {"argilla-judge_lm"}
    assert counts(found) == ({}, {"unrated": 1}, {"empty-system": 4})


def test_openorca_records_that_contradict_themselves(tmp_path):
    rows = [
        orca(["good", "bad"], [7.0, 9.0], "good", "bad"),
        orca(["good", "bad"], [9.0, 7.0], "good", "bad", chosen_score=7.0),
        orca(["good", "other"], [9.0, 7.0], "good", "bad"),
        orca(["good", "bad"], [9.0], "good", "bad"),
        orca(["good", None], [9.0, 7.0], "good", "bad"),
        orca(["good", "bad"], [11.0, None], "good", "bad"),
        orca(["good", "bad"], [9.0, 7.0], None, "bad"),
        orca(["good", "bad"], [9.0, 7.0], "good", "bad", input=None),
    ]
    found = read("openorca", write(tmp_path, "train.jsonl", rows))
    assert found.rows == ()
    assert counts(found) == ({"ratings-mismatch": 3, "missing-field": 4, "rating-off-scale": 1}, {"unrated": 1}, {})


def sums(instruction, chosen, rejected, chosen_rating, rejected_rating):
    return {
        "metadata": "{}",
        "instruction": instruction,
        "chosen_response": chosen,
        "chosen_rating": chosen_rating,
        "rejected_response": rejected,
        "rejected_rating": rejected_rating,
    }


def test_argilla_math_rates_ultrafeedbacks_instruction_following(tmp_path):
    rows = [
        sums("2+2?", "4", "5", 5.0, 1.0),
        sums("3+3?", "6", "7", "N/A", None),
        sums("4+4?", "8", None, 6, 1),
    ]
    found = read("argilla-math", write(tmp_path, "data/train-0.jsonl", rows))
    name = "ultrafeedback-instruction_following"
    assert [said(r) for r in found.rows] == [("u:2+2?|a:4", {name: 5.0}), ("u:2+2?|a:5", {name: 1.0})]
    assert counts(found) == ({"rating-off-scale": 1, "missing-field": 1}, {"unrated": 2}, {})
    assert rating_source("argilla-math").objectives == (BY_ASPECT["instruction_following"],)


# All of the released model's sets together

PAPER = ("helpsteer", "ultrafeedback", "beavertails", "code-ultrafeedback", "prometheus", "capybara", "openorca", "argilla-math")


def test_the_eight_sets_fill_the_released_models_columns(tmp_path):
    codes = ("complexity", "style", "explanation", "instruction-following", "readability")
    files = {
        "helpsteer": ("train.jsonl", [steered("H?", "h", 0, 1, 2, 3, 4)]),
        "ultrafeedback": ("flan.jsonl", [prompted("U?", *(completion(t, ("1", "2", "N/A", "4"), 9.0) for t in "abcd"))]),
        "beavertails": ("round0/30k/train.jsonl.gz", [judged("b", False)]),
        "code-ultrafeedback": (
            "data/train-0.parquet",
            [coded(f"{p}.", p, {"a": "A"}, {"a": str(i + 1)}) for i, p in enumerate(codes)],
        ),
        "prometheus": ("new_feedback_collection.json", [{"orig_instruction": "P?", "orig_response": "p", "orig_score": "3"}]),
        "capybara": ("data/train-0.parquet", [compared(turns("C?", "c"), turns("C?", "d"), 5, 2)]),
        "openorca": ("data/train-0.parquet", [orca(["o", "q"], [10.0, 1.0], "o", "q")]),
        "argilla-math": ("data/train-0.parquet", [sums("M?", "m", "n", 4.0, 3.0)]),
    }
    assert tuple(files) == PAPER
    objectives = objectives_of(PAPER)
    assert objectives.names == RELEASED_ORDER
    labels = []
    for name, (file, rows) in files.items():
        stream = source_ratings(rating_source(name), path=str(write(tmp_path / name, file, rows)), objectives=objectives)
        labels += [objectives.row(r.ratings) for r in stream]
        assert not stream.faults.drops, name
    nan = math.nan
    expected = np.full((17, 19), nan)
    expected[0, :5] = [0, 1, 2, 3, 4]
    expected[1:5, 5:10] = [9, 1, 2, nan, 4]
    expected[5, 10] = 0
    expected[range(6, 11), range(14, 19)] = [1, 2, 3, 4, 5]
    expected[11, 11] = 3
    expected[12:14, 12] = [5, 2]
    expected[14:16, 13] = [10, 1]
    expected[16:, 6] = [4]
    expected = np.vstack([expected, np.where(np.arange(19) == 6, 3.0, nan)])
    np.testing.assert_array_equal(np.array(labels), expected)
    units = objectives.to_unit(np.array(labels))
    seen = units[~np.isnan(units)]
    assert (seen >= 0).all()
    assert (seen <= 1).all()
    np.testing.assert_allclose(units[1, 5], 0.85)  # 9 on 1–10
    np.testing.assert_allclose(units[5, 10], 0.0)


def test_integer_scales_are_mapped_by_bin_centres_and_safety_by_its_ends():
    for objective in objectives_of(set(PAPER) - {"prometheus"}):
        ends = objective.name == "beavertails-is_safe"
        assert objective.scale_map is (ScaleMap.END_POINTS if ends else ScaleMap.BIN_CENTRES), objective.name


# Whatever a file may hold

MINE = ("helpsteer", "helpsteer2", "ultrafeedback", "beavertails", "code-ultrafeedback", "capybara", "openorca", "argilla-math")
PLAIN = {
    "helpsteer": steered("H?", "h", 0, 1, 2, 3, 4),
    "helpsteer2": steered("H?\n<extra_id_1>Assistant\nA\n<extra_id_1>User\nB", "h", 0, 1, 2, 3, 4),
    "ultrafeedback": prompted("U?", completion("a", "1234", 10.0), completion("b", ("N/A", None, "2", "3"))),
    "beavertails": judged("b", False),
    "code-ultrafeedback": coded("Code.", "style", {"a": "A", "b": "B"}, {"b": "1", "a": "2"}),
    "capybara": compared(turns("C?", "c"), turns("C?", "d"), 5, 2),
    "openorca": orca(["o", "q"], [10.0, 1.0], "o", "q"),
    "argilla-math": sums("M?", "m", "n", 4.0, 3.0),
}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 11)
    | st.floats()
    | st.sampled_from(["", " ", "N/A", "nan", "1e999", "5", "style", "<extra_id_1>", "\ud800", 10**400])
    | st.text(max_size=5)
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6
)


@st.composite
def near(draw, value):
    """The value with some of its parts replaced by anything."""
    if draw(st.integers(0, 7)) == 7:
        return draw(JSON)
    if isinstance(value, dict):
        return {k: draw(near(v)) for k, v in value.items() if draw(st.integers(0, 9)) < 9}
    if isinstance(value, list):
        return [draw(near(v)) for v in value]
    return value


def records_near(data, plain):
    """Records that hold anything, some of them under the set's own fields."""
    anything = st.dictionaries(st.sampled_from(sorted(plain)) | st.text(max_size=3), JSON, max_size=8)
    some = st.lists(near(plain).filter(lambda v: isinstance(v, dict)) | anything, min_size=1, max_size=4)
    return [Record(i, values, "f.jsonl") for i, values in enumerate(data.draw(some), start=1)]


@pytest.mark.parametrize("name", MINE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_record_holds_is_a_row_or_counted(name, data):
    records = records_near(data, PLAIN[name])
    source = rating_source(name)
    objectives = Objectives(source.objectives)
    stream = stream_ratings(source.unfold(records), source=name, objectives=objectives, where="f", repeats=source.repeats)
    rows = list(stream)
    assert len(rows) + sum(stream.faults.drops.values()) == stream.total >= len(records)
    for row in rows:
        assert fault_in(row.messages) is None
        for objective, rating in row.ratings.items():
            assert objectives[objectives.column(objective)].raw(rating) == rating


def test_a_record_without_any_answer_is_counted():
    source = rating_source("code-ultrafeedback")
    record = Record(1, {**PLAIN["code-ultrafeedback"], "responses": [], "annotations": []}, "f")
    stream = stream_ratings(source.unfold([record]), source="s", objectives=Objectives(source.objectives), where="f")
    assert (list(stream), stream.total, dict(stream.faults.drops)) == ([], 1, {"missing-field": 1})


def test_a_plain_record_of_each_set_is_read_without_a_fault():
    assert set(MINE) == set(PLAIN) < set(rating_sources())
    for name, values in PLAIN.items():
        source = rating_source(name)
        stream = stream_ratings(
            source.unfold([Record(1, values, "f")]), source=name, objectives=Objectives(source.objectives), where="f"
        )
        assert list(stream), name
        assert not stream.faults.drops, name


@pytest.mark.parametrize("name", MINE)
def test_the_facts_of_a_source_name_its_objectives(name):
    source = rating_source(name)
    assert source.rows > 1000
    assert source.licence
    assert source.rater
    assert all(o.source and o.rater and o.licence for o in source.objectives)
