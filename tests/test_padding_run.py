"""Whole runs with padded copies and several nuisances: the report says both λ, the model scores as the run did, and what changes
computes no more than what follows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import read_lines, write_lines, write_recipe, write_rows
from test_pipeline import conversation

from armorm import RewardModel
from armorm.data.splits import Split
from armorm.errors import DataError, FitError, RecipeError
from armorm.features import storing
from armorm.features.answers import open_answers
from armorm.features.nuisances import style_of
from armorm.jobs.verify import verify
from armorm.model.layouts.released import released_faults
from armorm.progress import Reporter
from armorm.recipe import DebiasSettings, load_recipe
from armorm.report.run_results import DebiasFacts, RunResults
from armorm.report.run_tables import run_report
from armorm.run import extraction
from armorm.run.padded import padded_pairs
from armorm.run.plan import plan
from armorm.run.rows import read_rows, side_of
from armorm.run.train import Run, train

QUIET = Reporter(quiet=True)
NUISANCES = ["panel-verbosity", "response-tokens", "bold-spans", "exclamation-marks"]
AGREED = {"nuisances": NUISANCES, "method": "agreed", "padded": 40}
ROOM = {"max_tokens": 480}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's rows, some of them in bold type and with exclamation marks."""
    folder = tmp_path_factory.mktemp("marked")
    write_rows(folder)
    for file in folder.glob("*.jsonl"):
        rows = read_lines(file)
        for i, row in enumerate(rows):
            for n, key in enumerate(k for k in ("response", "chosen", "rejected") if k in row):
                row[key] += "!" * ((i + n) % 4) + " **fine**" * ((i + 2 * n) % 3 == 0)
        write_lines(file, rows)
    return folder


@pytest.fixture(scope="module")
def plain(marked: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on these rows as any other, without copies and counts."""
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM))
    return train(recipe, tmp_path_factory.mktemp("plain") / "run", reporter=QUIET)


@pytest.fixture(scope="module")
def padded(plain: Run, marked: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same, debiased where correlation and padding agree."""
    folder = tmp_path_factory.mktemp("padded") / "run"
    shutil.copytree(plain.folder, folder)
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM, debias=AGREED))
    return train(recipe, folder, reporter=QUIET)


def stores_of(folder: Path) -> set[str]:
    return {place.name.rsplit("-", 1)[0] for place in (folder / "features").iterdir()}


def test_a_plain_run_has_no_copies_and_no_counts(plain: Run):
    assert "padded" not in stores_of(plain.folder)
    assert not list(plain.folder.rglob("style.*"))
    facts = plain.results.to_json()["debias"]
    assert set(facts) == {"method", "nuisances", "itself", "reference", "held_out", "objectives", "warnings"}
    assert "padding" not in facts["objectives"][0]
    assert "padding" not in run_report(plain.results)


def test_settings_of_before_have_the_keys_of_before():
    assert DebiasSettings(nuisances=["a"]).to_key() == {
        "nuisances": ["a"],
        "method": "spearman",
        "itself": "zeroed",
        "reference": [],
    }
    assert DebiasSettings(nuisances=["a"], over="within-prompts", padded=50).to_key() == {
        "nuisances": ["a"],
        "method": "spearman",
        "over": "within-prompts",
        "itself": "zeroed",
        "reference": [],
        "padded": 50,
    }


def test_copies_are_extracted_alone(plain: Run, padded: Run):
    assert padded.computed == ("debias", "gate", "preference", "model", "bench", "report")
    assert stores_of(padded.folder) == stores_of(plain.folder) | {"padded"}
    assert verify(padded.folder).whole
    styled = {place.parent.name.rsplit("-", 1)[0] for place in (padded.folder / "features").rglob("style.json")}
    assert styled == stores_of(padded.folder)


def test_copies_are_of_training_prompts_and_hold_their_answers(padded: Run, marked: Path, tiny_folder: Path):
    (place,) = (padded.folder / "features").glob("padded-*")
    store, recipe = open_answers(place), load_recipe(padded.folder / "recipe.yaml")
    assert store.sizes().tolist() == [2] * len(store)
    assert {side_of(group, recipe) for group in store.groups} == {Split.TRAIN}
    assert len(set(store.groups)) == len(store)  # there are as many prompts as copies
    for row in range(len(store)):
        own, copy = store.texts(row).answers
        assert own in copy
        assert copy != own
    tokens = store.tokens()
    assert (tokens[1::2] > tokens[0::2]).all()
    assert store.style().tolist() == [list(style_of(a)) for row in range(len(store)) for a in store.texts(row).answers]
    pairs = {text for row in read_lines(marked / "pairs.jsonl") for text in (row["chosen"], row["rejected"])}
    assert {store.texts(row).answers[0] for row in range(len(store))} <= pairs  # nothing named: the pairs' answers


