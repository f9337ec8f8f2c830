"""One table in four forms: the same cells everywhere, what strangers wrote is text everywhere; every field says what it is."""

from __future__ import annotations

import html
import importlib
import io
import math
import pkgutil
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

import armorm
from armorm import numbers
from armorm.bench.metrics import PairedDifference
from armorm.bench.results import SteeredFacts
from armorm.errors import CheckpointError
from armorm.intervals import Interval
from armorm.report.html import _environment
from armorm.report.latex import render_latex
from armorm.report.markdown import render_markdown
from armorm.report.run_results import RunResults
from armorm.report.tables import Block, Cell, Grid, Report, difference, estimate, grid, share_of
from armorm.report.terminal import grid_parts, terminal_parts
from armorm.report.tuning import TuningResults, tuning_report
from armorm.results import Result, read_result

HOSTILE = (
    "[bold red]rich[/] [/nothing]",
    "<script>alert(1)</script>",
    "a_b & 100% #1 ~ ^ {y} $z$ \\cmd",
    "| **bold** `code` [link](http://x) |",
    "# no heading",
    "two\nlines\tand \x1b[31m a colour",
)


def result_types() -> list[type[Result]]:
    """Every type of result that the package has."""
    for module in pkgutil.walk_packages(armorm.__path__, "armorm."):
        if module.name.split(".")[1] in ("bench", "data", "report", "results") and ".sources." not in module.name:
            importlib.import_module(module.name)
    found, todo = [], [Result]
    while todo:
        kinds = todo.pop().__subclasses__()
        found += [kind for kind in kinds if kind.__module__.startswith("armorm.")]
        todo += kinds
    return found


def sample(texts=("one", "two")) -> Grid:
    """Every kind of cell: small type, the best of its column, good and bad, words on the right, titled blocks, a subject."""
    rows = [[Cell(text, "a backbone"), Cell("1", "0–2", bold=True), Cell("yes", tone="good"), Cell("said")] for text in texts]
    more = [[Cell("other"), Cell(), Cell("no", "why", tone="bad"), Cell("")]]
    head = [Cell("method", "backbone"), Cell("overall", "n = 3"), Cell("met"), Cell("words")]
    blocks = [Block("First family", rows, "armorm", subject=0), Block("", more)]
    return Grid("sample", "A sample", "What it shows.", head, blocks, ["A remark."], words=(0, 3))


def texts_of(one: Grid) -> list[str]:
    """All texts of a table in order, cell by cell."""
    cells = [*one.head]
    for block in one.blocks:
        cells += [Cell(block.title)] if block.title else []
        cells += [cell for row in block.rows for cell in row]
    return [text for cell in cells for text in (cell.text, cell.small) if text]


