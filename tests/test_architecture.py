"""The tree: each floor imports only floors below it; modules open with purpose, inputs, outputs and cost; surfaces are kept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "armorm"
MODULES = sorted(SOURCE.rglob("*.py"))

# From the ground up. A unit may import itself and whatever stands on a lower line; units on one line don't know each other.
FLOORS = (
    ("errors", "limits"),
    ("bounded", "bounds", "draws", "user_files", "user_json"),
    ("small_files",),
    ("conversation", "disk", "intervals", "judge_settings", "objectives", "progress", "prompts", "tuning_settings"),
    ("rounds",),
    ("kept", "numbers", "owner", "rendering", "results", "scorers", "sums"),
    ("data",),
    ("features",),
    ("fit",),
    ("recipe",),
    ("rivals", "scoring"),
    ("model", "tuning"),
    ("bench",),
    ("report",),
    ("run",),
    ("compare", "jobs", "rl"),
    ("serving",),
    ("vllm",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
LONGEST = 600
UNLIKE_OTHERS = {"errors": "a tree of names: its docstring draws it"}


def unit_of(path: Path) -> str:
    """The part of the tree that a module belongs to; "" for the package's own __init__."""
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_units(path: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of every import from this package, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "armorm" and rest != "__version__":
                yield node.lineno, rest.split(".")[0]


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_every_module_stands_on_a_floor():
    assert len(MODULES) >= 180
    assert {unit_of(m) for m in MODULES} - {""} == set(FLOOR_OF)


def test_no_arrow_points_up():
    arrows = [(m, line, unit_of(m), unit) for m in MODULES if unit_of(m) for line, unit in imported_units(m)]
    assert len(arrows) > 700
    up = [
        f"{named(module)}:{line}: {ours} (floor {FLOOR_OF[ours]}) imports {theirs} (floor {FLOOR_OF.get(theirs)})"
        for module, line, ours, theirs in arrows
        if ours != theirs and not FLOOR_OF.get(theirs, len(FLOORS)) < FLOOR_OF[ours]
    ]
    assert not up, "\n".join(up)


def test_the_arrow_reader_sees_imports_inside_functions(tmp_path: Path):
    module = tmp_path / "m.py"
    module.write_text(
        "import armorm.cli\ndef f():\n    from armorm.data.rows import PreferencePair\n    from armorm import recipe\n"
    )
    assert list(imported_units(module)) == [(1, "cli"), (3, "data"), (4, "recipe")]


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__init__.py"], ids=named)
def test_a_module_opens_with_purpose_inputs_outputs_and_cost(module: Path):
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    assert text.splitlines()[0].strip().endswith((".", ":")), "the first line says what the module is for, in a sentence"
    if module.stem not in UNLIKE_OTHERS:
        for word in ("In:", "Out:"):
            assert re.search(rf"(^|\s){word} ", text), f"{named(module)} does not say {word}"
    assert not re.search(r"Cost: none\.$", text, re.MULTILINE), "a cost is told where there is one"


def test_packages_say_what_they_are_for():
    packages = [m for m in MODULES if m.name == "__init__.py"]
    assert len(packages) >= 20
    assert not [named(p) for p in packages if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]


def test_modules_stay_readable():
    long = {named(m): n for m in MODULES if (n := len(m.read_text(encoding="utf-8").splitlines())) > LONGEST}
    assert not long
    assert not [named(m) for m in MODULES if re.search(r"util|helper|common|misc", m.stem)]


def said_in(module: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string in the code, docstrings left out; {} stands for what an f-string computes."""
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    apart = {id(node.value) for node in nodes if isinstance(node, ast.Expr)} | {id(v) for f in formatted for v in f.values}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
            yield node.lineno, node.value
    for node in formatted:
        yield node.lineno, "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)


def test_the_library_names_arguments_and_never_options_of_the_command_line(tmp_path: Path):
    # A whole command may be quoted in `backticks`; installing is a command too.
    def options_in(module: Path) -> list[int]:
        sentences = ((line, re.sub(r"`[^`]*`|pip install [^;]*", "", text)) for line, text in said_in(module) if " " in text)
        return sorted(line for line, text in sentences if re.search(r"(^|\s)--[a-z]", text))

    library = [m for m in MODULES if unit_of(m) not in ("", "cli", "__main__")]
    assert len(library) > 150
    assert not [f"{named(module)}:{line}" for module in library for line in options_in(module)]
    wrong = tmp_path / "m.py"
    wrong.write_text('"""Not --this."""\nrun("git", "--short")\nx = f"{y}: choose another --out"\nz = "--margin 3: too much"\n')
    assert options_in(wrong) == [3, 4]


def test_nothing_unpickles_or_runs_foreign_code():
    found, tensors_only = [], []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                found += [f"{named(module)}:{node.lineno}: {n}" for n in names if n.split(".")[0] in {"pickle", "dill", "joblib"}]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                (tensors_only if safe else found).append(f"{named(module)}:{node.lineno}: torch.load")
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and ast.unparse(node.value) != "False":
                found.append(f"{named(module)}:{node.value.lineno}: trust_remote_code")
    assert not found
    # The public scripts save their parts as .pt files: one place reads those, as tensors alone.
    assert [place.split(":")[0] for place in tensors_only] == ["model/layouts/public_parts.py"]


def test_every_all_names_what_is_there():
    stated = 0
    for module in MODULES:
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" and unit_of(module):
                stated += 1
                exported = ast.literal_eval(node.value)
                bound = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
                bound |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
                bound |= {ast.unparse(t) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}
                assert set(exported) <= bound, named(module)
    assert stated >= 3
