"""What `import armorm` offers: the names, where they live, and that nothing heavy is loaded for them."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import armorm
from armorm import errors

MODELS = {
    "Comparison",
    "Difference",
    "Explanation",
    "Objective",
    "Objectives",
    "Profile",
    "RewardModel",
    "RewardModelConfig",
    "Score",
}
WORK = {"Recipe", "difference", "explain", "load_recipe", "score_file", "train"}
ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}


def test_the_exported_names_are_those_that_a_user_needs():
    assert len(ERRORS) == 12
    assert set(armorm.__all__) == MODELS | WORK | ERRORS | {"__version__"}
    assert armorm.__all__ == sorted(armorm.__all__)
    assert set(armorm.__all__) <= set(dir(armorm))


@pytest.mark.parametrize("name", sorted(MODELS | WORK | ERRORS))
def test_an_exported_name_is_what_its_module_defines_and_says_what_it_is(name: str):
    value = getattr(armorm, name)
    assert value is getattr(import_module(value.__module__), name)
    assert value.__module__.startswith("armorm.")
    assert inspect.getdoc(value)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(armorm.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {(a.name, node.module) for node in checked.body if isinstance(node, ast.ImportFrom) for a in node.names}
    assert seen == {(name, getattr(armorm, name).__module__) for name in set(armorm.__all__) - {"__version__"}}


def test_other_names_are_none():
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = armorm.nothing_such


HEAVY = {"torch", "transformers", "numpy", "scipy", "pandas", "pyarrow", "datasets", "pydantic"}


@pytest.mark.parametrize(
    "code",
    [
        "import armorm; dir(armorm); armorm.ArmormError, armorm.MissingExtra",
        "import sys; sys.argv = ['armorm', '--help']\nfrom armorm.cli import main\ntry: main()\nexcept SystemExit: pass",
    ],
    ids=["import armorm", "armorm --help"],
)
def test_what_is_light_loads_nothing_heavy(code: str):
    code += f"\nimport sys; loaded = {HEAVY!r} & set(sys.modules); assert not loaded, loaded"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_transformers_learns_the_model_type_whichever_is_imported_first():
    for first, second in (("armorm", "transformers"), ("transformers", "armorm")):
        code = f"import {first}, {second}\nprint(type(transformers.AutoConfig.for_model('armorm')).__name__)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert found.stdout.strip() == "RewardModelConfig", found.stderr
