"""The page at `/`: its routes and headers, its arithmetic beside the server's, and the page itself in headless Chromium."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient
from page_app import Simple, app_of, serving

from armorm.bench.perturbations import PERTURBATIONS
from armorm.model.reward_model import RewardModel
from armorm.scoring.explain import difference
from armorm.scoring.profile import Profile
from armorm.serving import page

CHROMIUM = os.environ.get("ARMORM_CHROMIUM", "/usr/bin/chromium")
PROMPT = "how are you?"
ANSWERS = ["fine, thank you. 2 + 2 is 4; how are you? hello hello. def f(x): return x. it is fine.", "hello", "return 2"]
HOSTILE = [
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">",
    "\u202emoc.live\u202c مرحبا <b>bold</b> ${7*7} {{7*7}} " + "\N{PILE OF POO}" * 20,
    "</textarea><style>body{display:none}</style>" + "x" * 30_000,
]
PROFILES: list[dict[str, Any]] = [
    {},
    {"scale": {"helpful": 2.5, "safe": 0.1}},
    {"drop": ["helpful"]},
    {"drop": ["helpful", "safe"]},
    {"fix": {"safe": 0.4}},
    {"fix": {"helpful": 0.2, "safe": 0.3, "verbosity": 0.5}},
    {"floor": {"safe": 0.5}, "cap": {"helpful": 0.3}},
    {"floor": {"safe": 0.5, "helpful": 0.5}},
    {"cap": {"safe": 0.05, "helpful": 0.4}},
    {"weights": {"helpful": 2, "safe": 1}, "blend": 0.5},
    {"weights": {"verbosity": 3e-7}, "blend": 1},
    {"weights": {"helpful": 1}, "blend": 1, "floor": {"safe": 0.2}, "cap": {"verbosity": 0.1}},
    {"constraints": [{"objective": "safe", "at_least": 0.9}, {"objective": "verbosity", "at_most": 1e-05, "penalty": 3}]},
    {"nuisances": {"response-tokens": 2.0, "verbosity": 0}},
    {"scale": {"safe": 7}, "drop": ["verbosity"], "cap": {"safe": 0.6}, "nuisances": {"response-tokens": 0}},
]


@pytest.fixture(scope="module")
def service(tiny_model: RewardModel) -> Simple:
    return Simple(tiny_model, profiles={"careful": Profile(name="careful", floor={"safe": 0.6})})


@pytest.fixture
def client(service: Simple) -> Iterator[TestClient]:
    with TestClient(app_of(service)) as client:
        yield client


def conversations(answers: list[str] = ANSWERS) -> list[Any]:
    return [[{"role": "user", "content": PROMPT}, {"role": "assistant", "content": text}] for text in answers]


# -- routes ----------------------------------------------------------------------------------------------------


def test_every_file_of_the_page_is_served_with_headers_that_forbid_the_rest(client: TestClient):
    served = {"index.html": client.get("/"), **{name: client.get(f"/page/{name}") for name in page.FILES}}
    assert len(served) == len(page.FILES) == len([f for f in Path(page.__file__).parent.iterdir() if f.suffix in page.KINDS])
    for name, reply in served.items():
        assert reply.status_code == 200, name
        assert "unsafe" not in (policy := reply.headers["content-security-policy"])
        assert "default-src 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-type"].startswith(page.KINDS[Path(name).suffix])


@pytest.mark.parametrize("path", ["/page/__init__.py", "/page/..%2f__init__.py", "/page/no.js", "/page/%00"])
def test_nothing_but_the_pages_files_is_served(client: TestClient, path: str):
    assert client.get(path).status_code == 404


def test_the_files_name_no_other_origin_and_make_no_markup_of_text():
    folder = Path(page.__file__).parent
    for name in page.FILES:
        text = (folder / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", text), name
        assert not re.search(r"\sstyle=|<style|<script>|\son[a-z]+=\"", text), name


def test_the_basis_gives_every_score_again(client: TestClient, service: Simple):
    basis = client.get("/v1/basis").json()
    assert [o["name"] for o in basis["objectives"]] == list(service.objectives)
    assert basis["computed"] == ["response-tokens"]
    assert basis["profiles"] == {"careful": {"name": "careful", "floor": {"safe": 0.6}}}
    assert basis["profile"] is None
    for score in service.model.score(conversations()):
        gate = np.array([score.gate[o["name"]] for o in basis["objectives"]])
        terms = np.array(list(score.terms.values()))
        assert (np.array(basis["transform"]) @ gate) @ terms == pytest.approx(score.score, abs=1e-5)


def test_a_profile_is_checked_and_told_as_a_file(client: TestClient, tmp_path: Path):
    facts = {"scale": {"helpful": 0.5}, "drop": ["verbosity"], "constraints": [{"objective": "safe", "at_least": 0.3}]}
    told = client.post("/v1/profiles/check", json={"profile": facts, "name": "ours: mine"}).json()
    (tmp_path / "p.yaml").write_text(told["yaml"], encoding="utf-8")
    assert Profile.from_yaml(tmp_path / "p.yaml") == Profile.from_json({"name": "ours: mine", **facts})
    again = client.post("/v1/profiles/check", json={"text": told["yaml"], "name": "other"}).json()
    assert again["profile"] == told["profile"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"profile": {"drop": ["helpfull"], "floor": {"safe": 2}}}, "floor"),
        ({"profile": {"drop": ["helpfull"], "scale": {"none": 1}}}, "did you mean 'helpful'"),
        ({"text": "a: [1"}, "not YAML"),
        ({"text": "- 1"}, "expected keys and values"),
        ({"text": "x: &a [1]\ny: !!python/object:os.system {}"}, "mine"),
        ({"text": "# " + "x" * 1_000_001}, "larger than"),
        ({"profile": {"nuisances": {"safe": 2}, "drop": ["helpful", "safe", "verbosity"]}}, "no objective is left"),
        ({}, "one of them"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_in_a_sentence(client: TestClient, body: dict[str, Any], said: str):
    reply = client.post("/v1/profiles/check", json={"name": "mine", **body})
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_an_audit_scores_every_change_that_applies(client: TestClient, service: Simple):
    prose = "Hello, how are you? It is fine. Thank you for that. All of it is hello. Return to user."
    body = {"messages": conversations()[0][:1], "answer": prose, "other": "return"}
    told = client.post("/v1/audit", json=body).json()
    assert {c["name"] for c in [*told["changes"], *told["inapplicable"]]} == {p.name for p in PERTURBATIONS}
    assert told["inapplicable"] == []
    scores = [told["original"]["score"], *(c["result"]["score"] for c in told["changes"])]
    alone = service.model.score(conversations([prose, *(c["answer"] for c in told["changes"])]))
    assert scores == pytest.approx([s.score for s in alone], abs=1e-5)
    assert client.post("/v1/audit", json=body).json() == told
    short = client.post("/v1/audit", json={**body, "answer": "no", "other": ""}).json()
    assert {"off-topic", "one-word", "shuffled"} <= {c["name"] for c in short["inapplicable"]}
    steered = client.post("/v1/audit", json={**body, "profile": "careful"}).json()
    assert steered["original"]["score"] == pytest.approx(
        service.model.score(conversations([prose])[0], profile=service.profiles["careful"]).score, abs=1e-5
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"answer": "  "}, 400),
        ({"answer": "\ud800"}, 400),
        ({"messages": []}, 422),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400),
        ({"profile": {"drop": ["nothing"]}}, 400),
        ({"seed": -1}, 422),
        ({"answers": []}, 422),
    ],
)
def test_an_audit_of_what_is_no_answer_is_refused(client: TestClient, body: dict[str, Any], status: int):
    whole = {"messages": [{"role": "user", "content": PROMPT}], "answer": "fine", **body}
    sent = json.dumps(whole)  # httpx itself would refuse half a surrogate pair
    assert client.post("/v1/audit", content=sent, headers={"Content-Type": "application/json"}).status_code == status


# -- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def url(service: Simple, browser: Any) -> Iterator[str]:
    with serving(app_of(service)) as url:
        yield url


@pytest.fixture
def opened(browser: Any, url: str, service: Simple) -> Iterator[Any]:
    """An empty page of its own; when it closes, nothing may have left the origin, and no script may have failed."""
    context = browser.new_context(accept_downloads=True, reduced_motion="reduce")
    shown = context.new_page()
    asked, faults = [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
    shown.set_default_timeout(30_000)
    shown.goto(url)
    yield shown
    context.close()
    service.refuse = None
    assert asked
    assert {urlsplit(one).netloc for one in asked if not one.startswith("blob:")} == {urlsplit(url).netloc}
    assert not faults


def fill(shown: Any, answers: list[str] = ANSWERS, prompt: str = PROMPT) -> None:
    shown.get_by_label("Prompt", exact=True).fill(prompt)
    for _ in range(len(answers) - shown.locator(".answer").count()):
        shown.get_by_role("button", name="Add an answer").click()
    for letter, text in zip("ABCDEF", answers, strict=False):
        shown.get_by_label(f"Answer {letter}", exact=True).fill(text)
    shown.keyboard.press("Control+Enter")


def scored(shown: Any, answers: list[str] = ANSWERS) -> None:
    fill(shown, answers)
    shown.locator("#ranking li").first.wait_for()


def await_one(shown: Any, held: list[Any]) -> None:
    """Until the page has asked, five seconds at most."""
    for _ in range(100):
        if held:
            break
        shown.wait_for_timeout(50)


def ranked(shown: Any) -> list[str]:
    return [text.strip() for text in shown.locator("#ranking .letter").all_text_contents()]


def numbers(shown: Any) -> list[float]:
    """The scores on the answers' cards."""
    texts = [text.split("±")[0].replace("−", "-") for text in shown.locator(".points").all_text_contents()]
    return [float(text) for text in texts]


