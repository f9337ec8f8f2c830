"""The comparison's report: one content in five formats, with the best marked, everything escaped and nothing fetched."""

from __future__ import annotations

import copy
import html
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from armorm.report import compare_page
from armorm.report.compare_results import CompareResults
from armorm.report.comparison import PUBLISHED, compare_report
from armorm.report.latex import render_latex, tex
from armorm.report.markdown import render_markdown
from armorm.report.plots import Figure, standalone
from armorm.report.tables import Grid, Report
from armorm.report.terminal import terminal_parts

HOSTILE = "a_b & 100% <i>|x|</i> [red]{y}$z$ \\cmd *s* `t` ~ ^ #1"
METHODS = (
    # method, label, family, backbone; families on purpose out of order
    ("longer", "the longer answer", "baseline", ""),
    ("bradley-terry", "Bradley–Terry, linear", "bradley-terry", "frozen"),
    ("bradley-terry-lora", "Bradley–Terry, LoRA", "bradley-terry", "trained"),
    ("armorm", "ArmoRM + MoE", "armorm", "Bradley–Terry-initialised"),
    ("armorm-frozen", "ArmoRM + MoE, frozen", "armorm", "frozen"),
    ("no-debias", "without debiasing", "ablation", "frozen"),
    ("one-layer", "a gate of one layer", "ablation", "frozen"),
    ("pairwise", "Preference Model", "pairwise", "trained"),
    ("judge", HOSTILE, "judge", "a-model"),
    ("ridge", "ridge on the overall rating", "regression", "frozen"),
    ("odd", "of a family nobody knows", "planted", ""),
)
REFERENCES = ["bradley-terry", "bradley-terry-lora"]
SECTIONS = {"dev-pairs": ["chat", "hard_&_easy", "safety"], "rewardbench": ["Chat", "Reasoning"]}
SKIPPED = {"method": "gpt", "label": "LLM-as-a-judge", "family": "judge", "backbone": "gpt-4o", "note": "", "training": None}
SKIPPED |= {"scoring": {}, "usage": None, "position": None, "skipped": "no key for the service (50% & more)"}


def interval(value, width=0.04):
    return {"value": value, "low": value - width, "high": value + width}


def figure(value, n=80):
    return interval(value) | {"n": n, "ties": 1 if value < 0.55 else 0, "unscored": 0, "halves": value}


UNDEFINED = {"value": None, "low": None, "high": None}
NOTHING = UNDEFINED | {"n": 0, "ties": 0, "unscored": 7, "halves": None}
COUNTED = ("from_cache", "unparsable", "cut", "tokens_out", "untold", "cached_tokens_in", "cached_tokens_out")
USAGE = dict.fromkeys(COUNTED, 0) | {"failures": {}, "refused": {}, "cached_cost_usd": None, "seconds": 3.0}


def typed(results) -> CompareResults:
    return CompareResults.model_validate(results)


def comparison(results) -> Report:
    return compare_report(typed(results))


def suites_of(results) -> list[Grid]:
    """The tables of the suites."""
    return list(comparison(results).grids[: len(results["suites"])])


def others(results) -> list[Grid]:
    """The tables after those of the suites."""
    return list(comparison(results).grids[len(results["suites"]) :])


def headlines(results) -> dict[str, str]:
    return dict(one.split(": ", 1) for one in comparison(results).sentences)


def render_compare_markdown(results, *, picture: str = "compare.svg") -> str:
    return render_markdown(comparison(results), picture=picture)


def render_compare_latex(results) -> str:
    return render_latex(comparison(results), "compare")


def render_compare_page(results) -> str:
    return compare_page.render_compare_page(typed(results), comparison(results), compare_plot(results))


def write_compare(results, folder) -> None:
    compare_page.write_compare(typed(results), folder)


def compare_plot(results) -> Figure | None:
    return compare_page.compare_plot(typed(results))


