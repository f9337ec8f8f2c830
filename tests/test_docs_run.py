"""The code in the pages about servers and trainers, run against a live server; what needs another program is read.

Every page's blocks come through `docs.code_in`. A new page, language or program of somebody else's is told in the tables here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fastapi.testclient import TestClient
from page_app import serving

from armorm.cli.app import app as command_line
from armorm.model.reward_model import RewardModel
from armorm.scoring.profile import Profile
from armorm.serving.app import create_app
from armorm.serving.local import LocalService
from docs import ROOT, Code, code_in

PAGES = {"docs/serving.md": 7, "docs/rl.md": 15, "docs/protocols.md": 6}
"""The pages, with how many blocks each has."""
BLOCKS = [code for page in PAGES for code in code_in(page)]
ADDRESSES = ("http://localhost:8000", "http://127.0.0.1:8000", "localhost:8000")
ELSEWHERE = ("trl.GRPOTrainer", "verifiers.v1", "nemo_rl.register", "armorm.rl.ms_swift")
"""Of blocks that need another program at work: of these the syntax and our names are looked at. TRL's is run by its own tests."""
PROMPT = "<|im_start|>user\nhello how are you?<|im_end|>\n<|im_start|>assistant\n"
GIVEN = {
    "docs/protocols.md": {
        "conversation": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}],
        "conversation_as_text": PROMPT + "fine, thank you.<|im_end|>\n",
        "question": "hello",
        "answer": "fine",
        "other": "return x",
        "answers": ["fine", "return x"],
    }
}
"""What a page's text says is there."""
KEY = "a-key-of-mine"


def of(*languages: str) -> Any:
    found = [code for code in BLOCKS if code.language in languages]
    return pytest.mark.parametrize("code", found, ids=lambda code: code.name)


@pytest.fixture(scope="module")
def service(tiny_model: RewardModel) -> LocalService:
    return LocalService(tiny_model.engine(), "tiny", profiles={"careful": Profile(name="careful", fix={"safe": 0.5})})


@pytest.fixture(scope="module")
def live(service: LocalService) -> Iterator[str]:
    """The address of a server that runs."""
    with serving(create_app(service), lifespan="on") as url:
        yield url


