"""Shared fixtures: a tiny random decoder with a chat template, in a folder as transformers writes it. No network."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # as the command line sets it

import numpy as np
import pytest
import torch
import transformers
from small_run import Armorm, Outcome, write_recipe, write_rows
from tiny_decoder import TEMPLATE, tiny_tokenizer, write_tiny

from armorm.cli import main
from armorm.features.backbone import Backbone, DType, load_backbone
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.method import Fitted
from armorm.fit.posterior import fit_posterior
from armorm.fit.probe import Probe, fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.model.layouts.own import assemble
from armorm.model.reward_model import RewardModel
from armorm.objectives import Objective, Objectives
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.rendering import Renderer
from armorm.run.train import Run, train
from armorm.scoring.reference import Reference
from armorm.scoring.uncertainty import Uncertainty


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[[], transformers.PreTrainedTokenizerFast]:
    """Makes a fresh tokenizer with the chat template above, for tests that change theirs."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama: 4 blocks, width 32, in float32, with tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a folder with a random decoder of any architecture, the same for the same config."""

    def make(config: transformers.PreTrainedConfig, tokenizer: transformers.PreTrainedTokenizerFast | None = None) -> Path:
        tokenizer = tokenizer or tiny_tokenizer()
        config = type(config).from_dict(config.to_dict())
        config.vocab_size = len(tokenizer)
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(config.model_type)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def speaker(random_folder: Callable[..., Path]) -> Path:
    """A random decoder whose language model's head is its embedding: 4 blocks, width 32, in float32."""
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    return random_folder(config)


@pytest.fixture
def tiny(tiny_folder: Path) -> Backbone:
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture
def renderer(tiny: Backbone) -> Renderer:
    return Renderer(tiny.tokenizer, max_tokens=512)


Parts = tuple[Probe, Debias, Gate]
RESPONSE, PROMPT = FeatureSpec.parse("2:mean+final:last"), FeatureSpec.parse("3:last+1:mean")


def random_parts(objectives: Objectives, response: int, prompt: int, computed: tuple[str, ...] = ()) -> Parts:
    """Random fitted parts for features of these widths. The debiasing reads the nuisances in `computed`, in small steps."""
    rng = np.random.default_rng(0)
    k, m = len(objectives), len(computed)
    probe = Probe(objectives, rng.normal(size=(k, response)) / 10, rng.normal(size=k), np.ones(k))
    matrix = np.concatenate([np.eye(k) + rng.normal(size=(k, k)) / 10, rng.normal(size=(m, k)) / 100])
    layers = [rng.normal(size=shape).astype(np.float32) / 4 for shape in ((6, prompt), (k, 6))]
    biases = [rng.normal(size=n).astype(np.float32) for n in (6, k)]
    return probe, Debias(objectives, computed, matrix), Gate(objectives, tuple(layers), tuple(biases), 2.0, 3.0)


@pytest.fixture(scope="session")
def parts() -> Parts:
    """A random probe, debiasing (which reads the answer's length) and gate, for features of two parts of width 32 each."""
    scales = {"helpful": (0, 4), "safe": (0, 1), "verbosity": (1, 10)}
    objectives = Objectives([Objective(name=n, min=low, max=high) for n, (low, high) in scales.items()])
    return random_parts(objectives, 64, 64, ("response-tokens",))


@pytest.fixture(scope="session")
def assembled(tiny_folder: Path) -> Callable[..., RewardModel]:
    """Puts parts on a freshly loaded tiny backbone."""

    def make(probe: Probe, debias: Debias, gate: Gate, *, dtype: DType = "float32", max_tokens: int = 256) -> RewardModel:
        backbone = load_backbone(str(tiny_folder), dtype=dtype, device="cpu")
        renderer = Renderer(backbone.tokenizer, max_tokens=max_tokens)
        return assemble(backbone, renderer, Fitted(probe, str(RESPONSE), debias, gate), prompt=PROMPT)

    return make


@pytest.fixture(scope="session")
def tiny_model(assembled: Callable[..., RewardModel], parts: Parts) -> RewardModel:
    """The tiny backbone with the random parts. Shared by all tests: to be changed in copies only."""
    return assembled(*parts)


@pytest.fixture(scope="session")
def sure(assembled: Callable[..., RewardModel], parts: Parts) -> RewardModel:
    """The tiny model with an uncertainty and a reference. To be changed in copies only."""
    model = assembled(*parts)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 64)).astype(np.float32)
    ratings = 0.5 + features @ rng.normal(size=(64, 3)) * 0.05 + 0.1 * rng.normal(size=(200, 3))
    folds = [RidgeStatistics.from_rows(features[i::2], ratings[i::2]) for i in range(2)]
    probe = fit_probe(folds, model.objectives, alphas=[1.0]).probe
    model.uncertainty = Uncertainty(model.objectives, fit_posterior(folds[0] + folds[1], probe), np.full(3, 2.0))
    gates, rewards = rng.dirichlet(np.ones(3), 20), rng.normal(size=(200, 3))
    prompts = [f"training prompt {i}" for i in range(20)]
    model.reference = Reference.of(model.objectives.names, rewards, rewards.mean(axis=1), prompts=prompts, gates=gates)
    return model


@pytest.fixture(scope="session")
def picky(assembled: Callable[..., RewardModel], parts: Parts) -> RewardModel:
    """The tiny model with a chat template that refuses system messages, as some do."""
    model = assembled(*parts)
    no = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    model.tokenizer.chat_template = no + TEMPLATE
    return model


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small run's rated rows, pairs and benchmark."""
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder)
    return folder


@pytest.fixture(scope="session")
def run(rows: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run on the tiny decoder; its folder is read, never changed."""
    recipe = load_recipe(write_recipe(rows, tiny_folder))
    return train(recipe, tmp_path_factory.mktemp("runs") / "small", reporter=Reporter(quiet=True))


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    """The small run, in a folder that may be changed."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


@pytest.fixture
def armorm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Armorm:
    """Runs the command line in this process: exit code, stdout, stderr."""

    def call(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["armorm", *map(str, words)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as left:
            code = left.code
        else:
            code = 0
        return int(code or 0), *capsys.readouterr()

    return call