def test_the_same_rows_give_the_same_copies_one_a_prompt_first(marked: Path, tiny_folder: Path):
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM, debias={**AGREED, "padded": 1000}))
    rows = read_rows(recipe, recipe.load_objectives(), QUIET)
    every = padded_pairs(recipe, rows)
    assert every == padded_pairs(recipe, rows)
    train_rows = [row for row in rows.pairs["pairs"] if side_of(row.group, recipe) is Split.TRAIN]
    assert len(every) == 2 * len(train_rows)
    prompts = {pair.group for pair in every}
    fewer = recipe.model_copy(update={"debias": recipe.debias.model_copy(update={"padded": len(prompts) + 3})})
    some = padded_pairs(fewer, rows)
    assert {pair.group for pair in some} == prompts
    assert {pair.id for pair in some} <= {pair.id for pair in every}
    named = recipe.model_copy(update={"debias": recipe.debias.model_copy(update={"reference": ["ratings-judge"]})})
    assert {pair.id.split("/")[0] for pair in padded_pairs(named, rows)} == {"ratings-judge"}


def test_the_report_says_both_slopes_and_the_shift(padded: Run):
    debias = padded.results.debias
    assert (debias.method, debias.over, debias.nuisances) == ("agreed", "pooled", tuple(NUISANCES))
    assert debias.padding.n + sum(debias.padding.left_out.values()) == 40
    assert debias.padding.n >= 10
    assert 0 < debias.padding.prompts <= debias.padding.n
    assert debias.padding.moved["response-tokens"] > 50
    assert debias.padding.moved["bold-spans"] > 0
    charged = 0
    for one in debias.objectives:
        for nuisance in NUISANCES:
            slopes = one.padding.correlation[nuisance], one.padding.padding[nuisance]
            assert slopes[0] * slopes[1] > 0 or not one.coefficients[nuisance]
            charged += bool(one.coefficients[nuisance])
        assert one.padding.shift.low <= one.padding.shift.value <= one.padding.shift.high
    assert charged
    (verbosity,) = (one for one in debias.objectives if one.name == "panel-verbosity")
    assert verbosity.padding.shift_after.value == 0  # it is zeroed
    assert RunResults.model_validate(padded.results.to_json()).to_json() == padded.results.to_json()
    table = run_report(padded.results)["padding"]
    assert len(table.rows) == 3 * len(NUISANCES)
    page, text = (padded.report.parent / name for name in ("report.html", "report.md"))
    for written in (page, text):
        assert "λ by padding" in written.read_text(encoding="utf-8")
    assert "as far as its correlation on the reference answers" in text.read_text(encoding="utf-8")


def test_results_of_earlier_versions_are_read(plain: Run):
    facts = plain.results.to_json()["debias"]
    assert DebiasFacts.model_validate(facts).over == "pooled"
    assert DebiasFacts.model_validate(facts).padding is None


def test_the_model_scores_as_the_run_did(padded: Run, marked: Path):
    model = RewardModel.from_pretrained(padded.folder / "model")
    assert model.config.computed == NUISANCES[1:]
    bench = read_lines(marked / "bench.jsonl")
    by_texts = {(r["prompt"], r["chosen"], r["rejected"]): r for r in bench}
    seen = dict.fromkeys(NUISANCES[1:], 0)
    assert len(padded.results.examples) >= 2
    for example in padded.results.examples:
        texts = {a.label: a for a in example.answers}
        row = by_texts[example.prompt.removeprefix("user: "), texts["chosen"].text, texts["rejected"].text]
        for side in ("chosen", "rejected"):
            score = model.score(conversation(row, side))
            assert score.score == pytest.approx(texts[side].score, abs=1e-3)
            terms = {t.term: t for t in texts[side].terms}
            assert score.contributions == pytest.approx({n: t.contribution for n, t in terms.items()}, abs=1e-3)
            for nuisance in NUISANCES[1:]:
                assert score.terms[nuisance] == terms[nuisance].reward
                seen[nuisance] += bool(terms[nuisance].reward)
    assert min(seen.values()) > 0


def test_the_released_layout_can_not_hold_them(padded: Run):
    faults = released_faults(RewardModel.from_pretrained(padded.folder / "model"))
    assert any("response-tokens, bold-spans, exclamation-marks: leave it out of `debias.nuisances`" in f for f in faults) or any(
        "the decoder is" in f for f in faults
    )


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("the backbone was loaded")

    monkeypatch.setattr(extraction, "load_backbone", refuse)


def other(whole: Run, marked: Path, tiny_folder: Path, out: Path, **debias) -> Run:
    settings = {name: value for name, value in {**AGREED, **debias}.items() if value is not None}
    shutil.copytree(whole.folder, out)
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM, debias=settings))
    return train(recipe, out, features=whole.folder / "features", reporter=QUIET)