def as_terminal(one: Grid, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for part in grid_parts([one]):
        console.print(part, markup=False)
    return console.export_text()


def as_markdown(one: Grid) -> str:
    return MarkdownIt("commonmark").enable("table").render(render_markdown(Report("Title", grids=[one])))


def as_html(one: Grid) -> str:
    return str(_environment().get_template("parts.html.jinja").module.table(one))


def as_latex(one: Grid) -> str:
    return render_latex(Report("Title", grids=[one]), "test")


def read_html(page: str) -> list[str]:
    body = page[page.index("<table") : page.index("</table>")]
    return [" ".join(html.unescape(text).split()) for text in re.findall(r">([^<>]+)<", body) if text.strip()]


# -- the same cells ----------------------------------------------------------------------------------------------------------


def test_the_page_holds_every_cell_in_order():
    assert read_html(as_html(sample())) == texts_of(sample())


def test_markdown_holds_every_cell_in_order():
    found = " ".join(read_html(as_markdown(sample()))).replace("(", "").replace(")", "")
    assert found == " ".join(texts_of(sample()))
    lines = render_markdown(Report("Title", grids=[sample()])).splitlines()
    assert "| method (backbone) | overall (n = 3) | met | words |" in lines
    assert "|---|---:|---:|---|" in lines
    assert "| *First family* |  |  |  |" in lines
    assert "| one (a backbone) | **1** (0–2) | yes | said |" in lines
    assert "| other | – | no (why) |  |" in lines


@pytest.mark.parametrize("width", [200, 40])
def test_the_terminal_holds_every_cell_behind_or_under_the_text(width: int):
    text = as_terminal(sample(), width)
    for cell in texts_of(sample()):
        assert cell in text
    assert ("one a backbone" in text) == (width == 200)
    assert text.count("yes") == 2
    assert "What it shows." in text
    assert "A remark." in text


def test_latex_holds_every_cell_in_order():
    text = as_latex(sample())
    for line in (
        r"method & overall & met & words \\",
        r"{\scriptsize backbone} & {\scriptsize n = 3} &  &  \\",
        r"\multicolumn{4}{@{}l}{\textit{First family}} \\",
        r"one & \textbf{1} & yes & said \\",
        r"{\scriptsize a backbone} & {\scriptsize 0--2} &  &  \\",
        r"other & -- & no &  \\",
        r"\begin{tabular}{@{}lrrl@{}}",
    ):
        assert line in text, line
    assert r"\label{tab:test-1-sample}" in text


def test_readers_who_do_not_unfold_see_no_details():
    folded = Grid("d", "Details", "", [Cell("a")], [Block("", [[Cell("hidden")]])], detail=True)
    report = Report("Title", sentences=["Said."], grids=[sample(), folded], notes=["Noted."])
    shown = [render_markdown(report), render_latex(report, "t")]
    console = Console(width=100, record=True, file=io.StringIO())
    for part in terminal_parts(report):
        console.print(part, markup=False)
    for text in (*shown, console.export_text()):
        assert "hidden" not in text
        assert "Noted." in text
    assert "hidden" in as_html(folded)


# -- what strangers wrote ----------------------------------------------------------------------------------------------------


def hostile() -> Grid:
    """Hostile words wherever a word may stand."""
    words = list(HOSTILE)
    rows = [[Cell(word, word), Cell(word), Cell("1"), Cell(word, tone="good")] for word in words]
    head = [Cell(word, word) for word in words[:4]]
    blocks = [Block(word, rows, word) for word in words]
    return Grid("x'\"><b>", words[0], words[1], head, blocks, words, words=(0, 3))


@pytest.mark.parametrize("word", HOSTILE)
def test_words_are_text_in_the_terminal(word: str):
    text = as_terminal(hostile(), 600)
    assert numbers.plain(word) in text
    assert "\x1b" not in text


def test_words_are_text_on_a_page():
    page = as_html(hostile())
    assert not re.findall(r"<(script|b|a|i)\b", page)
    assert set(re.findall(r"<(\w+)", page)) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "ul", "li"}
    found = read_html(page)
    for word in HOSTILE:
        assert numbers.plain(word) in found
    assert re.findall(r'data-family="([^"]*)"', page) == [str(html.escape(word)).replace("&#x27;", "&#39;") for word in HOSTILE]


def test_words_are_text_in_markdown():
    page = as_markdown(hostile())
    assert not re.findall(r"<(script|strong|code|a)\b", page)
    assert page.count("<h1>") == 1
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for word in HOSTILE:
        assert numbers.plain(word) in text


def test_words_are_text_in_latex():
    text = as_latex(hostile())
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#_%]", "", code)
    assert bare.count("{") == bare.count("}")
    assert "%" not in bare
    assert "#" not in bare
    assert r"\cmd" not in bare.replace(r"\cmidrulewidth", "")
    for row in re.findall(r"^(.*) \\\\$", code, flags=re.MULTILINE):
        assert r"\multicolumn" in row or r"\shortstack" in row or len(re.split(r"(?<!\\)&", row)) in (1, 4), row


# -- numbers -----------------------------------------------------------------------------------------------------------------


def test_numbers_are_written_in_one_way():
    assert numbers.decimal(-0.5) == "−0.500"
    assert (numbers.signed(0.25, 2), numbers.signed(-0.0001), numbers.decimal(-0.0001, 2)) == ("+0.25", "0.000", "0.00")
    assert (numbers.percent(0.8123), numbers.percent(0.5, 0), numbers.share(0.8123)) == ("81.2 %", "50 %", "81.2")
    assert (numbers.points(0.0321), numbers.points(-0.1)) == ("+3.2", "−10.0")
    assert (numbers.count(12345), numbers.count(-3)) == ("12,345", "−3")
    assert (numbers.p_value(0.0004), numbers.p_value(0.0421), numbers.equals_p(0.2)) == ("< 0.001", "0.042", "= 0.200")
    assert [numbers.compact_count(n) for n in (0, 657, 2_400, 17_000, 1_200_000)] == ["", "657", "2.4k", "17k", "1.2M"]
    assert [numbers.duration(s) for s in (4.21, 40, 185, 7800)] == ["4.2 s", "40 s", "3 min 5 s", "2 h 10 min"]
    assert (numbers.general(123456), numbers.general(0.01)) == ("1.235e+05", "0.01")
    writers = (numbers.decimal, numbers.signed, numbers.percent, numbers.share, numbers.points, numbers.count)
    for write in (*writers, numbers.p_value, numbers.general, numbers.duration):
        assert [write(x) for x in (None, math.nan, math.inf)] == ["–"] * 3