def suite_of(name, rng):
    rows = []
    for method, *_ in METHODS:
        value = {"armorm": 0.7312, "pairwise": 0.7314}.get(method, float(rng.uniform(0.5, 0.7)))
        versus = {r: {"difference": interval(value - 0.61), "p": 0.0002} if r != method else None for r in REFERENCES}
        sections = {section: figure(float(rng.uniform(0.5, 0.8))) for section in SECTIONS[name]}
        rows.append({"method": method, "overall": figure(value, 200), "sections": sections, "versus": versus})
    rows[0]["overall"] |= {"low": None, "high": None}
    rows[0]["versus"] = {reference: {"difference": UNDEFINED, "p": None} for reference in REFERENCES}
    rows[-1] |= {"overall": NOTHING, "sections": dict.fromkeys(SECTIONS[name], NOTHING), "versus": dict.fromkeys(REFERENCES)}
    title = {"rewardbench": "RewardBench & more"}.get(name, name)
    suite = {"name": name, "title": title, "rule": "preferences", "n": 200, "of": 1869, "groups": 150, "methods": rows}
    return suite | {"sections": SECTIONS[name], "missing": [], "published": []}


def method_of(place, method, label, family, backbone):
    paired = family in ("pairwise", "judge")
    scoring = {"seconds": 12.5 + place, "tokens_in": 20_000, "tokens_out": 0, "answers": 400}
    position = {"dev-pairs": {"first": interval(0.62), "flips": interval(0.21), "n": 200, "unanswered": 3}}
    usage = USAGE | {"requests": 400, "failed": 2, "cost_usd": 0.1234, "tokens_in": 5}
    training = {"seconds": 75.0, "tokens": 3_200_000, "steps": 1250, "examples": 3105}
    return {
        **{"method": method, "label": label, "family": family, "backbone": backbone, "skipped": None},
        "note": "12 seeds, 50% kept" if method == "armorm" else "",
        "training": training if family not in ("baseline", "judge") else None,
        "scoring": dict.fromkeys(SECTIONS, scoring) if family != "baseline" else {},
        "usage": usage if family == "judge" else None,
        "position": position if paired else None,
    }


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(3)
    suites = [suite_of(name, rng) for name in SECTIONS]
    row = {"label": "Bradley–Terry", "base_model": "Llama-3 8B", "overall": 0.999, "source": "a paper_1", "note": "50% of it"}
    row |= {"sections": {"Chat": 0.994, "Prior Sets": 0.749}, "subsets": {}}
    suites[1] |= {"published": [row, row | {"label": "ArmoRM & MoE", "note": "another"}], "missing": ["math_prm"], "n": 1869}
    return {
        **{
            "format": 1,
            "name": "open_data",
            "created": "2026-01-12T09:30:00Z",
            "version": "0.1.0",
            "commit": "3f2c9a7",
            "seed": 0,
        },
        **{"machine": "2 cores", "command": "armorm compare 'recipes/a_b.yaml' | tee `x`", "seconds": 4000.2},
        "backbone": {"model": "smollm2", "dtype": "bfloat16"},
        "references": REFERENCES,
        "suites": suites,
        "methods": [*(method_of(place, *one) for place, one in enumerate(METHODS)), SKIPPED],
        "probes": [
            {
                "backbone": "frozen",
                "mean": interval(0.5),
                "gain": None,
                "pearson": {"a_b": interval(0.41), "c": UNDEFINED},
                "feature": "18:mean",
                "n": {"a_b": 120},
            },
            {
                "backbone": "trained",
                "mean": interval(0.6),
                "gain": interval(0.1),
                "pearson": {"a_b": interval(0.62)},
                "feature": "21:mean",
                "n": {"a_b": 120},
            },
        ],
        "notes": ["Half of the pairs & no more; x < y."],
    }