def test_scores_are_shown_with_their_parts(opened: Any, service: Simple):
    scored(opened)
    expected = service.model.score(conversations())
    assert numbers(opened) == pytest.approx([s.score for s in expected], abs=6e-4)
    order = sorted(zip([-s.score for s in expected], "ABC", strict=True))
    assert ranked(opened) == [letter for _, letter in order]
    rows = {row.get_attribute("data-term"): row for row in opened.locator("#table tbody tr").all()}
    assert set(rows) == {*service.objectives, "response-tokens"}
    for name, row in rows.items():
        told = [float(t.replace("−", "-").replace("+", "")) for t in row.locator(".cell:not(.plain) .value").all_text_contents()]
        assert told == pytest.approx([s.contributions[name] for s in expected], abs=6e-4)
    for name, weight in expected[0].gate.items():
        assert float(rows[name].locator(".weight .value").text_content().split()[0]) == pytest.approx(100 * weight, abs=0.5)
    assert "tokens" in opened.locator(".facts").first.text_content()
    a, b = ranked(opened)[:2]
    pair = difference(expected["ABC".index(a)], expected["ABC".index(b)], names=(a, b))
    assert opened.locator("#sentence").text_content().replace("\xa0", " ") == pair.sentence
    assert "no calibration" in opened.locator("#sure:not(:empty)").text_content()


