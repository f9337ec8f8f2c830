"""`armorm explain` and `armorm steer` on a whole small run: rows, pairs, prompts, profiles, the page."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_run import Armorm, read_lines, write_lines

from armorm.bench.profiles import ProfileRow
from armorm.model.reward_model import RewardModel
from armorm.report.bench_report import profile_grid
from armorm.report.explained import Explained, render_explain_page
from armorm.run.train import Run
from armorm.scoring.reference import Reference


@pytest.fixture(scope="module")
def model(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's model with a reference of 20 prompts beside it."""
    folder = tmp_path_factory.mktemp("explain") / "model"
    shutil.copytree(run.folder / "model", folder)
    names = RewardModel.from_pretrained(folder).objectives.names
    rng = np.random.default_rng(0)
    rewards, gates = rng.uniform(size=(200, len(names))), rng.dirichlet(np.ones(len(names)), 20)
    prompts = [f"training prompt {i} <script>" for i in range(20)]
    Reference.of(names, rewards, rewards.mean(axis=1), prompts=prompts, sources=["chat"] * 20, gates=gates).save(
        folder / "armorm"
    )
    (folder / "SHA256SUMS").unlink(missing_ok=True)  # the change is meant
    return folder


@pytest.fixture(scope="module")
def names(model: Path) -> tuple[str, ...]:
    return RewardModel.from_pretrained(model).objectives.names