def cells(line):
    """Cells of a Markdown table's line: a bar after a backslash is text."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def markdown_tables(text):
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def latex_tables(text):
    """Every tabular as the list of its rows, every row as the list of its cells."""
    found = []
    for head, body in re.findall(r"\\begin\{tabular\}(\{[^\n]*\})\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        body = re.sub(r"\\(?:toprule|midrule|bottomrule|cmidrulewidth|addlinespace|noalign\{[^}]*\})(?:\[[^\]]*\])?", "", body)
        body = re.sub(r"\\shortstack\[.\]\{(?:[^{}]|\{[^{}]*\})*\}", "stacked", body)
        rows = [re.split(r"(?<!\\)&", row) for row in re.split(r"(?<!\\)\\\\", body) if row.strip()]
        found.append((head, rows))
    return found


def test_families_are_kept_together_in_the_order_of_the_tables(results):
    grid = suites_of(results)[0]
    families = [block.family for block in grid.blocks]
    assert families == ["armorm", "ablation", "bradley-terry", "pairwise", "judge", "regression", "baseline", "planted"]
    labels = [row[0].text for block in grid.blocks for row in block.rows]
    assert len(labels) == len(set(labels)) == len(METHODS)


def test_the_highest_as_printed_is_marked_and_ties_are_all_marked(results):
    grid = suites_of(results)[1]
    overall = {row[0].text: row[1] for block in grid.blocks for row in block.rows}
    assert {label for label, cell in overall.items() if cell.bold} == {"ArmoRM + MoE", "Preference Model"}  # 73.12 and 73.14
    assert overall["ArmoRM + MoE"].text == "73.1"
    assert overall["ArmoRM + MoE"].small == "69.1–77.1"
    published = [row for block in grid.blocks if block.family == "published" for row in block.rows]
    assert [row[1].text for row in published] == ["99.9", "99.9"]  # higher than any of ours, and not marked
    assert not any(cell.bold for row in published for cell in row)
    own = [row for block in grid.blocks if block.family != "published" for row in block.rows]
    for column in (2, 3):
        values = [float(row[column].text) for row in own if row[column].text != "–"]
        assert [float(row[column].text) for row in own if row[column].bold] == [max(values)]


def test_differences_stand_under_their_reference_with_p(results):
    grid = suites_of(results)[0]
    assert [cell.text for cell in grid.head[5:]] == ["over Bradley–Terry, linear", "p", "over Bradley–Terry, LoRA", "p"]
    rows = {row[0].text: row for block in grid.blocks for row in block.rows}
    assert [cell.text for cell in rows["ArmoRM + MoE"][5:7]] == ["+12.1", "< 0.001"]
    assert rows["ArmoRM + MoE"][5].small == "+8.1 to +16.1"
    assert [cell.text for cell in rows["Bradley–Terry, linear"][5:7]] == ["–", "–"]  # not tested against itself
    assert rows["Bradley–Terry, linear"][7].text != "–"
    assert [cell.text for cell in rows["the longer answer"][5:]] == ["–"] * 4


def test_a_reference_that_a_suite_lacks_has_no_columns_there(results):
    """As where all items of a suite are judged by stored features alone, and the other reference reads texts."""
    some = copy.deepcopy(results)
    gone = REFERENCES[1]
    some["suites"][0]["methods"] = [row for row in some["suites"][0]["methods"] if row["method"] != gone]
    for row in some["suites"][0]["methods"]:
        row["versus"].pop(gone)
    before, after = suites_of(results)[0], suites_of(some)[0]
    assert len(before.head) - len(after.head) == 2
    assert {len(row) for block in after.blocks for row in block.rows} == {len(after.head)}


def test_headlines_say_value_differences_and_the_highest(results):
    said = headlines(results)["dev-pairs"]
    assert said.startswith(
        "ArmoRM + MoE: 73.1 % (69.1–77.1); +12.1 points over Bradley–Terry, linear (+8.1 to +16.1; p < 0.001); "
    )
    assert said.endswith("Highest: Preference Model, 73.1 %.")


def test_published_columns_are_joined_and_the_missing_named(results):
    grid = suites_of(results)[1]
    assert [cell.text for cell in grid.head[1:5]] == ["overall", "Chat", "Reasoning", "Prior Sets"]
    assert grid.remarks[0] == "1,869 items of 150 prompts; rule: preferences."
    assert "math_prm" in grid.remarks[1]
    assert [one for one in grid.remarks if one.startswith("[")] == ["[1] a paper_1: 50% of it", "[2] a paper_1: another"]
    assert "200 of 1,869 items" in suites_of(results)[0].remarks[0]
    assert "Unscored: of a family nobody knows 7." in suites_of(results)[0].remarks


def test_published_rows_without_a_common_section_have_a_table_of_their_own(results):
    published = results["suites"][1]["published"]
    suites = [suite | {"published": published, "sections": ["only ours"]} for suite in results["suites"]]
    found = {**results, "suites": suites}
    assert not any(block.family == "published" for grid in suites_of(found) for block in grid.blocks)
    alone = others(found)[0]
    assert [cell.text for cell in alone.head] == ["method", "overall", "Chat", "Prior Sets"]
    assert [[cell.text for cell in row] for row in alone.blocks[0].rows] == [
        ["Bradley–Terry [1]", "99.9", "99.4", "74.9"],  # once, though both suites bring it
        ["ArmoRM & MoE [2]", "99.9", "99.4", "74.9"],
    ]
    assert alone.remarks == ["[1] a paper_1: 50% of it", "[2] a paper_1: another"]


def test_a_row_that_left_items_out_says_how_many_it_has(results):
    suite = results["suites"][0]
    rows = [row | {"overall": figure(0.6, 37)} if row["method"] == "pairwise" else row for row in suite["methods"]]
    grid = suites_of({**results, "suites": [suite | {"methods": rows}]})[0]
    small = {row[0].text: row[1].small for block in grid.blocks for row in block.rows}
    assert grid.head[1].small == "n = 200"
    assert small["Preference Model"] == "56.0–64.0, n = 37"
    assert not any("n =" in text for label, text in small.items() if label != "Preference Model")


def test_the_plot_tells_rows_of_one_name_apart_by_their_backbones(results):
    again = [
        one | {"method": f"{one['method']}@2", "backbone": "thawed"} for one in results["methods"] if one["method"] == "armorm"
    ]
    suites = [s | {"methods": [*s["methods"], s["methods"][0] | {"method": "armorm@2"}]} for s in results["suites"]]
    alone, both = (
        compare_plot(r).svg for r in (results, {**results, "methods": [*results["methods"], *again], "suites": suites})
    )
    assert "initialised" not in alone
    assert [both.count(name) for name in ("thawed", "initialised")] == [1, 1]  # in the first panel alone


def test_costs_are_summed_over_suites_and_empty_columns_left_out(results):
    grids = {grid.name: grid for grid in others(results)}
    assert list(grids) == ["probes", "cost", "cost-by-suite", "position", "not-run"]
    titles = [cell.text for cell in grids["cost"].head]
    rows = {row[0].text: dict(zip(titles, row, strict=True)) for block in grids["cost"].blocks for row in block.rows}
    assert set(rows) == {label for _, label, *_ in METHODS}
    judge = {title: cell.text for title, cell in rows[HOSTILE].items()}
    assert judge["training"] == "–"
    assert judge["scoring"] == "41 s"  # 20.5 s on each of two suites
    assert judge["tokens in"] == "40k"
    assert judge["tokens out"] == "0"
    assert judge["cost, USD"] == "0.1234"
    assert judge["calls"] == "requests 400, failed 2"
    assert rows["ArmoRM + MoE"]["tokens"].text == "3.2M"
    assert grids["position"].blocks[0].rows[0][2].text == "62.0"
    assert len(grids["position"].blocks[0].rows) == 2
    without = copy.deepcopy(results)
    for one in without["methods"]:
        one["usage"] = None
    assert "cost, USD" not in [cell.text for cell in others(without)[1].head]


def test_probes_stand_side_by_side(results):
    grid = others(results)[0]
    assert [cell.text for cell in grid.head] == ["objective", "frozen", "trained"]
    assert [[cell.text for cell in row] for block in grid.blocks for row in block.rows] == [
        ["a_b", "0.410", "0.620"],
        ["c", "–", "–"],
        ["mean", "0.500", "0.600"],
        ["mean, over frozen", "–", "+0.100"],
    ]
    assert grid.blocks[0].rows[0][1].small == "0.370 to 0.450, n = 120"
    assert grid.blocks[1].rows[1][2].small == "+0.060 to +0.140"
    alone = copy.deepcopy(results)
    del alone["probes"][1]
    assert [len(block.rows) for block in others(alone)[0].blocks] == [2, 1]


def test_markdown_tables_are_rectangular_and_escaped(results):
    text = render_compare_markdown(results, picture="other.svg")
    tables = markdown_tables(text)
    assert len(tables) == 2 + 4  # the suites; probes, cost, position, not run
    assert [len({len(row) for row in table}) for table in tables] == [1] * 6
    assert "(other.svg)" in text
    assert "a_b & 100% \\<i>\\|x\\|\\</i> \\[red\\]{y}\\$z\\$ \\\\cmd \\*s\\* \\`t\\` \\~ ^ #1" in text
    assert not re.search(r"(?<!\\)<[^ ]", text)
    first = [row[0] for row in tables[0]]
    for _, label, *_ in METHODS:
        shown = re.sub(r"\\(?=[^A-Za-z\\])|\\(?=\\)", "", "\n".join(first))  # without the escapes
        assert len(re.findall(rf"^{re.escape(label)}(?: \(|$)", shown, flags=re.MULTILINE)) == 1, label
    bold = [row[1] for row in tables[0] if row[1].startswith("**")]
    assert bold == ["**73.1** (69.1–77.1)"] * 2
    assert f"| *{PUBLISHED}* |" in text
    assert "- command: ``` armorm" not in text
    assert "- command: `` armorm compare 'recipes/a_b.yaml' | tee `x` ``" in text


def test_markdown_renders_every_name_as_it_stands(results):
    hostile = copy.deepcopy(results) | {"notes": ["# no heading", "- no list", HOSTILE, "&lt; and <b>bold</b> [a](http://b)"]}
    hostile["methods"][0]["label"] = "_em_ __strong__ snake_case ![x](y) <https://a.example>"
    page = MarkdownIt("commonmark").enable("table").render(render_compare_markdown(hostile))
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for words in (HOSTILE, hostile["methods"][0]["label"], *hostile["notes"]):
        assert words in text
    assert page.count("<h1>") == 1
    assert page.count("<img") == 1  # the plot
    assert "<a " not in page
    assert "<b>" not in page
    assert page.count("<table>") == 6


def test_latex_is_balanced_and_every_row_has_its_columns(results):
    text = render_compare_latex(results)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#_%]", "", code)
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert "%" not in bare
    assert "#" not in bare
    opened, closed = (re.findall(rf"\\{word}\{{([a-z*]+)\}}", code) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed)
    tables = latex_tables(code)
    assert len(tables) == 6
    for head, rows in tables:
        width = len(re.findall(r"[lrp]", re.sub(r"@\{\}|\\linewidth|\{0\.6\}", "", head)))
        for row in rows:
            spans = re.findall(r"\\multicolumn\{(\d+)\}", row[0])
            assert (int(spans[0]) if spans else len(row)) == width, row
    assert len(set(re.findall(r"\\label\{(.*?)\}", code))) == 6


def test_latex_marks_the_best_and_names_each_method_once(results):
    table = render_compare_latex(results).split(r"\end{tabular}")[0]
    assert len(re.findall(r"\\textbf\{73\.1\}", table)) == 2
    assert table.count(r"\midrule[\cmidrulewidth]") == 7  # between eight families
    for _, label, *_ in METHODS:
        assert len(re.findall(rf"^{re.escape(tex(label))} &", table, flags=re.MULTILINE)) == 1, label
    assert r"{\scriptsize 69.1--77.1}" in table
    assert r"a\_b \& 100\% \textless{}i\textgreater{}\textbar{}x\textbar{}" in table


class Page(HTMLParser):
    """Open elements, what is loaded, and the text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.loads, self.ids, self.words, self.rows = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        self._read(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._read(attrs)

    def _read(self, attrs):
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "xlink:href", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_escaped_and_fetches_nothing(results):
    text = render_compare_page(results)
    page = Page(text)
    assert page.open == []
    assert page.loads
    assert {target for target in page.loads if not target.startswith("#")} == set()
    assert {target[1:] for target in page.loads} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "img", "link", "iframe", "i"} & set(page.tags)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "@import" not in text
    assert page.tags.count("svg") == 1
    assert page.tags.count("table") == 2 + 5
    assert text.count(html.escape(HOSTILE).replace("&#x27;", "&#39;")) >= 4  # both suites, costs, position bias
    first = text.split("</table>")[0]
    assert len(re.findall(r"<b>73\.1</b>", first)) == 2
    assert not {"None", "nan"} & {word for words in page.words for word in words.split()}