def test_a_slider_moves_the_ranking_without_the_decoder(opened: Any, service: Simple):
    scored(opened)
    opened.locator("#sure:not(:empty)").wait_for()
    before, passes = ranked(opened), service.passes
    trained = service.model.engine().score(conversations())
    found = None
    for name in service.objectives:
        slider = opened.get_by_label(f"How much {name} counts")
        slider.focus()
        opened.keyboard.press("End")
        scores = trained.steered(Profile(scale={name: 8.0})).scores
        assert numbers(opened) == pytest.approx(scores, abs=6e-4)
        found = found or (name if ranked(opened) != before else None)
        opened.keyboard.press("Home")
        assert numbers(opened) == pytest.approx(trained.steered(Profile(drop=(name,))).scores, abs=6e-4)
        opened.get_by_role("button", name="Reset").click()
    assert ranked(opened) == before
    assert found, "no slider changed the order"
    assert service.passes == passes


def test_the_last_objective_can_not_be_turned_off(opened: Any, service: Simple):
    scored(opened)
    for name in service.objectives:
        opened.get_by_label(f"How much {name} counts").fill("-31")
    assert "No objective is left" in opened.get_by_role("alert").filter(has_text="objective").text_content()
    assert not any(opened.locator(".answer .points").all_inner_texts())
    for left in ("#ranking", "#sentence", "#legend", "#table .value >> nth=0"):
        assert opened.locator(left).is_hidden(), left
    assert not opened.locator("#table th.first").count()
    assert "weight" not in opened.get_by_label("How much safe counts").get_attribute("aria-valuetext")
    assert opened.get_by_role("button", name="Audit answer A").is_disabled()
    opened.get_by_role("button", name="Score", exact=True).click()
    opened.get_by_text("nothing is shown").wait_for()
    opened.get_by_label("How much safe counts").fill("0")
    assert opened.locator("#refused").is_hidden()
    assert opened.locator("#ranking").is_visible()
    only = service.model.engine().score(conversations()).steered(Profile(drop=("helpful", "verbosity")))
    assert numbers(opened) == pytest.approx(only.scores, abs=6e-4)


