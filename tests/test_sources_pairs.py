from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armorm.data.files import BadRecord, Record
from armorm.data.reading import stream_pairs, stream_ratings
from armorm.data.sources.read import source_pairs, source_ratings
from armorm.data.sources.registry import RELEASED_ORDER, pair_source, rating_source
from armorm.errors import DataError
from armorm.objectives import Direction, Objectives, ScaleMap


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "wt", encoding="utf-8") as out:
            if path.suffix == ".json":
                json.dump(rows, out)
            else:
                out.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def pairs_in(name, folder, rows, file="data/train-00000-of-00001.parquet", **place):
    """The set's own folder layout, and what its reader makes of it."""
    write(folder / file, rows)
    source = pair_source(name)
    source = dataclasses.replace(source, place=dataclasses.replace(source.place, **place))
    return source_pairs(source, path=str(folder)).read()


def ratings_in(name, folder, rows, file):
    write(folder / file, rows)
    return source_ratings(rating_source(name), path=str(folder)).read()


def said(read):
    return [(tuple(m["content"] for m in r.context), r.chosen, r.rejected) for r in read.rows]


def counts(read):
    assert len(read.rows) + sum(read.faults.drops.values()) == read.total
    return read.faults.counts, read.faults.skipped, read.faults.notes


def turns(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


# --- Prometheus -----------------------------------------------------------------------------------------------------------

FEEDBACK = {
    "instruction": "###Task Description: judge this",
    "output": "So so. [RESULT] 3",
    "orig_instruction": "Name a colour.",
    "orig_response": "Red.",
    "orig_criteria": "Is it a colour?",
    "orig_score": "3",
}


def test_prometheus_reads_the_rated_answer_and_not_the_judges_prompt(tmp_path):
    rows = [
        FEEDBACK,
        {**FEEDBACK, "orig_score": 5},
        {**FEEDBACK, "orig_criteria": "Is it short?"},  # the same answer and score under another rubric
        {**FEEDBACK, "orig_score": "6"},
        {**FEEDBACK, "orig_score": "three"},
        {**FEEDBACK, "orig_score": None},
        {**FEEDBACK, "orig_response": None},
        {**FEEDBACK, "orig_response": ["Red."]},
        {**FEEDBACK, "orig_response": " "},
        {**FEEDBACK, "orig_score": "N/A"},
    ]
    read = ratings_in("prometheus", tmp_path, rows, "new_feedback_collection.json")
    assert [(r.messages, r.ratings) for r in read.rows] == [
        (tuple(turns("Name a colour.", "Red.")), {"prometheus-score": 3.0}),
        (tuple(turns("Name a colour.", "Red.")), {"prometheus-score": 5.0}),
    ]
    faults = {
        "rating-off-scale": 1,
        "rating-not-a-number": 1,
        "no-rating": 2,
        "missing-field": 1,
        "not-text": 1,
        "empty-turn": 1,
    }
    assert counts(read) == (faults, {"repeated": 1}, {"rating-na": 1})
    assert "'orig_response'" in next(e for e in read.faults.examples if "missing-field" in e)


def test_prometheus_scores_sit_in_the_middle_of_their_bins():
    (objective,) = rating_source("prometheus").objectives
    assert objective.scale_map is ScaleMap.BIN_CENTRES
    assert [round(objective.to_unit(x), 12) for x in range(1, 6)] == [0.1, 0.3, 0.5, 0.7, 0.9]


# --- ArmoRM-Multi-Objective-Data ------------------------------------------------------------------------------------------


def test_the_merged_ratings_fill_exactly_their_columns(tmp_path):
    none = dict.fromkeys(RELEASED_ORDER)
    rows = [
        {"messages": turns("A", "B"), **none, "helpsteer-helpfulness": 0.9, "helpsteer-verbosity": 0.1, "dataset": "helpsteer"},
        {"messages": turns("A", "B", "C", "D"), **none, "beavertails-is_safe": 0.0, "dataset": "beavertails"},
        {"messages": turns("A", "B", "C", "D"), **none, "beavertails-is_safe": 0.0, "dataset": "beavertails"},
        {"messages": turns("A", "B"), **none, "code-style": 1.2, "dataset": "code"},
        {"messages": turns("A", "B"), **none, "dataset": "none"},
        {"messages": None, **none, "code-style": 0.5, "dataset": "code"},
        {"messages": turns("A"), **none, "code-style": 0.5, "dataset": "code"},
    ]
    read = ratings_in("armorm-multi", tmp_path, rows, "data/train-00000-of-00001.parquet")
    assert [r.ratings for r in read.rows] == [
        {"helpsteer-helpfulness": 0.9, "helpsteer-verbosity": 0.1},
        {"beavertails-is_safe": 0.0},
        {"beavertails-is_safe": 0.0},
    ]
    assert counts(read) == (
        {"rating-off-scale": 1, "no-rating": 1, "missing-field": 1, "no-answer": 1},
        {},
        {"repeated": 1},
    )


def test_nan_is_a_missing_rating_in_the_merged_set(tmp_path):
    rows = [
        {"messages": turns("A", "B"), "code-style": math.nan, "code-readability": 0.5},
        {"messages": turns("A", "C"), "code-style": math.nan},
    ]
    read = ratings_in("armorm-multi", tmp_path, rows, "train.jsonl")
    assert [r.ratings for r in read.rows] == [{"code-readability": 0.5}]
    assert counts(read) == ({"no-rating": 1}, {}, {"nan-as-missing": 2})


def test_the_merged_sets_objectives_are_the_released_ones_in_order():
    objectives = rating_source("armorm-multi").objectives
    assert tuple(o.name for o in objectives) == RELEASED_ORDER
    assert all((o.min, o.max, o.scale_map) == (0, 1, ScaleMap.END_POINTS) and o.formula and o.rater for o in objectives)
    assert [o.name for o in objectives if o.direction is not Direction.HIGHER] == ["helpsteer-verbosity"]


# --- SHP ------------------------------------------------------------------------------------------------------------------


def post(post_id="p1", *, labels=1, a=9, b=3, ratio=3.0, **more):
    row = {"post_id": post_id, "domain": "askbaking_train", "history": "Why flat?", "labels": labels, "score_A": a, "score_B": b}
    return {**row, "score_ratio": ratio, "human_ref_A": f"Answer {a}", "human_ref_B": f"Reply {b}", **more}


def test_shp_prefers_a_where_the_label_is_one_and_b_where_it_is_none(tmp_path):
    rows = [post(), post(labels=0, a=2, b=8, ratio=4.0)]
    read = pairs_in("shp", tmp_path, rows, "askbaking/train.json")
    assert said(read) == [(("Why flat?",), "Answer 9", "Reply 3"), (("Why flat?",), "Reply 8", "Answer 2")]
    assert counts(read) == ({}, {}, {})


def test_shp_leaves_out_close_scores_contradictions_and_a_posts_sixth_pair(tmp_path):
    more = [post("p2", a=10 + i, b=1) for i in range(7)]
    rows = [
        post(a=6, b=3, ratio=2.0),
        post(a=7, b=3, ratio=None),
        post(a=6, b=3, ratio=None),
        post(labels=0),
        post(a=4, b=4, ratio=1.0),
        *more,
    ]
    write(tmp_path / "askbaking" / "train.json", rows)
    read = pairs_in("shp", tmp_path, [post("p2", a=50), post("p3", a=60)], "legaladvice/train.json")
    assert [r.chosen for r in read.rows] == ["Answer 7", *(f"Answer {10 + i}" for i in range(5)), "Answer 60"]
    skips = {"ratio-too-low": 2, "label-against-scores": 1, "tie": 1, "over-post-cap": 3}
    assert counts(read) == ({}, skips, {"ratio-from-scores": 1})


def test_shp_reads_one_subreddit_and_other_splits(tmp_path):
    for place, chosen in (("askbaking/train", "T"), ("askbaking/validation", "V"), ("legaladvice/train", "L")):
        write(tmp_path / f"{place}.json", [post(human_ref_A=chosen), post(human_ref_A=chosen + "2")])
    read = pairs_in("shp", tmp_path, [post(human_ref_A="C")], "legaladvice/validation.json", data_dir="askbaking")
    assert [r.chosen for r in read.rows] == ["T", "T2"]
    read = pairs_in("shp", tmp_path, [post(human_ref_A="C")], "legaladvice/validation.json", split="validation")
    assert [r.chosen for r in read.rows] == ["V", "V2", "C"]


def test_shp_refuses_what_it_cannot_read(tmp_path):
    rows = [
        post(labels=2),
        post(labels="A"),
        post(labels=True),
        post(ratio=None, a=None),
        post(ratio="high", b=0),
        post(history=None),
        post(human_ref_A=7),
        post(post_id=None),
        post(labels="1"),
    ]
    read = pairs_in("shp", tmp_path, rows, "askbaking/train.jsonl")
    assert [r.chosen for r in read.rows] == ["Answer 9"]
    assert counts(read) == ({"unknown-label": 3, "no-score-ratio": 2, "missing-field": 2, "not-text": 1}, {}, {})


# --- HH-RLHF --------------------------------------------------------------------------------------------------------------


def dialogue(*texts):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {t}" for i, t in enumerate(texts))


def hh(*shared, good="Yes.", worse="No."):
    return {"chosen": dialogue(*shared, good), "rejected": dialogue(*shared, worse)}


def test_a_dialogue_is_parted_at_its_markers_alone(tmp_path):
    rows = [
        hh("Hi?"),
        hh(" Hi?  ", "Hello.\n\nWhat is it?", "To Sell is Human: read it?\nAssistant: said so.  Human: ", good="Human: fine\n"),
        {side: text[2:] for side, text in hh("Bare?").items()},
        {side: text.replace(": ", ":") for side, text in hh("Tight?").items()},
    ]
    read = pairs_in("hh-rlhf", tmp_path, rows, "helpful-base/train.jsonl.gz")
    assert said(read) == [
        (("Hi?",), "Yes.", "No."),
        (
            ("Hi?", "Hello.\n\nWhat is it?", "To Sell is Human: read it?\nAssistant: said so.  Human:"),
            "Human: fine",
            "No.",
        ),
        (("Bare?",), "Yes.", "No."),
        (("Tight?",), "Yes.", "No."),
    ]
    assert [m["role"] for m in read.rows[1].context] == ["user", "assistant", "user"]
    assert counts(read) == ({}, {}, {"no-first-blank-line": 1})


def test_what_is_no_dialogue_is_counted_by_its_fault(tmp_path):
    rows = [
        hh("Hi?", good=""),
        hh("Hi?", "", "Well?"),
        {"chosen": "\n\nHuman: A\n\nHuman: B\n\nAssistant: C", "rejected": dialogue("A", "D")},
        {"chosen": "\n\nAssistant: C", "rejected": "\n\nAssistant: D"},
        {"chosen": dialogue("A", "B", "C"), "rejected": dialogue("A", "B", "D")},
        {"chosen": dialogue("A", "B"), "rejected": dialogue("A", "C", "D", "E")},
        hh("Hi?", good="No. "),
        {"chosen": "Hello there", "rejected": dialogue("A", "B")},
        {"chosen": "Note." + dialogue("A", "B"), "rejected": dialogue("A", "C")},
        {"chosen": "", "rejected": dialogue("A", "C")},
        {"chosen": None, "rejected": dialogue("A", "C")},
        {"chosen": turns("A", "B"), "rejected": turns("A", "C")},
    ]
    read = pairs_in("hh-harmless", tmp_path, rows, "harmless-base/train.jsonl.gz")
    assert read.rows == ()
    faults = {
        "empty-turn": 2,
        "not-alternating": 2,
        "no-answer": 1,
        "different-contexts": 1,
        "chosen-equals-rejected": 1,
        "no-transcript": 3,
        "missing-field": 1,
        "not-text": 1,
    }
    assert counts(read) == (faults, {}, {})


@pytest.fixture
def hh_folder(tmp_path):
    """The hub's layout, as `hf download` leaves it."""
    folders = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
    for folder in folders:
        for split in ("train", "test"):
            write(tmp_path / folder / f"{split}.jsonl.gz", [hh(f"{folder} {split}")])
            write(tmp_path / ".cache" / "huggingface" / "download" / folder / f"{split}.jsonl.gz", [hh("cached")])
    attacks = [{"transcript": dialogue("A", "B"), "rating": 4.0, "task_description": "x"}] * 3
    write(tmp_path / "red-team-attempts" / "red_team_attempts.jsonl.gz", attacks)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("hh-rlhf", ["harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"]),
        ("hh-helpful", ["helpful-base", "helpful-online", "helpful-rejection-sampled"]),
        ("hh-harmless", ["harmless-base"]),
    ],
)
def test_each_part_of_hh_reads_its_own_folders_and_split(hh_folder, name, folders, split):
    source = pair_source(name)
    source = dataclasses.replace(source, place=dataclasses.replace(source.place, split=split))
    read = source_pairs(source, path=str(hh_folder)).read()
    assert [r.context[0]["content"] for r in read.rows] == [f"{folder} {split}" for folder in folders]