def test_the_picture_is_xml_with_every_scored_method(results):
    figure = compare_plot(results)
    picture = standalone(figure)
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "without debiasing" in texts
    assert "of a family nobody knows" not in texts  # it has no value
    assert [words for words in texts if words.startswith("RewardBench & more")]
    assert "var(" not in picture
    assert "var(--family-judge)" in figure.svg


def test_a_table_of_all_items_is_told_from_the_one_of_fewer(results):
    some = copy.deepcopy(results)
    some["suites"].append(some["suites"][0] | {"name": "dev-pairs: all", "n": 1869, "whole": True})
    assert [grid.title for grid in suites_of(some)] == ["dev-pairs", "RewardBench & more", "dev-pairs, all items"]
    root = ET.fromstring(standalone(compare_plot(some)))
    texts = ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "200 of 1,869 items" in texts
    assert "all 1,869 items" in texts


@pytest.mark.parametrize("copies", [1, 3])
def test_many_methods_and_suites_still_draw(results, copies):
    many = copy.deepcopy(results)
    many["suites"] = [suite | {"name": f"{suite['name']}-{k}"} for k in range(copies) for suite in many["suites"]]
    for suite in many["suites"]:
        extra = [copy.deepcopy(suite["methods"][1]) | {"method": f"extra-{k}"} for k in range(10)]
        suite["methods"] = [*suite["methods"], *extra]
    many["methods"] += [many["methods"][1] | {"method": f"extra-{k}", "label": f"extra-{k}"} for k in range(10)]
    assert len({one.text for block in suites_of(many)[0].blocks for one, *_ in block.rows}) == 21
    ET.fromstring(standalone(compare_plot(many)))


