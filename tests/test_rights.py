"""Files that one may not read: the message names the file and says so, and never that there is none."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from small_run import Armorm, write_recipe

from armorm.run.train import Run

MODEL = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BESIDE = [f"{part}.{end}" for part in ("uncertainty", "reference", "preference") for end in ("json", "safetensors")]
PARTS = ("probe/probe.safetensors", "probe/probe.json", "gate/gate.safetensors", "debias/debias.json", "uncertainty/stage.json")


def deny(patched: pytest.MonkeyPatch, file: Path) -> None:
    """Has a file be one that may not be opened; these tests may run as root."""
    denied = file.resolve()

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, *given: Any, **named: Any) -> Any:
            if isinstance(path, str | os.PathLike) and os.path.realpath(path) == str(denied):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path, *given, **named)

        return opened

    patched.setattr(os, "open", guarded(os.open))
    patched.setattr(io, "open", guarded(io.open))
    patched.setattr("builtins.open", io.open)


def require_told(err: str, file: str) -> None:
    """One message, about this file and the right to read it."""
    told = " ".join(err.partition("error: ")[2].split())
    assert err.count("error: ") == 1, err
    assert "Permission denied" in told
    assert file in told
    for wrong in ("no such file", "damaged", "no json", "traceback"):
        assert wrong not in told.lower()


@pytest.fixture(scope="module")
def model(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(run.folder / "model", tmp_path_factory.mktemp("denied") / "model"))


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize("file", [*MODEL, *BESIDE, "SHA256SUMS"])
def test_a_model_of_which_a_file_may_not_be_read(armorm: Armorm, model, rows, monkeypatch, tmp_path, file: str, listed: bool):
    if not listed:
        model = Path(shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS")))
    if not (model / file).exists():
        return
    deny(monkeypatch, model / file)
    code, out, err = armorm("score", model, rows / "pairs.jsonl", "--quiet")
    assert (code, out) == (2, "")
    require_told(err, file)


@pytest.mark.parametrize("file", MODEL)
def test_a_decoder_of_which_a_file_may_not_be_read(armorm: Armorm, rows, tiny_folder, monkeypatch, tmp_path, file: str):
    decoder = Path(shutil.copytree(tiny_folder, tmp_path / "decoder"))
    recipe = write_recipe(rows, decoder)
    deny(monkeypatch, decoder / file)
    code, out, err = armorm("train", recipe, "--out", tmp_path / "run", "--quiet")
    assert (code, out) == (2, "")
    require_told(err, file)


@pytest.mark.parametrize("file", PARTS)
def test_a_part_of_a_run_that_may_not_be_read(armorm: Armorm, rows, tiny_folder, copied, monkeypatch, file: str):
    recipe = write_recipe(rows, tiny_folder)
    deny(monkeypatch, copied / file)
    _, _, err = armorm("train", recipe, "--out", copied, "--quiet")
    told = err.replace("\n", "")
    assert f"{file}: can't be read (Permission denied)" in told
    assert "no such file" not in told.lower()
    assert "Traceback" not in told


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("part", ["regression", "gate", "transform"])
def test_a_public_part_that_may_not_be_read(armorm: Armorm, monkeypatch, tmp_path, part: str, ending: str):
    numbers = {"gate": {"layers.0.weight": torch.zeros(3, 4), "layers.0.bias": torch.zeros(3), "logit_scale": torch.ones(1)}}
    for name in ("regression", "gate", "transform"):
        save = torch.save if ending == ".pt" else safetensors.torch.save_file
        save(numbers.get(name, {"weight": torch.eye(3, 3 if name == "transform" else 4)}), tmp_path / f"{name}{ending}")
    files = [word for name in ("regression", "gate", "transform") for word in (f"--{name}", tmp_path / f"{name}{ending}")]
    deny(monkeypatch, tmp_path / f"{part}{ending}")
    code, out, err = armorm("import", *files, "--backbone", "b", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    require_told(err, f"{part}{ending}")


@pytest.mark.parametrize("file", ["rows.jsonl", "profile.yaml", "recipe.yaml"])
def test_a_persons_file_that_may_not_be_read(armorm: Armorm, model, monkeypatch, tmp_path, file: str):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    (tmp_path / "profile.yaml").write_text("name: a\n")
    (tmp_path / "recipe.yaml").write_text("name: a\n")
    deny(monkeypatch, tmp_path / file)
    words = ("score", model, tmp_path / "rows.jsonl", "--profile", tmp_path / "profile.yaml")
    code, out, err = armorm(*(("train", tmp_path / file) if file == "recipe.yaml" else words))
    assert (code, out) == (2, "")
    require_told(err, file)