def test_harmless_is_not_read_from_a_copy_that_lacks_it(hh_folder):
    for file in (hh_folder / "harmless-base").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"train\.jsonl\.gz"):
        source_pairs(pair_source("hh-harmless"), path=str(hh_folder)).read()


def test_red_team_attempts_are_refused_by_name(hh_folder):
    read = source_pairs(pair_source("hh-rlhf"), path=str(hh_folder / "red-team-attempts" / "red_team_attempts.jsonl.gz")).read()
    assert counts(read) == ({"red-team-attempts": 3}, {}, {})
    assert "helpful-base" in read.faults.examples[0]


def test_a_folder_name_with_a_star_stands_for_several_on_the_hub_too(hh_folder):
    import datasets

    place = pair_source("hh-helpful").place
    stream = datasets.load_dataset(str(hh_folder), data_dir=place.data_dir, split="test", streaming=True)
    assert sorted(row["chosen"].split()[1] for row in stream) == ["helpful-base", "helpful-online", "helpful-rejection-sampled"]


def real_data():
    folder = os.environ.get("ARMORM_DATA", "")
    if not folder:
        pytest.skip("ARMORM_DATA is not set")
    return Path(folder)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "total", "faults", "known"),
    [
        ("hh-helpful", "helpful", 2354, {"empty-turn": 4, "different-contexts": 9, "chosen-equals-rejected": 2}, 2297),
        ("hh-harmless", "harmless", 2312, {"empty-turn": 4, "different-contexts": 5}, 2288),
    ],
)
def test_the_published_hh_files_give_the_pairs_that_were_made_of_them_before(name, folder, total, faults, known):
    data = real_data()
    raw = data / "raw" / "hh-rlhf" / f"{folder}-base" / "test.jsonl.gz"
    read = source_pairs(pair_source(name), path=str(raw)).read()
    assert (read.total, len(read.rows)) == (total, total - sum(faults.values()))
    assert counts(read) == (faults, {}, {})
    ours = {(json.dumps(r.conversation(r.chosen)), json.dumps(r.conversation(r.rejected))) for r in read.rows}
    theirs = []
    for part in ("train", "dev"):
        with gzip.open(data / "pairs" / f"hh-{folder}-{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
            theirs += [json.loads(line) for line in lines]
    assert len(theirs) == known
    assert {(json.dumps(r["chosen"]), json.dumps(r["rejected"])) for r in theirs} <= ours


# --- PKU-SafeRLHF ---------------------------------------------------------------------------------------------------------

SAFETY = {
    "prompt": "How?",
    "response_0": "So.",
    "response_1": "I won't.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 0,
    "safer_response_id": 1,
}


def test_safer_and_better_are_two_sources_of_one_set(tmp_path):
    rows = [
        SAFETY,
        {**SAFETY, "prompt": "Why?", "better_response_id": 1},
        {**SAFETY, "prompt": "When?", "is_response_1_safe": False},
        {**SAFETY, "prompt": "Who?", "safer_response_id": 0},
        {**SAFETY, "prompt": "Bad", "safer_response_id": 2, "better_response_id": -1},
        {**SAFETY, "prompt": None},
    ]
    file = "data/train-00000-of-00001.parquet"
    safer, better = (pairs_in(name, tmp_path, rows, file) for name in ("pku-safer", "pku-better"))
    assert said(safer) == [((p,), "I won't.", "So.") for p in ("How?", "Why?", "When?")]
    assert counts(safer) == (
        {"unknown-label": 1, "missing-field": 1},
        {"label-against-flags": 1},
        {"safer-and-better-differ": 2},
    )
    first, second = ("So.", "I won't."), ("I won't.", "So.")
    assert said(better) == [(("How?",), *first), (("Why?",), *second), (("When?",), *first), (("Who?",), *first)]
    assert counts(better) == ({"unknown-label": 1, "missing-field": 1}, {}, {"safer-and-better-differ": 2})


def test_ids_that_are_texts_are_cast_and_truth_values_are_not(tmp_path):
    rows = [{**SAFETY, "safer_response_id": x} for x in ("1", " 1 ", 1.0, True, None, "one", [1])]
    read = pairs_in("pku-safer", tmp_path, rows, "train.jsonl")
    assert said(read) == [(("How?",), "I won't.", "So.")]
    notes = {"id-as-text": 2, "safer-and-better-differ": 3}
    assert counts(read) == ({"unknown-label": 4}, {"repeated": 2}, notes)


# --- Preference-Collection ------------------------------------------------------------------------------------------------


def preference(prefers="A", a="4", b="2", **more):
    row = {"instruction": "###Task", "output": "[RESULT] A", "orig_instruction": "Name a colour.", "orig_preference": prefers}
    return {**row, "orig_response_A": "Red.", "orig_response_B": "Dog.", "orig_score_A": a, "orig_score_B": b, **more}


def test_preferences_are_read_and_held_against_their_scores(tmp_path):
    rows = [
        preference(),
        preference("B", "1", "5"),
        preference(" A ", None, None, orig_instruction="Unscored"),
        preference("A", "N/A", "2", orig_instruction="Not available"),
        preference("B"),
        preference("A", "3", "3"),
        preference("C"),
        preference(None),
        preference(orig_response_B=None),
    ]
    read = pairs_in("prometheus2", tmp_path, rows, "data/train-00000-of-00006.parquet")
    assert said(read) == [
        (("Name a colour.",), "Red.", "Dog."),
        (("Name a colour.",), "Dog.", "Red."),
        (("Unscored",), "Red.", "Dog."),
        (("Not available",), "Red.", "Dog."),
    ]
    faults = {"unknown-label": 1, "missing-field": 2}
    assert counts(read) == (faults, {"label-against-scores": 1, "tie": 1}, {"score-na": 1})


# --- RLHFlow --------------------------------------------------------------------------------------------------------------


def standard(good="B", worse="C", shared=("A",), **scores):
    return {"chosen": turns(*shared, good), "rejected": turns(*shared, worse), **scores}


SCORED = ["ultrafeedback", "helpsteer", "shp", "code-ultrafeedback", "capybara", "argilla-math"]
UNSCORED = ["hh-helpful", "hh-harmless", "pku-saferlhf", "prometheus2", "orca", "ultrainteract", "helpsteer2", "mixture"]


@pytest.mark.parametrize("name", SCORED)
def test_scored_pairs_must_agree_with_their_scores(tmp_path, name):
    columns = [f"{side}_{'rating' if name == 'argilla-math' else 'score'}" for side in ("chosen", "rejected")]
    scores = [("5", "3"), ("4.5", "4"), ("3", "3"), ("10", "9"), ("2", "4"), ("N/A", "4"), ("4", None), ("4", "four")]
    rows = [standard(good=f"B{i}", **dict(zip(columns, pair, strict=True))) for i, pair in enumerate(scores)]
    read = pairs_in(f"rlhflow-{name}", tmp_path, rows)
    assert [r.chosen for r in read.rows] == ["B0", "B1", "B3"]  # as numbers: 10 is above 9
    assert counts(read) == ({"score-not-a-number": 1}, {"tie": 1, "reversed": 1, "unrated": 2}, {})
    bare = pairs_in(f"rlhflow-{name}", tmp_path, [standard()])
    assert counts(bare) == ({}, {}, {"no-scores": 1})
    assert said(bare) == [(("A",), "B", "C")]


@pytest.mark.parametrize("name", UNSCORED)
def test_unscored_sets_keep_conversations_that_differ_in_the_last_turn_only(tmp_path, name):
    rows = [
        standard(shared=("A", "B", "C")),
        standard(good="C"),
        {"chosen": turns("A", "B"), "rejected": turns("X", "C")},
        {"chosen": turns("A", "B"), "rejected": turns("A", "C", "D", "E")},
        {"chosen": turns("A"), "rejected": turns("A", "C")},
        {"chosen": turns("A", " "), "rejected": turns("A", "C")},
        {"chosen": turns("A", "B"), "rejected": None},
        {"chosen": turns("A", "B")[::-1], "rejected": turns("A", "C")},
    ]
    read = pairs_in(f"rlhflow-{name}", tmp_path, rows)
    assert said(read) == [(("A", "B", "C"), "B", "C")]
    faults = {"chosen-equals-rejected": 1, "different-contexts": 2, "no-answer": 2, "empty-turn": 1, "missing-field": 1}
    assert counts(read) == (faults, {}, {})


def test_in_a_mixture_scores_may_be_placeholders(tmp_path):
    scores = [(2.0, 1.0), (0.0, 0.0), (1.0, 2.0), (None, None)]
    rows = [standard(good=f"B{i}", chosen_score=a, rejected_score=b) for i, (a, b) in enumerate(scores)]
    read = pairs_in("preference-700k", tmp_path, rows)
    assert [r.chosen for r in read.rows] == ["B0", "B1", "B3"]
    assert counts(read) == ({}, {"reversed": 1}, {"equal-scores": 1, "score-na": 1})


# --- PRM800K --------------------------------------------------------------------------------------------------------------


def step(*completions, chosen=0, human=None):
    listed = [{"text": text, "rating": rating, "flagged": None} for text, rating in completions]
    return {"completions": listed, "human_completion": human, "chosen_completion": chosen}


def solution(*steps, problem="1 + 1?", finish="found_error", control=False, screening=False):
    return {
        "labeler": "x",
        "generation": 9,
        "is_quality_control_question": control,
        "is_initial_screening_question": screening,
        "question": {"problem": problem, "ground_truth_answer": "2", "pre_generated_steps": ["s"]},
        "label": {"steps": list(steps), "total_time": 5, "finish_reason": finish},
    }


def prm(folder, *rows):
    return pairs_in("prm800k", folder, list(rows), "prm800k/data/phase2_train.jsonl")


def test_a_pair_parts_at_the_first_step_with_a_wrong_and_a_good_candidate(tmp_path):
    rows = [
        solution(step(("s1", 1)), step(("s2", 0)), step(("bad", -1), ("meh", 0), ("good", 1), ("bad2", -1), chosen=None)),
        solution(step(("bad", -1), ("first", 1), ("taken", 1), chosen=2), step(("end", 1)), problem="2 + 2?", finish="solution"),
        solution(step(("bad", -1), chosen=None, human="Mine."), problem="3 + 3?"),
        solution(step(("bad", -1), chosen=None, human={"text": "Mine.", "rating": None}), step(("x", -1)), problem="4 + 4?"),
        solution(step(("meh", 0), ("bad", -1)), step(("good", 1), ("worse", -1)), problem="5 + 5?", finish="solution"),
    ]
    read = prm(tmp_path, *rows)
    assert said(read) == [
        (("1 + 1?",), "s1\ns2\ngood", "s1\ns2\nbad"),
        (("2 + 2?",), "taken", "bad"),
        (("3 + 3?",), "Mine.", "bad"),
        (("4 + 4?",), "Mine.", "bad"),
        (("5 + 5?",), "meh\ngood", "meh\nworse"),
    ]
    assert counts(read) == ({}, {}, {})


def test_a_wrong_solution_without_a_good_step_meets_a_correct_solution_of_its_problem(tmp_path):
    rows = [
        solution(step(("s1", 1)), step(("early", -1))),  # waits for row 2
        solution(step(("s1", 1)), step(("s2", 1)), step(("s3", 0)), finish="solution"),
        solution(step(("t1", 0)), step(("t2", 1)), step(("t3", 1)), finish="solution"),
        solution(step(("t1", 0)), step(("bad", -1), ("meh", 0), chosen=None)),  # shares t1 with row 3
        solution(step(("u1", 1)), step(("bad", -1))),  # shares nothing: the first known
        solution(step(("s1", 1)), step(("s2", -1))),  # what row 2 calls right
        solution(step(("s1", 1)), step(("bad", -1)), problem="other"),
        solution(*(step((f"v{i}", 1)) for i in range(4)), step(("bad", -1))),  # longer than any correct one
        solution(step(("m1", 1)), problem="own", finish="solution"),
        solution(step(("n1", 0), ("n2", -1)), step(("n3", 1)), problem="own", finish="solution"),  # its own path comes first
    ]
    read = prm(tmp_path, *rows)
    assert said(read) == [
        (("1 + 1?",), "s1\ns2", "s1\nearly"),
        (("1 + 1?",), "t1\nt2", "t1\nbad"),
        (("1 + 1?",), "s1\ns2", "u1\nbad"),
        (("1 + 1?",), "s1\ns2\ns3", "v0\nv1\nv2\nv3\nbad"),
        (("own",), "n1", "n2"),
    ]
    assert [r.id for r in read.rows] == [f"prm800k-{i}" for i in (1, 4, 5, 8, 10)]
    skips = {"no-bad-step": 3, "raters-disagree": 1, "no-good-alternative": 1}
    assert counts(read) == ({}, skips, {"with-correct-solution": 5})


def test_solutions_that_no_one_can_learn_from_are_left_out_by_reason(tmp_path):
    pair = step(("bad", -1), ("good", 1), chosen=None)
    rows = [
        solution(pair, control=True),
        solution(pair, screening=True),
        solution(pair, finish="bad_problem"),
        solution(pair, finish="give_up"),
        solution(),
        solution(step(("s1", 1)), finish="solution"),
        solution(step(("bad", None), ("good", 1)), problem="not rated"),
        solution(step(("unknown", None)), step(("bad", -1), ("good", 1)), problem="behind an unrated step"),
        solution({"completions": None, "human_completion": None, "chosen_completion": None}, problem="no candidates"),
    ]
    read = prm(tmp_path, *rows)
    assert read.rows == ()
    skips = {"quality-control": 1, "screening": 1, "bad-problem": 1, "give-up": 1, "no-bad-step": 5}
    assert counts(read) == ({}, skips, {})


def test_flagged_candidates_are_passed_over(tmp_path):
    flagged = step(("odd", -1), ("bad", -1), ("unsure", 1), ("good", 1), chosen=None)
    for i in (0, 2):
        flagged["completions"][i]["flagged"] = True
    assert said(prm(tmp_path, solution(flagged))) == [(("1 + 1?",), "good", "bad")]


def test_records_of_another_shape_are_faults(tmp_path):
    wrong = step(("bad", -1), ("good", 1), chosen=None)
    rows = [
        {},
        {**solution(wrong), "question": "1 + 1?"},
        {**solution(wrong), "label": None},
        solution("s1"),
        solution({**wrong, "completions": "bad"}),
        solution({**wrong, "completions": [{"rating": 1}]}),
        solution({**wrong, "chosen_completion": 2}),
        solution({**wrong, "chosen_completion": "first"}),
        solution(wrong),
    ]
    read = prm(tmp_path, *rows)
    assert len(read.rows) == 1
    assert counts(read) == ({"missing-field": 3, "not-a-step": 5}, {}, {})


def test_parquet_copies_with_nested_columns_are_read_alike(tmp_path):
    rows = [solution(step(("s1", 1)), step(("bad", -1), ("good", 1), chosen=None)), solution(step(("s1", 1)), finish="solution")]
    write(tmp_path / "copy.parquet", rows)
    read = source_pairs(pair_source("prm800k"), path=str(tmp_path / "copy.parquet")).read()
    assert said(read) == [(("1 + 1?",), "s1\ngood", "s1\nbad")]


def test_a_git_lfs_pointer_is_named_as_such(tmp_path):
    file = tmp_path / "prm800k" / "data" / "phase2_train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 461000000\n")
    read = source_pairs(pair_source("prm800k"), path=str(tmp_path)).read()
    assert counts(read) == ({"git-lfs-pointer": 1}, {}, {})
    assert "git lfs pull" in read.faults.examples[0]


