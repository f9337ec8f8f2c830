"""A run's report: complete, self-contained, escaped, the same bytes for the same results, and quiet about absent parts."""

import copy
import io
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from test_tables import result_types

from armorm.bench.aggregate import Figure
from armorm.errors import MissingExtra, StorageError
from armorm.report.markdown import render_markdown
from armorm.report.run_page import draw_example, render_run_page, write_run
from armorm.report.run_results import RunResults, SuiteResults
from armorm.report.run_tables import run_report, terminal_report, verdict
from armorm.report.terminal import terminal_parts

OBJECTIVES = [
    ("truthfulqa-truthful", "human", 0, 1, "truthfulqa"),
    ("truthfulqa-informative", "human", 0, 1, "truthfulqa"),
    ("qlora-vicuna-overall", "gpt-4", 1, 10, "qlora-vicuna"),
    ("halueval-hallucination-free", "human", 0, 1, "halueval"),
    ("gptfuzz-safe", "human", 0, 1, "gptfuzz"),
    ("jailbreakbench-safe", "llama-3-70b", 0, 1, "jailbreakbench"),
    ("just-eval-helpfulness", "gpt-4", 1, 5, "just-eval"),
    ("just-eval-clarity", "gpt-4", 1, 5, "just-eval"),
    ("just-eval-factuality", "gpt-4", 1, 5, "just-eval"),
    ("just-eval-depth", "gpt-4", 1, 5, "just-eval"),
    ("just-eval-engagement", "gpt-4", 1, 5, "just-eval"),
    ("gsm8k-correct", "computed", 0, 1, "gsm8k"),
    ("mt-bench-overall", "gpt-4", 1, 10, "mt-bench"),
    ("computed-verbosity", "computed", 0, 10, "just-eval"),
]
NAMES = [name for name, *_ in OBJECTIVES]
RATINGS = ["truthfulqa", "qlora-vicuna", "halueval", "gptfuzz", "jailbreakbench", "just-eval", "gsm8k", "mt-bench"]
PAIRS = ["hh-helpful-train", "hh-harmless-train", "pairs-qlora-vicuna", "prmbench-train", "pairs-gsm8k"]
METHODS = {
    "armorm": "ArmoRM: probe, debias, gate",
    "bradley-terry": "Bradley–Terry, linear head",
    "pairwise": "pairwise preference model",
    "fixed-weights": "one weight per objective",
    "mean": "mean of objectives",
    "best-objective": "best single objective",
    "likelihood": "mean log-likelihood",
    "longer": "the longer answer",
}
SUITES = {
    "dev-pairs": {
        "chat/qlora-vicuna-dev": 300,
        "safety/jailbreakbench-dev": 105,
        "safety/gptfuzz-dev": 160,
        "helpful/hh-helpful-base-dev": 300,
        "harmless/hh-harmless-base-dev": 300,
    },
    "rewardbench-partial": {"math-prm": 447, "hep-python": 164, "hep-js": 164, "hep-java": 164, "llmbar-natural": 100},
}
SECTIONS = ["accuracy", "planted", "data", "probe", "uncertainty", "features", "debias", "gate", "length", "preference"]
SECTIONS += ["abstention", "examples", "warnings", "provenance"]
UNDEFINED = {"value": None, "low": None, "high": None}


def interval(value, width=0.04):
    return {"value": float(value), "low": float(value - width), "high": float(value + width)}


