"""Documentation in step with the code: embedded help, tables, recipe keys, links, named recipes."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from armorm.data.shapes import SHAPES, Columns
from armorm.judge_settings import JudgeSettings
from armorm.objectives import Objective
from armorm.recipe import CompareRecipe, FixedWeightsRecipe, Recipe, RowCaps, Source, load_recipe
from armorm.rendering import Rendering
from armorm.tuning_settings import Lora, TuningRecipe
from docs import PARTS, ROOT, block, formats_table

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FAULT = re.compile(r'(?:Fault\(|drops, )\s*"([a-z0-9-]+)"')


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_what_the_code_says(name: str):
    file, make = PARTS[name]
    (found,) = block(name).findall(read(file))
    assert found == make(), f"{file} is out of step: run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_resolve(page: Path):
    links = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in links if not (page.parent / target.partition("#")[0]).exists()]
    assert not missing


def test_the_pages_that_readers_expect_are_there():
    names = {str(p.relative_to(ROOT)) for p in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md"} <= names
    assert {"docs/method.md", "docs/data.md", "docs/recipes.md"} <= names
    decisions = sorted(p.name for p in (ROOT / "docs" / "decisions").glob("*.md"))
    assert len(decisions) >= 9
    assert [d[:4] for d in decisions] == [f"{i:04d}" for i in range(1, len(decisions) + 1)]
    for page in PAGES:
        assert page.read_text(encoding="utf-8").startswith("# "), page


def test_recipes_that_the_pages_name_exist():
    named = {n for page in PAGES for n in re.findall(r"recipes/([\w-]+\.yaml)", page.read_text(encoding="utf-8"))}
    assert {"starter.yaml", "open-data.yaml", "armorm-llama3-8b.yaml"} <= named
    assert not [n for n in named if not (ROOT / "recipes" / n).is_file()]


def test_the_readmes_recipe_is_valid(tmp_path: Path):
    text, named = re.findall(r"```yaml\n(.*?)```", read("README.md"), re.DOTALL)
    recipe = yaml.safe_load(text)
    for source in (*recipe["ratings"], *recipe["pairs"], *(s["source"] for s in recipe.get("bench", []))):
        if "path" in source:
            source["path"] = str(tmp_path / source["path"])
            (tmp_path / source["path"]).touch()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").name == recipe["name"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "named", **yaml.safe_load(named)}), encoding="utf-8")
    assert len(load_recipe(tmp_path / "recipe.yaml").load_objectives()) == 11


def test_make_commands_that_the_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    named = {n for page in PAGES for n in re.findall(r"(?:`|^)make ([\w-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert {"demo", "test", "check", "docs"} <= named
    assert named <= targets


def annotations_of(model: type) -> dict[str, Any]:
    """The keys of a part of the recipe."""
    if is_dataclass(model):
        return {field.name: field.type for field in fields(model)}
    return {name: field.annotation for name, field in model.model_fields.items()}


def models_in(model: type) -> set[type]:
    found = {model}
    for annotation in annotations_of(model).values():
        for inner in (annotation, *get_args(annotation)):
            is_part = isinstance(inner, type) and (issubclass(inner, BaseModel) or is_dataclass(inner))
            if is_part and inner not in found:
                found |= models_in(inner)
    return found


def test_every_recipe_key_is_documented_and_nothing_else():
    page = read("docs/recipes.md")
    sections = dict(re.findall(r"^## `?([\w.]+)`?[^\n]*\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    stated = {name: set(re.findall(r"^\| `([\w]+)` \|", text, re.MULTILINE)) for name, text in sections.items()}
    models = {
        "Recipe": Recipe,
        "Source": Source,
        "Columns": Columns,
        "Rendering": Rendering,
        "Objective": Objective,
        **{
            key: model
            for key in ("backbone", "splits", "features", "probe", "debias", "gate")
            if isinstance(model := Recipe.model_fields[key].annotation, type)
        },
        "bench": get_args(Recipe.model_fields["bench"].annotation)[0],
        "store_too": type(Recipe.model_fields["features"].default.store_too),
        "tuning": TuningRecipe,
        "lora": Lora,
        "compare": CompareRecipe,
        "rows": RowCaps,
        "fixed_weights": FixedWeightsRecipe,
        "judges": JudgeSettings,
    }
    assert models_in(Recipe) | {Objective} == set(models.values())
    for name, model in models.items():
        assert stated.get(name) == set(annotations_of(model)), name


def test_every_format_is_scored_and_each_other_reader_takes_some():
    shown = [line.split(" | ")[2:] for line in formats_table().splitlines()[2:]]
    assert len(shown) == len(SHAPES)
    assert {cell.strip(" |") for row in shown for cell in row} == {"yes", "–"}
    taken = [[cell.strip(" |") == "yes" for cell in row] for row in shown]
    assert [sum(column) for column in zip(*taken, strict=True)] == [6, 7, 7, 8]


def test_every_note_on_rows_is_documented():
    data = ROOT / "src" / "armorm" / "data"
    said = re.compile(r'notes\["([a-z-]+)"\]')
    words = {word for file in ("reading.py", "shapes.py") for word in said.findall((data / file).read_text(encoding="utf-8"))}
    assert words >= {"rating-na", "rating-missing", "empty-system"}
    page = read("docs/data.md")
    assert not [word for word in words if f"| `{word}` |" not in page]


def test_every_word_of_the_public_sets_is_documented():
    data = ROOT / "src" / "armorm" / "data"
    files = [*(data / "sources").rglob("*.py"), *(data / "benchmarks").glob("*.py")]
    assert len(files) >= 30
    said = re.compile(r'(?:bad|skip)\(\s*\w+, "([a-z0-9-]+)"|notes=\("([a-z0-9-]+)",?\)')
    words = {a or b for f in files for a, b in said.findall(f.read_text(encoding="utf-8"))}
    assert {"unknown-preference", "no-bad-step", "ratings-mismatch", "ties-id"} <= words
    stated = set(re.findall(r"`([a-z0-9-]+)`", read("docs/sources.md") + read("docs/data.md")))
    assert words <= stated, sorted(words - stated)


def test_every_fault_that_the_code_counts_is_documented():
    source = ROOT / "src" / "armorm"
    files = [source / "conversation.py", source / "rendering.py", *(source / "data").glob("*.py"), source / "run" / "rows.py"]
    counted = {name for f in files for name in FAULT.findall(f.read_text(encoding="utf-8"))}
    assert {"rating-off-scale", "not-messages", "different-contexts", "over-cap", "prompt-in-benchmark"} <= counted
    assert {"many-answers", "python-repr", "not-text", "no-answer", "template-refuses"} <= counted
    stated = set(re.findall(r"^\| `([a-z0-9-]+)` \|", read("docs/data.md"), re.MULTILINE))
    assert counted <= stated, sorted(counted - stated)