def test_a_broken_line_is_no_pointer(tmp_path):
    file = write(tmp_path / "phase2_train.jsonl", [solution(step(("bad", -1), ("good", 1), chosen=None))])
    file.write_text("version of a line\n" + file.read_text())
    read = source_pairs(pair_source("prm800k"), path=str(tmp_path)).read()
    assert counts(read) == ({"not-json": 1}, {}, {})
    assert len(read.rows) == 1


# --- all of them ----------------------------------------------------------------------------------------------------------

PAIR_FIXTURES = {
    "shp": post(),
    "hh-rlhf": hh("Hi?"),
    "hh-helpful": hh("Hi?"),
    "hh-harmless": hh("Hi?"),
    "pku-safer": SAFETY,
    "pku-better": SAFETY,
    "prm800k": solution(step(("s1", 1)), step(("bad", -1), ("good", 1), chosen=None)),
    "prometheus2": preference(),
    "preference-700k": standard(chosen_score=2.0, rejected_score=1.0),
    **{f"rlhflow-{n}": standard(chosen_score=2.0, rejected_score=1.0) for n in (*SCORED, *UNSCORED)},
}
RATING_FIXTURES = {"prometheus": FEEDBACK, "armorm-multi": {"messages": turns("A", "B"), "code-style": 0.5}}
NUMBERS = st.integers(-3, 12) | st.floats() | st.integers()
TEXTS = st.text(max_size=12) | st.sampled_from(["N/A", "1", "A", "B", "\n\nHuman: x\n\nAssistant: y", "solution", "\ud800"])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("text"), inner, max_size=4),
    max_leaves=8,
)