def accuracy(value, n, unscored=0):
    share = {"value": float(value), "low": float(value - 1 / n**0.5), "high": float(min(1.0, value + 1 / n**0.5))}
    return share | {"n": n, "ties": n // 90, "unscored": unscored, "halves": float(value)}


def fake_suites(rng):
    suites = []
    for place, (suite, sections) in enumerate(SUITES.items()):
        methods = []
        for rank, (method, label) in enumerate(METHODS.items()):
            by_section = {
                name: accuracy(np.clip(0.72 - 0.025 * rank + rng.normal(0, 0.06), 0.2, 0.98), n) for name, n in sections.items()
            }
            macro = float(np.mean([one["value"] for one in by_section.values()]))
            by_section["macro"] = accuracy(macro, sum(sections.values()))
            pooled = sum(by_section[name]["value"] * n for name, n in sections.items()) / sum(sections.values())
            gap = 0.05 - 0.02 * rank - 0.06 * place
            versus = {"difference": interval(gap, 0.03), "p": 0.0004 if abs(gap) > 0.03 else 0.2}
            overall = accuracy(pooled, sum(sections.values()), unscored=3 if method == "likelihood" else 0)
            whole = {"note": "", "sections": by_section, "overall": overall}
            whole |= {"missing": [], "missing_sections": [], "unlisted": []}
            methods.append(
                {
                    "method": method,
                    "label": label,
                    "overall": overall,
                    "sections": by_section,
                    "missing": [],
                    "figures": {"subsets": by_section, "aggregates": {"items": whole}},
                    "versus_bradley_terry": None if method == "bradley-terry" else versus,
                }
            )
        suites.append({"name": suite, "n": sum(sections.values()), "groups": 624, "rule": "pairs", "methods": methods})
    return suites


def fake_data(rng):
    sources = [
        {
            "name": name,
            "kind": kind,
            "rows": int(rng.integers(600, 6000)),
            "kept": int(rng.integers(400, 600)),
            "groups": int(rng.integers(60, 400)),
            "drops": {"longer than 1,024 tokens": 31, "same answer twice": 4} if name in ("mt-bench", "gsm8k") else {},
            "notes": {},
            "truncated": 12 if name == "mt-bench" else 0,
        }
        for kind, names in (("ratings", RATINGS), ("pairs", PAIRS), ("bench", list(SUITES)))
        for name in names
    ]
    objectives = []
    for name, rater, low, high, _ in OBJECTIVES:
        bins = 2 if high == 1 else int(high - low + 1)
        counts = [int(n) for n in rng.integers(5, 900, size=bins) * np.linspace(0.2, 1, bins)]
        edges = [float(edge) for edge in np.linspace(low, high, bins + 1)]
        histogram = {"edges": edges, "counts": counts}
        mean = (low + high) / 2 + 0.2
        objectives.append(
            {
                "name": name,
                "rater": rater,
                "min": low,
                "max": high,
                "n": sum(counts),
                "mean": mean,
                "histogram": histogram,
            }
        )
    counts = [[3 ** int(rng.integers(4, 9)) if RATINGS[row] == one[4] else 0 for one in OBJECTIVES] for row in range(8)]
    counts[1][13] = 2145
    splits = {"ratings": {"train": 19321, "test": 4882}, "pairs": {"train": 7100, "validation": 910, "test": 918}}
    labels = {"sources": RATINGS, "objectives": NAMES, "counts": counts}
    return {"sources": sources, "objectives": objectives, "labels": labels, "splits": splits}


def fake_probe(rng):
    rows = []
    for place, (name, _, low, high, _) in enumerate(OBJECTIVES):
        r = float(rng.uniform(0.15, 0.8))
        few = name == "just-eval-clarity"
        rows.append(
            {
                "name": name,
                "n": 41,
                "n_train": int(rng.integers(400, 4600)),
                "n_test": 41 if few else int(rng.integers(120, 1200)),
                "alpha": float(10.0 ** rng.integers(-1, 4)),
                "pearson": interval(r, 0.2 if few else 0.05),
                "spearman": interval(r - 0.03, 0.2 if few else 0.05),
                "r2": interval(-1.4 if few else r * r, 0.9 if few else 0.06),
                "rmse": interval(0.3, 0.02),
                "rmse_raw": interval(0.3 * (high - low), 0.02 * (high - low)),
                "auc": interval(0.5 + r / 2.4, 0.03) if high == 1 else None,
                "warnings": ["only 41 test rows: read the interval, not the value"] if few else [],
            }
        )
        rows[-1]["r2"]["value"] += 0.001 * place
    candidates = [
        {"feature": f"layer {layer}, {pooling}", "pearson": float(0.42 - 0.0004 * (layer - 19) ** 2 + 0.03 * shift)}
        for layer in (10, 15, 20, 25, 30)
        for shift, pooling in enumerate(("last token", "mean of response"))
    ]
    best = max(candidates, key=lambda one: one["pearson"])["feature"]
    uncertainty = fake_uncertainty()
    return {"feature": best, "candidates": candidates, "objectives": rows, "warnings": [], "uncertainty": uncertainty}


def fake_uncertainty():
    row = {"sigma": 0.2, "scale": 1.1, "inflation": 1.2, "reach": 2.01, "n": 400, "coverage_cross_validated": interval(0.94)}
    row |= {"n_test": 90, "coverage": interval(0.93), "mean_std": 0.05, "mean_width": 0.8}
    parts = [{"objectives": NAMES, "rank": 64, "error": 0.001, "worst": 0.004}]
    rows = [row | {"name": name} for name in NAMES]
    return {"level": 0.95, "coverage": interval(0.94), "n_test": 1260, "objectives": rows, "parts": parts, "bytes": 1000}


def fake_abstention():
    def point(left_open, threshold):
        decided = round(1165 * (1 - left_open))
        return {"abstained": left_open, "decided": decided, "threshold": threshold, "error": interval(0.2), "promised": 0.19}

    curve = [point(0.1 * i, 0.5 + 0.05 * i) for i in range(10)]
    by_margin = [{**one, "promised": None} for one in curve]
    areas = {"area_probability": interval(0.2), "area_margin": interval(0.2), "area_gain": interval(0.0)}
    curves = {"by_probability": curve, "by_margin": by_margin, "rules": [point(0.2, 0.8)]}
    return [{"suite": "dev-pairs", "n": 1165, **curves, **areas}]


def fake_preference():
    losses = {"logistic": 0.6, "isotonic": 0.61}
    about = {"form": "logistic", "pairs": 910, "prompts": 560, "slope": 9.5, "most": 561 / 562, "log_loss": losses}
    return about | {"reason": "", "warnings": []}


def fake_reliability():
    bins = [{"n": 116, "confidence": 0.5 + 0.05 * i, "right": interval(0.49 + 0.05 * i)} for i in range(10)]
    numbers = {
        "ece": interval(0.02, 0.01),
        "chance": 0.018,
        "chance_high": 0.03,
        "log_loss": interval(0.6),
        "brier": interval(0.2),
    }
    return [{"suite": suite, "n": 1160, "groups": 624, **numbers, "bins": bins} for suite in SUITES]


def fake_debias(rng):
    nuisances = ["computed-verbosity", "response-tokens"]
    rows = []
    for name in NAMES:
        before = {nuisance: float(rng.uniform(-0.4, 0.8)) for nuisance in nuisances}
        rows.append(
            {
                "name": name,
                "coefficients": {nuisance: before[nuisance] * 0.7 for nuisance in nuisances},
                "reference": {nuisance: {"before": before[nuisance], "after": 0.0} for nuisance in nuisances},
                "held_out": {
                    nuisance: {"before": before[nuisance] + 0.05, "after": float(rng.normal(0, 0.06))} for nuisance in nuisances
                },
            }
        )
    reference, held_out = {"sources": ["just-eval", "qlora-vicuna"], "n": 2802}, {"n": 700}
    about = {"method": "spearman", "nuisances": nuisances, "itself": "kept", "reference": reference, "held_out": held_out}
    return about | {"objectives": rows, "warnings": []}


def fake_gate(rng):
    steps = list(range(0, 2001, 50))
    curves = [
        {
            "seed": seed,
            "steps": steps,
            "train_loss": [0.69 - 0.15 * (1 - 0.998**step) for step in steps],
            "validation_loss": [0.69 - 0.1 * (1 - 0.997**step) + 2e-5 * step + float(rng.normal(0, 0.002)) for step in steps],
            "validation_accuracy": [0.5 + 0.17 * (1 - 0.996**step) + float(rng.normal(0, 0.006)) for step in steps],
            "beta": [100 - 30 * (1 - 0.999**step) + seed for step in steps],
        }
        for seed in range(3)
    ]
    by_source = {
        source: dict(zip(NAMES, map(float, rng.dirichlet(np.full(14, 0.35))), strict=True)) for source in [*PAIRS, *SUITES]
    }
    spread = {"validation_accuracy": {"mean": 0.671, "std": 0.006, "values": [0.665, 0.671, 0.677]}}
    about = {"curves": curves, "chosen_seed": 2, "best_step": 1250, "scale": 12.0, "spread": spread}
    return about | {"by_source": by_source, "single": "gptfuzz-safe"}


def fake_example(rng, section, prompt, texts):
    answers = []
    for text, label in zip(texts, ("chosen", "rejected"), strict=True):
        gate = rng.dirichlet(np.full(14, 0.5))
        rewards = rng.uniform(0, 1, 14)
        terms = [
            {
                "term": name,
                "reward": float(reward),
                "raw": float(low + reward * (high - low)),
                "gate": float(weight),
                "coefficient": float(weight),
                "contribution": float(reward * weight),
            }
            for (name, _, low, high, _), reward, weight in zip(OBJECTIVES, rewards, gate, strict=True)
        ]
        tokens = {"term": "response-tokens", "reward": 0.41, "raw": None, "gate": None, "coefficient": -0.32}
        terms.append(tokens | {"contribution": -0.32 * 0.41})
        score = sum(term["contribution"] for term in terms)
        answers.append({"text": text, "label": label, "score": score, "terms": terms})
    return {"section": section, "prompt": prompt, "answers": answers}


def full_results():
    """Everything the pipeline can write, with made-up numbers and some hostile text."""
    rng = np.random.default_rng(7)
    suites = fake_suites(rng)
    lengths = [
        {
            "suite": suite,
            "method": method,
            "pooled": interval(0.99 if method == "longer" else rng.uniform(-0.1, 0.6), 0.01),
            "within_prompt": interval(0.99 if method == "longer" else rng.uniform(-0.2, 0.5), 0.01),
        }
        for suite in SUITES
        for method in METHODS
    ]
    planted = [
        {
            "what": "an objective that only copies length loses its hold on the score",
            "aim": "|correlation| below 0.05",
            "value": 0.021,
            "met": True,
            "ablation": {"what": "without debiasing", "value": 0.64},
        },
        {
            "what": "maths prompts are sent to the maths objective",
            "aim": "weight above 0.8",
            "value": 0.71,
            "met": False,
            "ablation": None,
        },
        {
            "what": "an objective that no text shows",
            "aim": None,
            "value": 0.185,
            "met": None,
            "ablation": {"what": "fitted on permuted ratings", "value": 0.106},
        },
    ]
    examples = [
        fake_example(
            rng,
            "chat/qlora-vicuna-dev",
            "How can I improve my time management skills?",
            [
                "Start by writing down where your hours go for a week. " * 9 + "\n\n1. Plan.\n2. Act.\n3. Look back.",
                "Time management is important. " * 4,
            ],
        ),
        fake_example(
            rng,
            "helpful/hh-helpful-base-dev",
            "user: Show me a page that greets me.\n\nassistant: In which language?\n\nuser: HTML, please.",
            ["<script>alert('hello')</script><img src=http://evil.example/x.png onerror=alert(1)>", "No & never."],
        ),
    ]
    return {
        "format": 1,
        "name": "starter",
        "created": "2026-01-12T09:30:00Z",
        "version": "0.1.0",
        "commit": "3f2c9a7",
        "machine": "2 cores, Linux, torch 2.13.0",
        "command": "armorm train recipes/starter.yaml --out runs/starter",
        "seconds": {"read": 4.2, "extract": 2710.0, "probe": 11.8, "debias": 1.4, "gate": 96.0, "bench": 310.5},
        "backbone": {
            "model": "SmolLM2-135M-Instruct",
            "dtype": "bfloat16",
            "layers": 30,
            "width": 576,
            "tokens": 9_412_338,
            "seconds": 2710.0,
            "tokens_per_second": 1712.4,
            "truncated": 12,
        },
        "data": fake_data(rng),
        "faults": [],
        "probe": fake_probe(rng),
        "debias": fake_debias(rng),
        "gate": fake_gate(rng),
        "preference": fake_preference(),
        "suites": suites,
        "length": lengths,
        "abstention": fake_abstention(),
        "reliability": fake_reliability(),
        "gate_by_section": {},
        "bradley_terry": {"feature": "18:mean", "strength": 0.1},
        "planted": {"rows": planted},
        "examples": examples,
        "warnings": ["just-eval-clarity: 88 % of the ratings are 5", "12 conversations of mt-bench were truncated"],
    }


class Page(HTMLParser):
    """Collects what the tests ask of a page: tags, ids, attributes that load, open elements."""

    VOID = frozenset(["meta", "link", "img", "br", "hr", "input"])

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.loads, self.open, self.handlers = [], [], [], [], []
        self.words = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._read(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._read(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def _read(self, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"):
                self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)


@pytest.fixture(scope="module")
def results():
    return full_results()


@pytest.fixture(scope="module")
def text(results):
    return render(results)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def render(results):
    return render_run_page(RunResults.model_validate(results))


def test_the_file_is_the_types(results):
    assert RunResults.model_validate(results).to_json() == results


def test_the_full_page_is_well_formed_and_has_every_section(page):
    assert page.open == []
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    # two suites, labels, probe, coverage, debias, gate map, curves, length, P(right), close calls
    assert page.tags.count("svg") == 11
    assert page.tags.count("figure") == page.tags.count("figcaption") == 11
    assert len(page.ids) == len(set(page.ids))


def test_nothing_is_loaded_from_anywhere(text, page):
    assert page.loads
    assert all(target.startswith("#") for target in page.loads)
    assert {target[1:] for target in page.loads} <= set(page.ids)
    assert "@import" not in text
    assert all(inside.startswith("#") for inside in re.findall(r"url\(([^)]*)\)", text))
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(page.tags)


def test_hostile_text_is_shown_and_never_run(results):
    hostile = "</svg></title><script>alert(1)</script>\"' onload='x' $\\frac{1}$ {{ 7*7 }}"
    poisoned = json.loads(json.dumps(results))
    names = iter(range(10**6))
    known = {*METHODS, *SUITES, *NAMES, "response-tokens"}

    def poison(value):
        if isinstance(value, str):
            return f"{next(names)} {hostile}" if value not in known else f"{value} {hostile}"
        if isinstance(value, list):
            return [poison(one) for one in value]
        if isinstance(value, dict):
            return {key if key in KEYS else f"{key} {hostile}": poison(one) for key, one in value.items()}
        return value

    KEYS = {name for kind in result_types() for name in kind.model_fields}
    page = Page(render(poison(poisoned)))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert page.handlers == []
    assert sum("<script>alert(1)</script>" in words for words in page.words) > 100
    assert not any("49" in words and "7*7" not in words and "onload" in words for words in page.words)


def test_the_same_results_give_the_same_bytes(results, text, tmp_path):
    folder = tmp_path / "deep" / "report"
    write_run(RunResults.model_validate(copy.deepcopy(results)), folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == text
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == results
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md", "results.json"]


ABSENT = {
    "suites": ([], ["accuracy"]),
    "planted": (None, ["planted"]),
    "debias": (None, ["debias"]),
    "length": ([], ["length"]),
    "preference": (None, ["preference"]),
    "reliability": ([], []),
    "abstention": ([], ["abstention"]),
    "examples": ([], ["examples"]),
    "warnings": ([], ["warnings"]),
}


@pytest.mark.parametrize("part", ABSENT)
def test_an_absent_part_has_no_section(results, part):
    nothing, gone = ABSENT[part]
    page = Page(render(results | {part: nothing}))
    assert page.open == []
    assert [name for name in page.ids if name in SECTIONS] == [name for name in SECTIONS if name not in gone]
    assert not [target for target in page.loads if target[1:] in gone]


def test_undefined_numbers_are_dashes_not_crashes(results):
    floats = {"pearson", "sigma", "reach", "mean_std", "mean_width", "before", "after", "mean", "std", "p", "threshold"}
    floats |= {"promised", "confidence", "chance", "chance_high", "slope", "most", "logistic", "isotonic"}

    def emptied(value, key=""):
        if isinstance(value, dict) and set(value) == set(UNDEFINED):
            return UNDEFINED
        if isinstance(value, dict):
            share = {name: None for name in ("value", "low", "high", "halves") if "unscored" in value}
            return {name: emptied(one, name) for name, one in value.items()} | share
        if isinstance(value, list):
            return [None if key in ("train_loss", "validation_loss") else emptied(one, key) for one in value]
        return None if key in floats else value

    page = Page(render(emptied(results)))
    assert page.open == []
    assert "probe" in page.ids
    assert [words for words in page.words if {"None", "nan"} & set(words.split())] == []


def printed(results):
    console = Console(width=140, record=True, file=io.StringIO())
    for part in terminal_parts(terminal_report(run_report(results))):
        console.print(part, markup=False)
    return console.export_text()


def test_a_truth_without_an_aim_is_neither_met_nor_missed(results):
    """Alike on the page, in Markdown and in the terminal."""
    typed = RunResults.model_validate(results)
    for row, met in zip(run_report(typed)["planted"].rows, ("yes", "no", ""), strict=True):
        assert row[3].text == met
    page = render_run_page(typed)
    part = page[page.index('id="planted"') :]
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", part.split("</table>")[0])]
    assert [row[3] for row in rows[1:]] == ['<span class="good">yes</span>', '<span class="bad">no</span>', ""]
    assert rows[3][:2] == ["an objective that no text shows", "none"]
    lines = [line for line in render_markdown(run_report(typed)).splitlines() if line.startswith("| an objective that no text")]
    assert lines == ["| an objective that no text shows | none | +0.185 |  | fitted on permuted ratings | +0.106 |"]
    (line,) = [line for line in printed(typed).splitlines() if "an objective that no text" in line]
    assert " ".join(line.split()) == "an objective that no text shows none +0.185 fitted on permuted ratings +0.106"


def test_the_terminal_shows_probe_debiasing_suites_and_the_planted_truth(results):
    names = [grid.name for grid in terminal_report(run_report(RunResults.model_validate(results))).grids]
    assert names == ["probe", "debias", "suite dev-pairs", "suite rewardbench-partial", "planted"]


def test_markdown_has_every_table(results):
    text = render_markdown(run_report(RunResults.model_validate(results)))
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert [title.split(":")[0] for title in titles] == [
        *("Data", "Candidate features", "Probe", "Uncertainty", "Debiasing", "dev-pairs", "rewardbench-partial"),
        *("Length", "P(right)", "Too close to call", "Planted truth", "Notes"),
    ]
    assert "just-eval-clarity: 88 % of the ratings are 5" in text


def test_bars_of_an_answer_are_drawn_to_one_scale_and_sum_to_the_score(results):
    for example in RunResults.model_validate(results).examples:
        drawn = draw_example(example)
        assert max(bar.width for one in drawn["answers"] for bar in one["bars"]) == 50.0
        for one in drawn["answers"]:
            assert sum(bar.value for bar in one["bars"]) == pytest.approx(one["answer"].score)
            assert one["mismatch"] is None
        assert len({tuple(bar.name for bar in one["bars"]) for one in drawn["answers"]}) == 1


def test_a_sum_that_is_not_the_score_is_said(results, text):
    wrong = copy.deepcopy(results)
    wrong["examples"][0]["answers"][0]["score"] += 0.5
    assert "not to the score" in render(wrong)
    assert "not to the score" not in text


def suite_of(ours, gap, p, other=0.6):
    versus = {"difference": {"value": gap, "low": gap - 0.02, "high": gap + 0.02}, "p": p}

    def row(method, label, value, against):
        overall = accuracy(value, 400)
        whole = {"note": "", "sections": {}, "overall": overall, "missing": [], "missing_sections": [], "unlisted": []}
        about = {"method": method, "label": label, "overall": overall, "sections": {}, "missing": []}
        return about | {"figures": {"subsets": {}, "aggregates": {"items": whole}}, "versus_bradley_terry": against}

    methods = [row("bradley-terry", "BT", other, None), row("armorm", "Ours", ours, versus)]
    return SuiteResults.model_validate({"name": "s", "n": 400, "groups": 100, "rule": "pairs", "methods": methods})


VERDICTS = {
    "clearly better": (0.7, 0.1, 0.0001, ["Ours ranks 70.0 %", "above Bradley–Terry by more", "p < 0.001", "highest of"]),
    "clearly worse": (0.5, -0.1, 0.001, ["below Bradley–Terry by more", "not above chance", "in this table is BT"]),
    "no difference": (0.61, 0.01, 0.4, ["within what chance gives", "p = 0.400"]),
    "undecided": (0.7, 0.1, 0.3, ["at the edge of what"]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_follows_the_numbers(case):
    ours, gap, p, said = VERDICTS[case]
    sentence = verdict(suite_of(ours, gap, p))
    assert [words for words in said if words not in sentence] == []
    others = ("above Bradley–Terry by more", "below Bradley–Terry by more", "within what chance", "at the edge of")
    assert sum(words in sentence for words in others) == 1


def test_no_verdict_without_numbers():
    suite = suite_of(0.7, 0.1, 0.01)
    assert verdict(suite.model_copy(update={"methods": ()})) is None
    nothing = Figure.model_validate(UNDEFINED | {"n": 0, "ties": 0, "unscored": 9, "halves": None})
    assert verdict(suite.model_copy(update={"methods": (suite.methods[0].model_copy(update={"overall": nothing}),)})) is None


def test_twenty_objectives_and_one_method_still_draw(results):
    many = copy.deepcopy(results)
    row = many["probe"]["objectives"][0]
    many["probe"]["objectives"] = [row | {"name": f"an-objective-with-quite-a-long-name-{place}"} for place in range(20)]
    many["suites"] = many["suites"][:1]
    many["suites"][0]["methods"] = many["suites"][0]["methods"][:1]
    assert Page(render(many)).tags.count("svg") == 10


def test_text_that_is_no_valid_unicode_is_written_all_the_same(results, tmp_path):
    broken = RunResults.model_validate(results)
    answers = (broken.examples[0].answers[0].model_copy(update={"text": "half an emoji: \ud83d, and then more"}),)
    examples = (broken.examples[0].model_copy(update={"answers": answers}),)
    write_run(broken.model_copy(update={"examples": examples}), tmp_path)
    assert "half an emoji: ?, and then more" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, results, package):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package}.*pip install 'armorm\[report\]'"):
        render(results)


def test_a_folder_that_cannot_be_made_is_a_storage_error(results, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="choose another place"):
        write_run(RunResults.model_validate(results), tmp_path / "taken")