def test_the_browsers_arithmetic_is_the_servers(opened: Any, service: Simple):
    table = service.model.engine().score(conversations())
    results = [
        {"gate": s.gate, "rewards": s.rewards, "terms": s.terms, "contributions": s.contributions}
        for s in map(table.__getitem__, range(3))
    ]
    told = opened.evaluate(
        """async ([results, profiles]) => {
            const { weigh, readBasis, readRow, steers } = await import("/page/weighing.js");
            const { difference, sentence } = await import("/page/telling.js");
            const basis = readBasis(await (await fetch("/v1/basis")).json());
            return profiles.map((profile) => {
                const rows = results.map((one) => weigh(basis, readRow(basis, one), profile));
                const derived = results.map(({ terms, ...one }) => weigh(basis, readRow(basis, one), profile).score);
                return { rows, derived, steers: steers(profile), said: sentence(difference(rows[0], rows[1]), "A", "B") };
            });
        }""",
        [[{k: dict(v) for k, v in one.items()} for one in results], PROFILES],
    )
    assert len(told) == len(PROFILES)
    for facts, found in zip(PROFILES, told, strict=True):
        profile = Profile.from_json(facts)
        steered = table.steered(profile)
        assert found["steers"] == profile.steers
        assert [row["score"] for row in found["rows"]] == pytest.approx(steered.scores, abs=2e-5), facts
        assert found["derived"] == pytest.approx(steered.scores, abs=1e-4), facts
        for i, row in enumerate(found["rows"]):
            assert row["names"] == list(steered[i].contributions), facts
            assert row["contributions"] == pytest.approx(list(steered[i].contributions.values()), abs=2e-5), facts
            assert row["gate"] == pytest.approx(list(steered[i].gate.values()), abs=1e-6), facts
        assert found["said"] == difference(steered[0], steered[1]).sentence, facts


def test_a_link_restores_texts_and_weights(opened: Any, url: str):
    scored(opened)
    opened.get_by_label("How much safe counts").fill("20")
    opened.get_by_label("Compare", exact=True).select_option(label="C")
    opened.get_by_role("button", name="Copy link").click()
    opened.locator("#link").wait_for()
    link, shown, order = opened.locator("#link-text").input_value(), numbers(opened), ranked(opened)
    assert link.startswith(f"{url}/#s=")
    other = opened.context.new_page()
    other.goto(link)
    other.locator("#ranking li").first.wait_for()
    assert numbers(other) == pytest.approx(shown, abs=1.1e-3)
    assert ranked(other) == order
    assert other.get_by_label("Answer C", exact=True).input_value() == ANSWERS[2]
    assert other.get_by_label("Compare", exact=True).input_value() == "2"
    assert "× 4" in other.locator("#table tr[data-term=safe] output").text_content()