def test_the_file_is_the_types(results):
    assert typed(results).to_json() == results


def test_all_files_are_written_and_the_same_again(results, tmp_path):
    write_compare(results, tmp_path / "deep" / "a")
    write_compare(copy.deepcopy(results), tmp_path / "b")
    names = ["SHA256SUMS", "compare.md", "compare.svg", "compare.tex", "report.html", "results.json"]
    assert sorted(path.name for path in (tmp_path / "deep" / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "deep" / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_scored_is_no_crash(results, tmp_path):
    empty = copy.deepcopy(results) | {"references": [], "probes": [], "notes": []}
    for suite in empty["suites"]:
        suite["methods"] = [row | {"overall": NOTHING, "sections": {}, "versus": {}} for row in suite["methods"]]
    write_compare(empty, tmp_path)
    assert not (tmp_path / "compare.svg").exists()
    assert "compare.svg" not in (tmp_path / "compare.md").read_text(encoding="utf-8")
    none = empty | {"suites": [], "methods": [SKIPPED]}
    assert "no key for the service (50% & more)" in render_compare_markdown(none)
    assert Page(render_compare_page(none)).open == []
    assert len(list(terminal_parts(comparison(none)))) == 1


def test_the_terminal_shows_the_same_tables_without_reading_markup(results):
    console = Console(width=140, record=True, file=io.StringIO())
    for part in terminal_parts(comparison(results)):
        console.print(part, markup=False)
    text = console.export_text()
    assert "[red]{y}$z$" in text
    assert "69.1–77.1" in text
    assert "RewardBench & more" in text
    assert "note: Half of the pairs & no more; x < y." in text
    assert text.count("(50% & more)") == 1
    assert max(map(len, text.splitlines())) <= 140
