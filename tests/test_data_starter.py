"""The synthetic starter set: its sizes, its planted truth, and that the rows follow from it."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge

from armorm.conversation import fault_in, prompt_group
from armorm.data.starter import Starter, build
from armorm.data.starter.build import FLIPPED, PROMPTS_PER_DOMAIN, SMALLEST_GAP
from armorm.data.starter.prompt import Draw, other_figure

DOMAINS = ("chat", "facts", "math", "code", "safety")


@pytest.fixture(scope="module")
def starter() -> Starter:
    return build(0)


def texts(starter: Starter) -> set[tuple[str, str]]:
    rated = {(r.messages[0]["content"], r.messages[1]["content"]) for r in starter.ratings}
    return rated | {(p.context[0]["content"], a) for p in starter.pairs for a in (p.chosen, p.rejected)}


def by_answer(starter: Starter) -> tuple[np.ndarray, np.ndarray]:
    # The true ratings and the domain of each distinct rated answer.
    rows = {(r.group, r.messages[1]["content"]): r for r in starter.ratings}.values()
    truth = starter.truth
    return np.array([truth.qualities[r.id] for r in rows]), np.array([truth.domain_of[r.group] for r in rows])


def qualities_of_pairs(starter: Starter) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pair → the true ratings of its chosen and its rejected answer, which are those of the rated answers with their texts."""
    rated = {(r.group, r.messages[1]["content"]): starter.truth.qualities[r.id] for r in starter.ratings}
    return {p.id: (rated[p.group, p.chosen], rated[p.group, p.rejected]) for p in starter.pairs}


def test_the_sizes_are_those_that_the_demo_is_planned_for(starter):
    prompts = Counter(starter.truth.domain_of.values())
    assert prompts == dict.fromkeys(DOMAINS, PROMPTS_PER_DOMAIN)
    assert sum(prompts.values()) >= 600
    assert len(starter.ratings) >= 2400
    assert len(starter.pairs) >= 1500
    assert 2400 <= len(texts(starter)) <= 2600
    assert len(starter.objectives) == 8


def test_the_distinct_words_stay_within_the_extraction_budget(starter):
    words = [len(answer.split()) for _, answer in texts(starter)]
    assert sum(words) + sum(len(prompt.split()) for prompt in {p for p, _ in texts(starter)}) < 170_000
    assert 40 < np.mean(words) < 75


def test_the_same_seed_gives_the_same_set_and_another_seed_another(starter):
    again, other = build(0), build(1)
    assert again.ratings == starter.ratings
    assert again.pairs == starter.pairs
    assert all((again.truth.qualities[r.id] == starter.truth.qualities[r.id]).all() for r in starter.ratings)
    assert len(texts(other) & texts(starter)) < 0.05 * len(texts(starter))


def test_every_conversation_is_one_and_ids_are_unique(starter):
    rows = [(r.id, r.group, r.messages) for r in starter.ratings]
    rows += [
        (f"{p.id} {side}", p.group, p.conversation(a)) for p in starter.pairs for side, a in enumerate((p.chosen, p.rejected))
    ]
    assert len(rows) == len({i for i, _, _ in rows}) == len(starter.ratings) + 2 * len(starter.pairs)
    for row_id, group, messages in rows:
        assert fault_in(messages) is None, row_id
        assert group == prompt_group(messages), row_id


def test_no_text_keeps_a_placeholder_or_repeats_within_a_prompt(starter):
    for prompt, answer in texts(starter):
        for text in (prompt, answer):
            assert not set("{}|") & set(text), text
            assert "  " not in text.replace("\n    ", "\n"), text
            assert ".." not in text, text
    answers = defaultdict(list)
    for (group, text), _ in itertools.groupby(sorted((r.group, r.messages[1]["content"]) for r in starter.ratings)):
        answers[group].append(text)
    assert len(answers) == len(starter.truth.domain_of)
    assert {len(some) for some in answers.values()} == {4}
    assert all(p.chosen != p.rejected for p in starter.pairs)


def test_the_planted_qualities_are_independent_of_each_other_and_of_the_domain(starter):
    truth, domain = by_answer(starter)
    style = starter.objectives.column("code-style")
    overall = np.corrcoef(np.delete(truth, style, axis=1), rowvar=False)
    assert np.abs(overall[np.triu_indices_from(overall, 1)]).max() < 0.08
    within = np.corrcoef(truth[domain == "code"], rowvar=False)
    assert np.abs(within[np.triu_indices_from(within, 1)]).max() < 0.2
    for name in DOMAINS:
        part = truth[domain == name]
        moved = np.abs(part.mean(0) - truth.mean(0)) / truth.std(0)
        assert moved.max() < 0.2, name
    assert (truth[domain != "code"][:, style] == 0.5).all()
    assert ((truth > 0) & (truth < 1)).all()


def test_observed_ratings_are_on_scale_follow_the_truth_and_are_partly_missing(starter):
    of = starter.objectives
    seen = np.array([of.row(r.ratings) for r in starter.ratings])
    truth = np.array([starter.truth.qualities[r.id] for r in starter.ratings])
    for i, objective in enumerate(of):
        rated = ~np.isnan(seen[:, i])
        assert 350 < rated.sum() < len(rated), objective.name
        assert {float(objective.raw(v)) for v in seen[rated, i]} <= set(np.arange(objective.min, objective.max + 1))
        assert {r.source for r, here in zip(starter.ratings, rated, strict=True) if here} == {objective.source}
        assert np.corrcoef(seen[rated, i], truth[rated, i])[0, 1] > 0.65, objective.name
    sources = Counter((r.group, r.messages[1]["content"]) for r in starter.ratings)
    assert set(sources.values()) == {1, 2}
    assert {starter.truth.domain_of[r.group] for r in starter.ratings if r.source == "starter-code"} == {"code"}