@pytest.fixture(scope="module")
def place(tiny_model: RewardModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model at runs/starter/model."""
    place = tmp_path_factory.mktemp("place")
    (place / "runs" / "starter").mkdir(parents=True)
    tiny_model.save_pretrained(place / "runs" / "starter" / "model")
    return place


def at(live: str, text: str) -> str:
    """The text with a server's address in the place of the page's."""
    for address in ADDRESSES:
        text = text.replace(address, live if address.startswith("http") else live.removeprefix("http://"))
    return text


def test_these_are_all_blocks():
    assert {page: sum(code.page == page for code in BLOCKS) for page in PAGES} == PAGES
    assert {code.language for code in BLOCKS} == {"sh", "json", "python", "toml", "yaml"}


# -- Python ----------------------------------------------------------------------------------------------------------------------


def run(page: str, told: dict[str, Any], live: str) -> int:
    """A page's blocks in order, in one namespace, and how many there were; before, our imports of those that are not run."""
    pieces = [code for code in BLOCKS if (code.page, code.language) == (page, "python")]
    foreign = [code for code in pieces if any(name in code.text for name in ELSEWHERE)]
    for code in foreign:
        for node in ast.parse(code.text).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("armorm"):
                exec(compile(ast.Module([node], []), code.name, "exec"), told)
    ours = [code for code in pieces if code not in foreign]
    for code in ours:
        for node in ast.parse(at(live, code.text)).body:
            if isinstance(node, ast.Expr):
                value = eval(compile(ast.Expression(node.value), code.name, "eval"), told)
                assert not (isinstance(value, dict) and "error" in value), value
            else:
                exec(compile(ast.Module([node], []), code.name, "exec"), told)
    return len(ours)


def test_the_blocks_for_trainers_run(live: str):
    told: dict[str, Any] = {}
    assert run("docs/rl.md", told, live) == 2
    assert [reward.__name__ for reward in told["rewards"]] == ["score", "helpful", "safe", "verbosity"]
    assert told["row"].score == pytest.approx(sum(told["row"].named("contributions").values()))
    assert told["nothing"] is None


def test_the_blocks_of_other_programs_clients_run(live: str):
    assert run("docs/protocols.md", dict(GIVEN["docs/protocols.md"]), live) == 3


def test_a_program_of_ones_own_serves(live: str, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ARMORM_KEY", KEY)
    monkeypatch.chdir(place)
    told: dict[str, Any] = {}
    assert run("docs/serving.md", told, live) == 1
    body = {"messages": [{"role": "user", "content": "hello"}], "answers": ["fine"]}
    with TestClient(told["app"]) as client:
        assert client.post("/v1/rewards", json=body).status_code == 401
        reply = client.post("/v1/rewards", json=body, headers={"X-API-Key": KEY}).json()
    assert reply["model"] == "mine"
    assert "score" in reply["results"][0]


# -- the shell -------------------------------------------------------------------------------------------------------------------


@of("sh")
def test_the_shell_reads_every_command(code: Code):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    read = subprocess.run([bash, "-n"], input=code.text, capture_output=True, text=True, check=False, timeout=60)
    assert (read.returncode, read.stderr) == (0, "")


def test_curl_gets_the_reply_that_the_page_shows(live: str, service: LocalService):
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("there is no curl here")
    (asked,) = (i for i, code in enumerate(BLOCKS) if code.language == "sh" and code.text.startswith("curl "))
    found = subprocess.run(["bash", "-c", at(live, BLOCKS[asked].text)], capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stderr
    reply, shown = json.loads(found.stdout), json.loads(BLOCKS[asked + 1].text)
    assert reply.keys() == shown.keys()
    assert [one.keys() for one in reply["results"]] == [one.keys() for one in shown["results"]]
    assert reply["objectives"] == list(service.objectives)


def test_our_own_commands_are_the_command_lines():
    lines = [line for code in BLOCKS if code.language == "sh" for line in code.text.splitlines()]
    ours = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("armorm ")]
    assert ["serve", "runs/starter/model"] in ours
    for name, *words in ours:
        typer.main.get_command(command_line).commands[name].make_context(name, words)  # type: ignore[attr-defined]
    extras = {name for line in lines for name in re.findall(r"armorm\[(\w+)\]", line)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "serve" in extras
    assert extras <= set(project["optional-dependencies"])
    files = {name for line in lines for name in re.findall(r"\b(?:examples|benchmarks)/\w+\.py", line)}
    assert files
    assert not [name for name in files if not (ROOT / name).is_file()]


# -- what is read ----------------------------------------------------------------------------------------------------------------


@of("json", "yaml", "toml")
def test_what_is_no_program_is_read(code: Code):
    found = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}[code.language](code.text)
    assert isinstance(found, dict)
    assert found


def resolves(dotted: str) -> bool:
    """Whether a name of this package's is there; modules that need another program are looked for and not imported."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:n])) is not None
        except ModuleNotFoundError:  # the name before is no package
            continue
        if found:
            break
    if n == len(parts):
        return True
    value = importlib.import_module(".".join(parts[:n]))
    for part in parts[n:]:
        value = getattr(value, part, None)
    return value is not None


def test_every_dotted_name_of_ours_is_there():
    names = {name for code in BLOCKS for name in re.findall(r"(?<![\w/-])armorm(?:\.[a-zA-Z_]\w*)+", code.text)}
    for code in (code for code in BLOCKS if code.language == "python"):
        for node in ast.walk(ast.parse(code.text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("armorm"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert {"armorm.rl.trl.score", "armorm.serving.door.Door", "armorm.RewardModel.from_pretrained"} <= names
    assert not [name for name in names if not resolves(name)]
    assert not resolves("armorm.rl.trl_scores")
    assert not resolves("armorm.rl.slime.rewards")


def test_every_address_is_a_route_of_the_servers(service: LocalService):
    routes = set(create_app(service).openapi()["paths"])
    address = re.compile(r"(?:localhost|127\.0\.0\.1|rewards):8000(/[\w/]*)")
    named = {path.rstrip("/") for code in BLOCKS for path in address.findall(code.text)}
    assert {"/get_reward", "/slime", "/slime/objectives", "/v1/score/evaluation", "/classify", "/predict"} <= named
    assert named <= routes | {"/v1"}  # a client of OpenAI's names a prefix