@pytest.mark.parametrize("change", [{"method": "intervention"}, {"over": "within-prompts"}, {"method": "pearson"}])
def test_other_settings_compute_what_follows_and_read_no_decoder_before_the_model(
    padded: Run, marked: Path, tiny_folder: Path, tmp_path: Path, change: dict, monkeypatch: pytest.MonkeyPatch
):
    extracted = []
    monkeypatch.setattr(storing, "_find_or_compute", lambda *a: extracted.append(a))
    found = other(padded, marked, tiny_folder, tmp_path / "run", **change)
    assert found.computed == ("debias", "gate", "preference", "model", "bench", "report")
    assert not extracted
    debias = found.results.debias
    kind = {"intervention": "padding", "pearson": "correlation"}.get(debias.method)
    if kind:
        assert all(dict(one.coefficients) == dict(getattr(one.padding, kind)) for one in debias.objectives)
    if debias.over == "within-prompts":
        text = found.report.with_suffix(".md").read_text(encoding="utf-8")
        assert "spearman, of differences within prompts" in text
        assert debias.objectives[0].reference != padded.results.debias.objectives[0].reference


def test_pearson_within_prompts_leaves_no_correlation_there(padded: Run, marked: Path, tiny_folder: Path, tmp_path: Path):
    found = other(padded, marked, tiny_folder, tmp_path / "run", method="pearson", over="within-prompts", padded=None)
    for one in found.results.debias.objectives:
        if one.name != "panel-verbosity":
            assert max(abs(cell.after) for cell in one.reference.values()) < 1e-9
    assert found.results.debias.padding is None


def test_stores_of_earlier_versions_are_counted_without_the_decoder(
    padded: Run, marked: Path, tiny_folder: Path, tmp_path: Path, no_backbone: None
):
    copied = Path(shutil.copytree(padded.folder, tmp_path / "run"))
    for place in copied.rglob("style.*"):
        place.unlink()
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM, debias=AGREED))
    assert train(recipe, copied, reporter=QUIET).computed == ()
    assert len(list(copied.rglob("style.json"))) == 5
    assert verify(copied).whole


def test_more_copies_than_there_are_answers_and_long_ones_are_counted(
    plain: Run, marked: Path, tiny_folder: Path, tmp_path: Path
):
    tight = {"max_tokens": 300}
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=tight, debias={**AGREED, "padded": 5000}))
    found = train(recipe, tmp_path / "run", reporter=QUIET)
    left_out, n = found.results.debias.padding.left_out, found.results.debias.padding.n
    assert left_out["longer than max_tokens"] > 0
    assert left_out["no further answer of plain text"] > 4000
    assert n + sum(left_out.values()) == 5000
    assert "longer than max_tokens" in found.report.with_suffix(".md").read_text(encoding="utf-8")


def test_too_few_copies_that_are_whole_are_an_error(plain: Run, marked: Path, tiny_folder: Path, tmp_path: Path):
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone={"max_tokens": 96}, debias=AGREED))
    with pytest.raises(FitError, match=r"padded copies are left for 4 nuisances"):
        train(recipe, tmp_path / "run", reporter=QUIET)


def test_no_answer_to_pad_is_an_error(marked: Path, tiny_folder: Path):
    recipe = load_recipe(write_recipe(marked, tiny_folder, backbone=ROOM, debias={**AGREED, "reference": ["ratings-judge"]}))
    read = read_rows(recipe, recipe.load_objectives(), QUIET)
    empty = {name: store.take(slice(0, 0)) for name, store in read.ratings.items()}
    with pytest.raises(DataError, match=r"debias.padded: the reference sources hold no training prompt's answer"):
        padded_pairs(recipe, type(read)(empty, read.pairs, read.suites, read.facts, ()))


@pytest.mark.parametrize(
    ("debias", "said"),
    [
        ({"nuisances": ["response-tokens"], "method": "agreed"}, "debias.*the method agreed needs padded copies.*padded: 2000"),
        ({"nuisances": ["response-tokens"], "method": "intervention"}, "the method intervention needs padded copies"),
        ({"nuisances": [], "padded": 100}, "padded copies are for nuisances"),
        ({"nuisances": ["response-tokens"], "padded": 3}, "debias.padded.*greater than or equal to 10"),
        (
            {"nuisances": ["adverbs"]},
            r"'adverbs' is neither an objective \(.*\) nor computed \(response-tokens, markdown-headers",
        ),
        ({"nuisances": ["response-tokens"], "over": "prompts"}, "debias.over"),
        ({"nuisances": ["response-tokens"], "method": "causal"}, "debias.method"),
    ],
)
def test_faults_of_a_recipe_are_told_before_anything_runs(marked: Path, tiny_folder: Path, debias: dict, said: str):
    with pytest.raises(RecipeError, match=said):
        load_recipe(write_recipe(marked, tiny_folder, debias=debias))


def test_a_dry_run_counts_the_copies(marked: Path, tiny_folder: Path):
    few = plan(write_recipe(marked, tiny_folder, backbone=ROOM, debias={**AGREED, "padded": 10}), priced=True)["costs"]
    more = plan(write_recipe(marked, tiny_folder, backbone=ROOM, debias={**AGREED, "padded": 60}), priced=True)["costs"]
    assert more["answers"] - few["answers"] == 2 * 50
    assert more["tokens"] > few["tokens"]
    disk = [next(s for s in c["stages"] if s["stage"] == "features")["disk"] for c in (few, more)]
    assert disk[1] > disk[0]