def changed(value):
    """The value with some parts, at any depth, replaced by arbitrary JSON or taken out."""
    if isinstance(value, dict):
        rebuilt = st.fixed_dictionaries({}, optional={k: changed(v) for k, v in value.items()})
    elif isinstance(value, list):
        rebuilt = st.tuples(*map(changed, value)).map(list)
    else:
        rebuilt = st.just(value)
    return rebuilt | st.just(value) | JSON


def raw_rows(fixture):
    """Rows near the fixture, and rows of anything."""
    parts = st.fixed_dictionaries({}, optional={k: changed(v) for k, v in fixture.items()})
    near = parts.map(lambda new: {**fixture, **new})
    return st.lists(
        near | parts | st.dictionaries(st.sampled_from([*fixture]) | st.text(max_size=5), JSON, max_size=4), max_size=6
    )


def found_in(rows):
    return [BadRecord(1, "not-json", "mend it", "here"), *(Record(i, row, "here") for i, row in enumerate(rows, start=2))]


RUNS = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def test_every_source_has_a_fixture_that_its_reader_keeps():
    assert len(PAIR_FIXTURES) == 23
    for name, fixture in PAIR_FIXTURES.items():
        read = stream_pairs(pair_source(name).unfold([Record(1, fixture)]), source=name, where="here").read()
        assert len(read.rows) == read.total == 1, name
    for name, fixture in RATING_FIXTURES.items():
        source = rating_source(name)
        objectives = Objectives(source.objectives)
        read = stream_ratings(source.unfold([Record(1, fixture)]), source=name, objectives=objectives, where="here").read()
        assert len(read.rows) == read.total == 1, name