def test_the_sources_lean_towards_padding_and_the_truth_does_not(starter):
    of, truth = starter.objectives, starter.truth
    nuisance = of.column(truth.nuisance)
    seen = of.to_unit(np.array([of.row(r.ratings) for r in starter.ratings]))
    real = np.array([truth.qualities[r.id] for r in starter.ratings])
    for i, objective in enumerate(of):
        rated = ~np.isnan(seen[:, i])
        error, padding = seen[rated, i] - real[rated, i], real[rated, nuisance]
        lean = np.polyfit(padding, error, 1)[0]
        if i == nuisance:
            assert abs(lean) < 0.1
        else:
            assert lean == pytest.approx(truth.bias[objective.source], abs=0.13), objective.name
            assert abs(np.corrcoef(real[rated, i], padding)[0, 1]) < 0.12, objective.name


def test_preferences_follow_the_domain_weights_except_for_the_stated_flips(starter):
    truth, qualities = starter.truth, qualities_of_pairs(starter)
    wrong = set()
    for pair in starter.pairs:
        chosen, rejected = qualities[pair.id]
        gap = truth.weights[pair.section] @ (chosen - rejected)
        assert abs(gap) >= SMALLEST_GAP
        assert truth.domain_of[pair.group] == pair.section
        if gap < 0:
            wrong.add(pair.id)
    assert wrong == truth.flipped
    assert len(wrong) / len(starter.pairs) == pytest.approx(FLIPPED, abs=0.015)


def test_every_answer_of_a_pair_is_rated_and_all_its_ratings_have_one_truth(starter):
    truths = defaultdict(list)
    for row in starter.ratings:
        truths[row.group, row.messages[1]["content"]].append(starter.truth.qualities[row.id])
    assert all((quality == found[0]).all() for found in truths.values() for quality in found)
    assert {(p.group, answer) for p in starter.pairs for answer in (p.chosen, p.rejected)} <= truths.keys()


def test_the_domains_want_different_things(starter):
    weights = np.array([starter.truth.weights[d] for d in DOMAINS])
    assert (weights >= 0).all()
    assert weights.sum(1) == pytest.approx(1.0)
    assert (weights[:, starter.objectives.column(starter.truth.nuisance)] == 0).all()
    for a, b in itertools.combinations(weights, 2):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 0.5
    # No one weighting serves all: the best on a coarse simplex stays far behind the domains' own.
    qualities = qualities_of_pairs(starter)
    gaps = [np.subtract(*qualities[p.id]) for p in starter.pairs]
    own = np.mean([starter.truth.weights[p.section] @ g > 0 for p, g in zip(starter.pairs, gaps, strict=True)])
    some = np.random.default_rng(0).dirichlet(np.full(weights.shape[1], 0.3), 400)
    assert own > np.mean(np.array(gaps) @ some.T > 0, axis=0).max() + 0.2


def test_the_shown_objectives_are_all_but_the_figures(starter):
    assert starter.truth.shown == set(starter.objectives.names) - {"correctness"}
    assert starter.truth.nuisance == "verbosity"
    assert starter.objectives[starter.objectives.column("verbosity")].direction == "neutral"


def test_the_words_show_every_quality_that_is_said_to_be_shown(starter):
    # A linear reader of word counts, on prompts it has not seen, against the planted truth.
    rows = list({(r.group, r.messages[1]["content"]): r for r in starter.ratings}.values())
    held_out = np.array([int(r.group[1:], 16) % 3 == 0 for r in rows])
    counts = CountVectorizer(min_df=3, ngram_range=(1, 2)).fit_transform([r.messages[1]["content"] for r in rows])
    truth = np.array([starter.truth.qualities[r.id] for r in rows])
    read = Ridge(alpha=10.0).fit(counts[~held_out], truth[~held_out]).predict(counts[held_out])
    for i, name in enumerate(starter.objectives.names):
        found = np.corrcoef(read[:, i], truth[held_out, i])[0, 1]
        assert (found > 0.7) if name in starter.truth.shown else (abs(found) < 0.3), f"{name}: {found:.2f}"


def test_everything_is_called_synthetic(starter):
    assert all("synthetic" in o.rater for o in starter.objectives)
    assert all(o.source.startswith("starter-") for o in starter.objectives)
    assert {p.source for p in starter.pairs} == {"starter-pairs"}


def test_drawing_fills_slots_and_repeats_for_the_same_seed():
    template = "{a|b} {name} {c|{name}}"
    one, two = (Draw("s").text(template, {"name": "{x|y}"}) for _ in range(2))
    assert one == two
    assert {Draw(str(i)).text("{a|b}") for i in range(20)} == {"a", "b"}
    with pytest.raises(KeyError):
        Draw("s").text("{unknown}")


def test_a_wrong_figure_is_near_and_never_right():
    draw = Draw("figures")
    for figure in range(1, 120):
        wrong = [other_figure(figure, draw) for _ in range(20)]
        assert figure not in wrong
        assert min(wrong) > 0
        assert max(abs(w - figure) for w in wrong) <= max(3, 0.6 * figure)