@pytest.mark.parametrize("hash_", ["s=%00", "s=AAAA", "s=" + "A" * 9000, "s=q1YqU7IyrNVRKgXSAA"])
def test_a_damaged_link_is_named(opened: Any, url: str, hash_: str):
    opened.goto(f"{url}/#{hash_}")
    assert "This link is damaged" in opened.locator("#fault:not([hidden])").text_content()
    assert opened.locator(".answer").count() == 2


def test_links_are_bounded(opened: Any):
    rng = np.random.default_rng(0)
    opened.get_by_label("Answer A", exact=True).fill("".join(map(chr, rng.integers(33, 126, size=20_000))))
    opened.get_by_role("button", name="Copy link").click()
    opened.get_by_text("too long for a link").wait_for()
    big = opened.evaluate(
        """async () => {
            const packed = new Blob(["0".repeat(5e6)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
            const bytes = new Uint8Array(await new Response(packed).arrayBuffer());
            const hash = "#s=" + btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
            const { read } = await import("/page/link.js");
            return [hash.length, await read(hash).catch((fault) => fault.message)];
        }"""
    )
    assert big[0] < 8000
    assert big[1] == "too much"


def test_hostile_text_stays_text(opened: Any):
    scored(opened, HOSTILE)
    opened.get_by_role("button", name="Audit answer A").click()
    opened.locator("#changes tbody tr").first.wait_for()
    assert opened.title() == "armorm: scores that say why"
    assert opened.locator("main img, main script, main style, main b:has-text('bold')").count() == 0
    opened.locator("#changes summary").first.click()
    assert "<script>" in opened.locator("#changes blockquote").first.text_content()
    assert opened.locator("#prompt").get_attribute("dir") == "auto"
    width = opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0
    assert "cut" in opened.locator(".trouble:visible").first.text_content()


def test_an_audit_is_shown_and_weighed_anew(opened: Any, service: Simple):
    scored(opened)
    opened.get_by_role("button", name="Audit answer A").click()
    row = opened.locator("#changes tr[data-change=repeated]")
    row.wait_for()
    passes = service.passes
    opened.get_by_label("How much safe counts").fill("20")
    twice = f"{ANSWERS[0]}\n\n{ANSWERS[0]}"
    table = service.model.engine().score(conversations([ANSWERS[0], twice]), profile=Profile(scale={"safe": 4.0}))
    shift = float(row.locator(".value").text_content().replace("−", "-"))
    assert shift == pytest.approx(table.scores[1] - table.scores[0], abs=1.1e-3)
    assert any(mark in row.locator("td").last.text_content() for mark in "▲▼=")
    assert service.passes == passes


def test_profiles_are_saved_and_loaded(opened: Any, service: Simple, tmp_path: Path):
    scored(opened)
    opened.get_by_label("How much safe counts").fill("20")
    opened.get_by_label("How much verbosity counts").fill("-31")
    opened.get_by_label("The profile’s name").fill("my own")
    with opened.expect_download() as coming:
        opened.get_by_role("button", name="Save").click()
    saved = tmp_path / "saved.yaml"
    coming.value.save_as(saved)
    assert coming.value.suggested_filename == "my-own.yaml"
    assert Profile.from_yaml(saved) == Profile(name="my own", scale={"safe": 4.0}, drop=("verbosity",))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.safe_dump({"floor": {"safe": 0.5}, "fix": {"helpful": 0.2}, "constraints": [{"objective": "safe", "at_least": 0.9}]})
    )
    opened.locator("#load").set_input_files(mine)
    opened.locator("#wishes li").nth(2).wait_for()
    steered = service.model.engine().score(conversations()).steered(Profile.from_yaml(mine))
    assert numbers(opened) == pytest.approx(steered.scores, abs=6e-4)
    assert opened.get_by_label("How much helpful counts").is_disabled()
    assert opened.locator("#table tr[data-term='safe at least 0.9']").count() == 1
    opened.get_by_label("Remove: safe at least 0.9, or it costs").click()
    assert opened.locator("#table tr[data-term='safe at least 0.9']").count() == 0
    opened.get_by_label("Weights", exact=True).select_option(label="careful")
    careful = service.model.engine().score(conversations()).steered(service.profiles["careful"])
    assert numbers(opened) == pytest.approx(careful.scores, abs=6e-4)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("drop: [helpfull]")
    opened.locator("#load").set_input_files(wrong)
    assert "did you mean 'helpful'" in opened.locator("#fault:not([hidden])").text_content()
    assert numbers(opened) == pytest.approx(careful.scores, abs=6e-4)