@pytest.mark.parametrize("name", PAIR_FIXTURES)
def test_no_record_stops_a_pair_reader(name):
    @RUNS
    @given(raw_rows(PAIR_FIXTURES[name]))
    def holds(rows):
        found = found_in(rows)
        read = stream_pairs(pair_source(name).unfold(found), source=name, where="here").read()
        assert len(read.rows) + sum(read.faults.drops.values()) == read.total == len(found)
        assert all(r.chosen.strip() and r.rejected.strip() and r.chosen.strip() != r.rejected.strip() for r in read.rows)

    holds()


@pytest.mark.parametrize("name", RATING_FIXTURES)
def test_no_record_stops_a_rating_reader(name):
    source = rating_source(name)
    objectives = Objectives(source.objectives)

    @RUNS
    @given(raw_rows(RATING_FIXTURES[name]))
    def holds(rows):
        found = found_in(rows)
        read = stream_ratings(source.unfold(found), source=name, objectives=objectives, where="here").read()
        assert len(read.rows) + sum(read.faults.drops.values()) == read.total == len(found)
        assert all(0 <= value <= 5 for r in read.rows for value in r.ratings.values())

    holds()


@RUNS
@given(
    st.lists(
        st.tuples(st.sampled_from(["p", "q"]), st.integers(0, 1), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=40
    )
)
def test_no_post_gives_more_than_five_pairs_whatever_the_order(drawn):
    rows = [post(p, labels=label, a=a, b=b, ratio=None, human_ref_A=f"A{i}") for i, (p, label, a, b) in enumerate(drawn)]
    found = list(pair_source("shp").unfold([Record(i, row) for i, row in enumerate(rows, start=1)]))
    assert len(found) == len(rows)
    good = Counter(p for p, label, a, b in drawn if (a > 2 * b if label else b > 2 * a))
    kept = Counter(rows[f.row - 1]["post_id"] for f in found if isinstance(f, Record))
    assert kept == {p: min(n, 5) for p, n in good.items()}
