"""Features by vLLM against those of this package's own engine: small random decoders, and a recipe on one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}
pytest.importorskip("vllm.entrypoints.llm")

import numpy as np
import torch
import transformers
from folders import SHAPE, write_decoder
from safetensors.numpy import load_file
from small_run import write_recipe, write_rows
from test_vllm_engine import CONVERSATIONS, IMITATION

from armorm.errors import BackboneError
from armorm.features.backbone import load_backbone
from armorm.features.extract import Features, extract
from armorm.features.spec import FeatureSpec
from armorm.features.vllm_engine import VllmBackbone, load_on_vllm
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.rendering import Renderer
from armorm.run.extraction import extract as extract_recipe

pytestmark = pytest.mark.filterwarnings("default")

NEAR = 1e-5
"""Of a state's largest number: float32 has 24 bits, and states of tens lose the fifth digit behind the point in a few blocks."""
RESPONSE = FeatureSpec.parse("1:last+2:closing+3:mean+final:last+final:closing+final:mean").parts
PROMPT = FeatureSpec.parse("1:mean+3:turn+final:last+final:turn").parts
TALKS = [
    *CONVERSATIONS,
    CONVERSATIONS[0],  # a second time
    [CONVERSATIONS[0][0], {"role": "assistant", "content": IMITATION}],
    [{"role": "user", "content": "hello " * 400}, {"role": "assistant", "content": "fine"}],  # is cut
]


def check_near(found: Any, wanted: Any, name: str) -> None:
    """Rows of states that differ by rounding alone."""
    found, wanted = (np.asarray(one, np.float64) for one in (found, wanted))
    largest = np.abs(wanted).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(found / largest, wanted / largest, atol=NEAR, rtol=0, err_msg=name)


def with_head(folder: Path) -> Path:
    """A decoder as most are on the hub: with its language head, whose weights are the embedding's."""
    write_decoder(folder, transformers.LlamaConfig(**SHAPE))
    config = transformers.AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = True
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["bare", "with head", "qwen3"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    if request.param == "with head":
        return with_head(folder)
    kind = transformers.Qwen3Config if request.param == "qwen3" else transformers.LlamaConfig
    return write_decoder(folder, kind(**SHAPE))


@pytest.fixture(scope="module")
def theirs(place: Path) -> Iterator[VllmBackbone]:
    backbone = load_on_vllm(str(place), [*RESPONSE, *PROMPT], dtype="float32", max_tokens=256)
    yield backbone
    backbone.close()


def read(backbone: Any, renderer: Renderer, talks: Any = TALKS) -> Features:
    ticks: list[int] = []
    found = extract(talks, backbone, renderer, response=RESPONSE, prompt=PROMPT, on_tokens=ticks.append)
    assert sum(ticks) == found.computed_tokens
    return found


def test_vllms_features_are_those_of_our_own_engine(theirs: VllmBackbone, place: Path):
    own = load_backbone(str(place), dtype="float32", device="cpu")
    renderer = Renderer(own.tokenizer, max_tokens=256)
    found, wanted = read(theirs, renderer), read(own, renderer)
    assert (found.truncated == wanted.truncated).all()
    assert found.truncated.sum() == 1
    assert (found.response_tokens == wanted.response_tokens).all()
    assert (found.prompt_tokens == wanted.prompt_tokens).all()
    for ours, others in ((wanted.response, found.response), (wanted.prompt, found.prompt)):
        assert list(ours) == list(others)
        for part, values in ours.items():
            assert np.ptp(values, axis=0).max() > 1e-2, part  # features that could be wrong
            check_near(others[part], values, part)
    assert len(read(theirs, renderer, [])) == 0
    with pytest.raises(BackboneError, match="no layer 4"):
        extract(TALKS[:1], theirs, renderer, response=FeatureSpec.parse("4:last").parts, prompt=PROMPT)
    with pytest.raises(BackboneError, match="without layer 2"):
        VllmBackbone("x", 4, 64, frozenset({"1"}), None).check(FeatureSpec.parse("2:last").parts)


def test_a_recipe_fills_the_same_shards_in_stores_of_their_own(tmp_path: Path):
    decoder = write_decoder(tmp_path / "decoder", transformers.LlamaConfig(**SHAPE))
    write_rows(tmp_path)
    stores: dict[str, dict[str, Path]] = {}
    for engine in ("vllm", "own"):
        features = {"response": ["2:mean+final:last"], "prompt": "3:last", "store_dtype": "float32", "engine": engine}
        recipe = load_recipe(write_recipe(tmp_path, decoder, backbone={"device": "auto"}, features=features))
        found = extract_recipe(recipe, tmp_path / "features", reporter=Reporter(quiet=True))
        assert found.whole
        stores[engine] = {store.name: tmp_path / "features" / store.folder for store in found.stores}
    assert len(stores["own"]) == len(stores["vllm"]) == 4
    for name, own in stores["own"].items():
        other = stores["vllm"][name]
        assert other != own
        assert json.loads((other / "manifest.json").read_text())["backbone"]["engine"] == "vllm"
        shards = sorted(file.name for file in own.glob("shard-*.safetensors"))
        assert shards == sorted(file.name for file in other.glob("shard-*.safetensors"))
        for shard in shards:
            ours, others = load_file(own / shard), load_file(other / shard)
            assert set(ours) == set(others)
            for column, values in ours.items():
                check_near(others[column], values, column)


def test_a_decoder_that_vllm_can_not_read_inside_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = write_decoder(tmp_path / "gemma", transformers.Gemma2Config(**SHAPE))
    with pytest.raises(BackboneError, match=r"vLLM can't run this decoder"):
        load_on_vllm(str(folder), RESPONSE, dtype="float32", max_tokens=256)
    said = "".join(capfd.readouterr())
    assert "behind its blocks 1, 2, 3" in said
    assert "features.engine" in said
    shutil.rmtree(folder)
    with pytest.raises(BackboneError, match="no such folder"):
        load_on_vllm(str(folder), RESPONSE, dtype="float32", max_tokens=256)