def test_a_baked_in_profile_is_where_the_page_begins(browser: Any, url: str, service: Simple):
    service.profile = Profile(name="baked", cap={"helpful": 0.1})
    try:
        shown = browser.new_page()
        shown.goto(url)
        scored(shown)
        steered = service.model.engine().score(conversations()).steered(service.profile)
        assert numbers(shown) == pytest.approx(steered.scores, abs=6e-4)
        assert "for the weights as trained alone" in shown.locator("#sure").text_content()
        shown.get_by_label("Weights", exact=True).select_option(label="As trained")
        assert numbers(shown) == pytest.approx(service.model.engine().score(conversations()).scores, abs=6e-4)
        shown.get_by_role("button", name="Reset").click()
        assert numbers(shown) == pytest.approx(steered.scores, abs=6e-4)
        shown.close()
    finally:
        service.profile = None


def test_an_answer_without_a_score_costs_no_other_its_own(opened: Any, service: Simple):
    answers = [ANSWERS[0], "\x85", ANSWERS[2]]  # white space to Python, a letter to browsers
    scored(opened, answers)
    assert "No score: empty-turn" in opened.locator(".trouble").nth(1).text_content()
    assert sorted(ranked(opened)) == ["A", "C"]
    assert opened.get_by_role("button", name="Audit answer B").is_disabled()


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {"Retry-After": "7"}, "try again in 7 s"),
        (413, {}, "more than the server takes"),
        (503, {}, "stopping or still loading"),
        (500, {}, "the server says no (request r1)"),
    ],
)
def test_a_refusal_says_what_to_do(opened: Any, service: Simple, status: int, headers: dict[str, str], said: str):
    service.refuse = (status, headers)
    fill(opened)
    assert said in opened.locator("#fault:not([hidden])").text_content()
    service.refuse = None
    opened.get_by_role("button", name="Score", exact=True).click()
    opened.locator("#ranking li").first.wait_for()
    assert opened.locator("#fault").is_hidden()


def test_a_key_is_asked_for_and_sent(opened: Any, service: Simple):
    service.refuse = (401, {})
    fill(opened)
    opened.get_by_label("API key").fill("secret-key")
    service.refuse = None
    with opened.expect_request("**/v1/rewards") as request:
        opened.get_by_role("button", name="Use this key").click()
        opened.get_by_role("button", name="Score", exact=True).click()
    assert request.value.headers["authorization"] == "Bearer secret-key"
    opened.locator("#ranking li").first.wait_for()
    assert "secret-key" not in opened.url


def test_empty_fields_are_named_before_the_server_is_asked(opened: Any, service: Simple):
    passes = service.passes
    opened.get_by_role("button", name="Score", exact=True).click()
    fill(opened, ["fine", "  "])
    opened.get_by_text("Answer B is empty").wait_for()
    assert opened.evaluate("document.activeElement.getAttribute('aria-label')") == "Answer B"
    assert service.passes == passes