def test_intervals_are_written_in_one_way():
    whole, bare, nothing = Interval(0.5, -0.25, 0.75), Interval(0.5, math.nan, math.nan), Interval.undefined()
    assert [estimate(one) for one in (whole, bare, nothing, None)] == [
        Cell("0.50", "−0.25 to 0.75"),
        Cell("0.50"),
        Cell(),
        Cell(),
    ]
    assert share_of(Interval(0.5, 0.25, 0.75)) == Cell("50.0", "25.0–75.0")
    assert difference(PairedDifference(difference=Interval(0.1, -0.05, 0.25), p=0.0001)) == (
        Cell("+10.0", "−5.0 to +25.0"),
        Cell("< 0.001"),
    )


def test_texts_are_cut_on_one_line():
    assert numbers.shorten("a\n b", 10) == "a b"
    assert numbers.shorten("abcdef", 4) == "abc…"
    assert numbers.listed([]) == ""
    assert [numbers.listed(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert numbers.counts({"over-cap": 1200, "tie": 0, "no-rating": 3}) == "1,200 over-cap, 3 no-rating"


# -- types -------------------------------------------------------------------------------------------------------------------


def test_every_field_of_every_result_says_what_it_is_in_a_sentence():
    kinds = result_types()
    assert len(kinds) >= 80
    named = {kind.__name__ for kind in kinds}
    assert {"RunResults", "AuditResults", "BenchResults", "CompareResults", "Inspection", "TuningResults"} <= named
    own = {name: SteeredFacts.model_fields[name] for name in ("figures", "comparison")}
    fields = [(kind.__name__, name, field) for kind in kinds for name, field in kind.model_fields.items()]
    fields += [("SteeredFacts", name, field) for name, field in own.items()]
    silent = [
        f"{kind}.{name}" for kind, name, field in fields if not re.fullmatch(r"[A-Z“\[].*\.", field.description or "", re.S)
    ]
    assert not silent
    assert not [kind.__name__ for kind in kinds if not (kind.__doc__ or "").strip().endswith(".")]
    assert not [kind.__name__ for kind in kinds if not kind.model_config.get("frozen")]


def test_undefined_numbers_are_null_in_the_file_and_nan_in_memory():
    facts = {"objective": "regression", "created": "now", "version": "1", "commit": None, "machine": "m", "command": "c"}
    facts |= {"rows": 4, "examples": 8, "settings": {"steps": 2}, "steps": 2, "tokens": 90, "seconds": 1.5}
    facts["evaluations"] = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "accuracy": 0.75}, {"step": 3, "loss": 0.2}]
    results = TuningResults.model_validate(facts)
    assert results.to_json() == facts
    assert math.isnan(results.evaluations[0].accuracy)
    table = tuning_report(results).grids[0]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["1", "0.5000", "–"],
        ["2", "0.2500", "75.0"],
        ["3", "0.2000", "–"],
    ]
    undefined = TuningResults.model_validate(facts | {"evaluations": [{"step": 1, "loss": 0.5, "accuracy": None}]})
    assert math.isnan(undefined.evaluations[0].accuracy)
    assert undefined.to_json()["evaluations"][0]["accuracy"] is None


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"name": "x", "unknown": 1}')
    with pytest.raises(CheckpointError, match=r"results.json: these are no RunResults"):
        read_result(RunResults, tmp_path / "results.json")
    with pytest.raises(CheckpointError, match="compute them again"):
        read_result(RunResults, tmp_path / "none.json")


def test_texts_and_cells_make_a_grid():
    made = grid("g", "G", ("a", Cell("b", "%")), [["x", Cell("1")]], words=())
    assert made.rows == [[Cell("x"), Cell("1")]]
    assert Report("", grids=[made])["g"] is made
    assert "h" not in Report("", grids=[made])