@pytest.fixture(scope="module")
def file(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, the same as two rows, a prompt alone, five answers, a faulty row."""
    pair = read_lines(rows / "bench.jsonl")[0]
    path = tmp_path_factory.mktemp("file") / "rows.jsonl"
    answers = [{"prompt": pair["prompt"], "response": pair[side]} for side in ("chosen", "rejected")]
    many = {"prompt": pair["prompt"], "responses": ["a", "b", "c"]}
    write_lines(path, [pair, *answers, {"prompt": pair["prompt"]}, many, {"prompt": "x", "response": " "}])
    return path


@pytest.fixture
def profile(names: tuple[str, ...], tmp_path: Path) -> Path:
    path = tmp_path / "careful.yaml"
    label = {"objective": names[0], "at_least": 0.99}
    path.write_text(json.dumps({"fix": {names[0]: 0.75}, "constraints": [label]}))
    return path


def found(armorm: Armorm, *words: object) -> dict:
    code, out, err = armorm("explain", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_pair_is_explained_as_a_difference_that_adds_up(armorm: Armorm, model: Path, file: Path):
    facts = found(armorm, model, file)
    chosen, rejected = facts["answers"]["chosen"], facts["answers"]["rejected"]
    gap = facts["difference"]
    assert gap["same_weights"]
    assert sum(row["delta"] for row in gap["rows"]) == pytest.approx(chosen["score"] - rejected["score"], abs=1e-6)
    for one in (chosen, rejected):
        assert sum(row["contribution"] for row in one["rows"]) == pytest.approx(one["score"], abs=1e-6)
        assert 0 <= one["percentile"] <= 100
        assert len(one["alike"]) == 5
    code, out, _ = armorm("explain", model, file)
    assert code == 0
    assert "chosen − rejected" in out
    pair = facts["comparison"]
    assert (pair["names"], pair["margin"]) == (["chosen", "rejected"], gap["delta"])
    assert 0.5 < pair["probability"] < 1
    assert f"that chosen is the better one is {100 * pair['probability']:.0f} %" in " ".join(out.split())
    assert "±" not in out  # how far rewards may be off is no confidence in the comparison
    assert gap["sentence"].split(";")[0][:30] in out
    assert "training prompts that open the gate alike" in out


def test_two_rows_are_compared_as_a_pair_is(armorm: Armorm, model: Path, file: Path):
    pair, two = found(armorm, model, file)["difference"], found(armorm, model, file, "--row", 2, "--against", 3)["difference"]
    assert two["names"] == ["row 2", "row 3"]
    assert two["delta"] == pytest.approx(pair["delta"], abs=1e-6)
    pair, two = (found(armorm, model, file, *words)["comparison"] for words in ((), ("--row", 2, "--against", 3)))
    assert two["probability"] == pytest.approx(pair["probability"], abs=1e-4)


def test_why_there_is_no_probability_is_said(armorm: Armorm, model: Path, file: Path, profile: Path, tmp_path: Path):
    bare = Path(shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("preference.*")))
    for words, why in (
        ((bare, file), "this model keeps no calibration"),
        ((model, file, "--profile", profile), "not of those under the profile careful"),
    ):
        pair = found(armorm, *words)["comparison"]
        assert pair["probability"] is None
        assert why in pair["note"]
        code, out, _ = armorm("explain", *words)
        assert code == 0
        assert why in " ".join(out.split())
    page = tmp_path / "page.html"
    assert armorm("explain", bare, file, "--html", page)[0] == 0
    assert "this model keeps no calibration" in page.read_text()
    assert armorm("explain", model, file, "--html", page)[0] == 0
    assert "The probability that chosen is the better one is" in page.read_text()


def test_one_answer(armorm: Armorm, model: Path, file: Path):
    facts = found(armorm, model, file, "--row", 2)
    assert facts["score"] == pytest.approx(found(armorm, model, file)["answers"]["chosen"]["score"], abs=1e-6)
    assert facts["sentence"].startswith("The score is")


def test_a_prompt_alone_opens_the_gate_that_its_answers_have(armorm: Armorm, model: Path, file: Path):
    expected = found(armorm, model, file, "--row", 2)["gate"]
    for row in (1, 2, 4):
        facts = found(armorm, model, file, "--row", row, "--prompt-only")
        assert facts["gate"] == pytest.approx(expected, abs=1e-5)
        assert len(facts["alike"]) == 5
    code, out, _ = armorm("explain", model, file, "--row", 4, "--prompt-only")
    assert code == 0
    assert "weights that this prompt opens" in out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--row", 9), "there is no row 9"),
        (("--row", 0), "there is no row 0"),
        (("--row", 10**20), "there is no row 100000000000000000000"),
        (("--against", 10**20), "there is no row 100000000000000000000"),
        (("--row", 2, "--against", 2), "is the same row"),
        (("--row", 1, "--against", 2), "leave the other row out where a row holds two"),
        (("--row", 4), "missing-field"),
        (("--row", 5), "holds 3 answers: give one, or two to compare"),
        (("--row", 6), "empty-turn"),
        (("--against", 2, "--prompt-only"), "leave out `against`"),
        (("--profile", "none.yaml"), "none.yaml: the profile can't be read"),
    ],
)
def test_what_cannot_be_explained(armorm: Armorm, model: Path, file: Path, words: tuple[object, ...], fault: str):
    code, out, err = armorm("explain", model, file, *words)
    assert (code, out) == (2, "")
    assert fault in " ".join(err.split())
    assert "Traceback" not in err


def test_a_profile_steers_and_is_checked(armorm: Armorm, model: Path, file: Path, profile: Path, names: tuple[str, ...]):
    plain, steered = found(armorm, model, file, "--row", 2), found(armorm, model, file, "--row", 2, "--profile", profile)
    assert steered["gate"][names[0]] == pytest.approx(0.75, abs=1e-6)
    assert steered["gate_as_trained"] == pytest.approx(plain["gate"])
    assert steered["profile"] == "careful"
    assert steered["alike"] == plain["alike"]
    assert sum(row["contribution"] for row in steered["rows"]) == pytest.approx(steered["score"], abs=1e-6)
    assert f"{names[0]} at least 0.99" in {row["term"] for row in steered["rows"] if row["kind"] == "constraint"}
    code, out, _ = armorm("explain", model, file, "--row", 2, "--profile", profile)
    assert code == 0
    assert "gate as trained" in " ".join(out.split())
    facts = found(armorm, model, file, "--prompt-only", "--profile", profile)
    assert facts["gate"][names[0]] == pytest.approx(0.75, abs=1e-6)
    profile.write_text(f"drop: [{names[0][:-1]}, nothing-like-it]")
    code, _, err = armorm("explain", model, file, "--profile", profile)
    assert code == 2
    assert f"did you mean '{names[0]}'" in " ".join(err.split())
    assert "nothing-like-it" in err


def test_steer_check(armorm: Armorm, model: Path, profile: Path, names: tuple[str, ...]):
    code, out, _ = armorm("steer", "check", profile, model, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["prompts"] == 20
    assert facts["mean_weights"][names[0]]["steered"] == pytest.approx(0.75)
    assert sum(w["steered"] for w in facts["mean_weights"].values()) == pytest.approx(1)
    code, out, _ = armorm("steer", "check", profile, model)
    assert code == 0
    assert "careful fits" in out
    profile.write_text(f"fix: {{{names[0]}: 0.9, {names[1]}: 0.8, other: 0.1}}")
    code, out, err = armorm("steer", "check", profile, model)
    assert (code, out) == (2, "")
    assert "no objective called 'other'" in " ".join(err.split())
    assert "sum to 1.8" in " ".join(err.split())


def test_steer_bake(armorm: Armorm, model: Path, profile: Path, file: Path, tmp_path: Path):
    out_folder = tmp_path / "baked"
    code, out, err = armorm("steer", "bake", model, profile, out_folder)
    assert code == 0, err
    assert "careful" in out
    assert (out_folder / "profile.yaml").is_file()
    assert found(armorm, out_folder, file) == found(armorm, model, file, "--profile", profile)
    code, _, err = armorm("steer", "bake", model, profile, out_folder)
    assert code == 2
    assert "is there already and not empty" in " ".join(err.split())
    assert not list(tmp_path.glob("*.part"))


class Page(HTMLParser):
    """Collects tags and text; stays quiet about nothing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_shows_it_all_and_runs_nothing(armorm: Armorm, model: Path, file: Path, profile: Path, tmp_path: Path):
    pair = read_lines(file)[0]
    evil = {**pair, "chosen": '<script>alert(1)</script> & "quotes" {{ 7 * 7 }}', "prompt": "<img src=x onerror=alert(1)>"}
    write_lines(tmp_path / "rows.jsonl", [evil, {"prompt": "one", "response": "two"}, {"prompt": "three", "response": "four"}])
    calls = {
        "pair": (),
        "rows": ("--row", 2, "--against", 3),
        "one": ("--row", 2),
        "prompt": ("--prompt-only",),
        "steered": ("--profile", profile),
    }
    for name, words in calls.items():
        path = tmp_path / "pages" / f"{name}.html"
        code, _, err = armorm("explain", model, tmp_path / "rows.jsonl", *words, "--html", path)
        assert code == 0, err
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert not page.open
        assert not {"script", "img", "link", "iframe"} & set(page.tags)
        assert "default-src 'none'" in text
        assert "training prompt" in "".join(page.text)
    assert "<img src=x onerror=alert(1)>" in "".join(Page((tmp_path / "pages" / "pair.html").read_text()).text)
    assert "scores" in (tmp_path / "pages" / "pair.html").read_text()
    rows_page = "".join(Page((tmp_path / "pages" / "rows.html").read_text()).text)
    assert "one" in rows_page
    assert "three" in rows_page
    assert "as trained" in (tmp_path / "pages" / "steered.html").read_text()


def test_the_same_facts_give_the_same_page(armorm: Armorm, model: Path, file: Path):
    prompt = ({"role": "user", "content": "hello"},)
    facts = Explained("m", {"prompt": prompt}, {}, {}, gate={"a": 0.25, "b": 0.75})
    assert render_explain_page(facts) == render_explain_page(facts)
    assert "75.0 %" in render_explain_page(facts)


def test_a_comparison_as_a_table():
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "halves": 0.5, "n": 10, "ties": 0, "unscored": 0}
    gap = {"value": -0.1, "low": -0.2, "high": 0.0}
    row = {"aggregate": "official", "level": "overall", "name": "overall", "base": figure, "steered": figure}
    found = ProfileRow.model_validate({**row, "difference": gap, "p": 0.0001, "gained": 1, "lost": 2})
    (cells,) = profile_grid([found], "careful").rows
    assert [cell.text for cell in cells][3:] == ["−10.0", "< 0.001", "1", "2"]
    assert cells[3].small == "−20.0 to 0.0"  # a rounded zero has no sign