def test_an_edited_answer_is_marked_until_it_is_scored_again(opened: Any):
    scored(opened)
    opened.get_by_label("Answer B", exact=True).fill("hello you")
    assert opened.locator(".answer.stale").count() == 1
    assert opened.get_by_role("button", name="Audit answer B").is_disabled()
    opened.get_by_role("button", name="Audit answer A").click()
    opened.locator("#changes tr[data-change=repeated]").wait_for()
    opened.get_by_label("Answer B", exact=True).fill("hello you two")
    assert opened.locator("#audit").is_visible()  # it is of the other answer
    opened.get_by_label("Answer A", exact=True).fill("hello")
    assert opened.locator("#audit").is_hidden()
    opened.get_by_role("button", name="Remove answer A").click()
    assert opened.locator("#scores").is_hidden()
    assert opened.get_by_label("Answer A", exact=True).input_value() == "hello you two"


def test_an_audit_of_an_answer_that_was_edited_meanwhile_is_not_shown(opened: Any):
    held: list[Any] = []
    scored(opened)
    opened.route("**/v1/audit", lambda route: held.append(route))
    opened.get_by_role("button", name="Audit answer A").click()
    await_one(opened, held)
    opened.get_by_label("Answer A", exact=True).fill("hello")
    held[0].continue_()
    opened.get_by_text("edited meanwhile").wait_for()
    assert opened.locator("#audit").is_hidden()


def test_what_went_wrong_is_told_until_something_is_written(opened: Any, service: Simple):
    service.refuse = (503, {})
    try:
        fill(opened)
        opened.locator("#fault").wait_for()
    finally:
        service.refuse = None
    opened.get_by_label("Answer A", exact=True).fill("hello")
    assert opened.locator("#fault").is_hidden()


@pytest.mark.parametrize("path", ["rewards", "compare", "audit"])
def test_a_reply_about_answers_that_are_gone_is_not_shown(opened: Any, path: str):
    held: list[Any] = []
    if path == "audit":
        scored(opened, [ANSWERS[2], ANSWERS[1], ANSWERS[0]])
    opened.route(f"**/v1/{path}", lambda route: held.append(route))
    if path == "audit":
        opened.get_by_role("button", name="Audit answer C").click()
    else:
        fill(opened)
    opened.wait_for_function("n => document.querySelectorAll('.answer').length === n", arg=len(ANSWERS))
    await_one(opened, held)
    assert held
    opened.get_by_role("button", name="Remove answer A").click()
    for one in held:
        with contextlib.suppress(Exception):  # the page no longer waits for it
            one.continue_()
    opened.wait_for_timeout(300)
    assert opened.locator("#scores").is_hidden()
    assert opened.locator("#audit").is_hidden()
    assert not opened.locator(".answer .points").all_inner_texts()[0]
    assert opened.get_by_role("button", name="Score", exact=True).is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_every_text_has_contrast(browser: Any, url: str, scheme: str):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, is_mobile=True)
    shown = context.new_page()
    shown.set_default_timeout(30_000)
    shown.goto(url)
    scored(shown)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    poor = shown.evaluate(CONTRAST)
    context.close()
    assert not poor


def test_every_control_has_a_name_and_can_be_reached_by_key(opened: Any):
    scored(opened)
    nameless = opened.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea")].filter((e) =>
            !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    opened.get_by_label("Prompt", exact=True).focus()
    reached = set()
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert {"Answer A", "Audit answer C", "score", "one", "profile", "load", "save", "How much safe counts"} <= reached


CONTRAST = """() => {
    const number = (colour) => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
        const c = [r, g, b][i] / 255;
        return sum + part * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
    const ground = (e) => {
        for (let at = e; at; at = at.parentElement) {
            const colour = number(getComputedStyle(at).backgroundColor);
            if (colour[3] > 250) return colour;
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.checkVisibility() || e.disabled || e.tagName === "OPTION") continue;
        const [one, other] = [light(number(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
        if ((one + 0.05) / (other + 0.05) < 4.5) poor.push(`${e.tagName} ${e.className}: ${e.textContent.slice(0, 40)}`);
    }
    return poor;
}"""
