"""The decoder's pass over three loads: one sequence at a time, padded batches, ours, and vLLM's pooling runner; in one run.

    python benchmarks/features.py [--backbone smollm2] [--size 12000] [--vllm PYTHON] [--device cuda --backbone llama-8b-shaped]

Prints useful tokens per second (the tokens of one sequence at a time, all blocks), medians of several runs, the ratio to vLLM,
and which share of this process's matrix product rate the linear layers reach. `--vllm` names the python of an environment that
has vLLM. The real texts come from ARMORM_DATA; without it, and for a random decoder, ids and lengths are made up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers
from loads import loads_of
from measuring import Figure, write_results

from armorm.features.backbone import Backbone, blocks_of, load_backbone, located
from armorm.features.extract import stream_features
from armorm.features.forward import pad_right
from armorm.features.packed import packs
from armorm.features.packing import cut_by_length
from armorm.features.spec import FeatureSpec
from armorm.rendering import Rendered

PARTS = FeatureSpec.parse("final:mean").parts
SHAPED = {
    "llama-8b-shaped": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-1b-shaped": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
}
"""Random decoders in the sizes of known ones, for machines without a network."""


def random_backbone(name: str, device: str) -> Backbone:
    """A random decoder of a known shape, made where it runs."""
    more = {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192}
    config = transformers.LlamaConfig(**SHAPED[name], **more)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = transformers.LlamaModel(config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    return Backbone(name, model, None, config.num_hidden_layers, config.hidden_size, "")


@torch.inference_mode()
def one_at_a_time(backbone: Backbone, rendered: Sequence[Rendered], _tokens: int) -> int:
    """The way of the public scripts."""
    for r in rendered:
        backbone.model(input_ids=torch.tensor([r.ids], device=backbone.device), use_cache=False).last_hidden_state.float().mean(1)
    return sum(map(len, rendered))


@torch.inference_mode()
def padded(backbone: Backbone, rendered: Sequence[Rendered], tokens: int) -> int:
    """Batches of transformers, sorted by length, with a mask."""
    lengths = [len(r) for r in rendered]
    for batch in cut_by_length(lengths, budget=tokens):
        ids = pad_right([rendered[i].ids for i in batch], backbone.device)
        ends = torch.tensor([lengths[i] for i in batch], device=backbone.device)
        mask = (torch.arange(ids.shape[1], device=backbone.device) < ends[:, None]).long()
        state = backbone.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        (state.float() * mask[..., None]).sum(1)
    return sum(lengths)


def ours(backbone: Backbone, rendered: Sequence[Rendered], tokens: int) -> int:
    """The features' own pass; returns the tokens that it computed."""
    return sum(p.tokens for p in stream_features(rendered, backbone, response=PARTS, prompt=PARTS, batch_tokens=tokens))


@torch.inference_mode()
def difference(backbone: Backbone, rendered: Sequence[Rendered], tokens: int) -> float:
    """How far our features are from those of one sequence at a time, in proportion to their size."""
    found = torch.zeros(len(rendered), backbone.width)
    for pooled in stream_features(rendered, backbone, response=PARTS, prompt=PARTS, batch_tokens=tokens):
        found[list(pooled.rows)] = pooled.response["final:mean"].cpu()
    alone = []
    for r in rendered:
        state = backbone.model(input_ids=torch.tensor([r.ids], device=backbone.device), use_cache=False).last_hidden_state[0]
        alone.append(state[len(r.prompt) :][: len(r.answer)].float().mean(0).cpu())
    return float((found - torch.stack(alone)).norm() / torch.stack(alone).norm())


def seconds_of(way: Callable[..., int], *given: object) -> tuple[float, int]:
    """Seconds and computed tokens of one run."""
    start = time.perf_counter()
    computed = way(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, computed


def product_rate(device: torch.device) -> float:
    """Multiplications and additions per second of this process's bf16 matrix product, the best of several sizes."""
    best = 0.0
    sizes = [(2048, 576, 1536), (2048, 1536, 576), (2048, 2048, 2048)] if device.type == "cpu" else [(8192, 8192, 8192)]
    for t, i, o in sizes:
        x, w = torch.randn(t, i, device=device).bfloat16(), torch.randn(o, i, device=device).bfloat16()
        for _ in range(12):
            spent, _ = seconds_of(lambda x=x, w=w: int(torch.nn.functional.linear(x, w).shape[0]))
            best = max(best, 2 * t * i * o / spent)
    return best


def linear_work(backbone: Backbone) -> int:
    """Multiplications and additions per token in the linear layers of all blocks."""
    linears = [m for m in blocks_of(backbone.model).modules() if isinstance(m, torch.nn.Linear)]
    return sum(2 * m.weight.numel() for m in linears)


def run_vllm(python: str, name: str, loads: dict[str, list[Rendered]], times: int, tokens: int) -> dict[str, dict[str, float]]:
    """Median seconds of vLLM by load, with prefix caching on and off."""
    with tempfile.TemporaryDirectory() as folder:
        ids, out = Path(folder) / "ids.json", Path(folder) / "out.json"
        ids.write_text(json.dumps({load: [r.ids for r in rendered] for load, rendered in loads.items()}))
        script = Path(__file__).with_name("vllm_pass.py")
        words = [python, str(script), located(name), str(ids), str(out), str(times), str(tokens)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(out.read_text())
    return {load: {way: statistics.median(s) for way, s in ways.items()} for load, ways in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=12_000, help="tokens of a load")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--vllm", metavar="PYTHON")
    given = parser.parse_args()
    shaped = given.backbone in SHAPED
    device = "cpu" if given.device == "auto" and not torch.cuda.is_available() else given.device.replace("auto", "cuda")
    backbone = random_backbone(given.backbone, device) if shaped else load_backbone(given.backbone, device=device)
    loads = loads_of(backbone, size=given.size)
    vllm = run_vllm(given.vllm, given.backbone, loads, given.times, given.batch_tokens) if given.vllm else {}
    ways = {"one at a time": one_at_a_time, "padded batches": padded, "ours": ours}
    print(f"packed: {packs(backbone)}; torch {torch.__version__}, transformers {transformers.__version__}, {device}", flush=True)
    few = [r for load in loads.values() for r in load[:4]]
    print(f"features differ from those of one sequence at a time by {difference(backbone, few, given.batch_tokens):.1e}")
    runs: dict[tuple[str, str], list[float]] = {}
    computed: dict[tuple[str, str], int] = {}
    rates = []
    for way in ways.values():
        seconds_of(way, backbone, loads["best of 16"][:2], given.batch_tokens)  # warms up
    for _ in range(given.times):
        rates.append(product_rate(backbone.device))
        for load, rendered in loads.items():
            for name, way in ways.items():
                spent, computed[load, name] = seconds_of(way, backbone, rendered, given.batch_tokens)
                runs.setdefault((load, name), []).append(spent)
    rate, work = statistics.median(rates), linear_work(backbone)
    print(f"matrix products: {rate / 1e9:,.0f} GFLOP/s; linear layers: {work / 1e6:,.0f} MFLOP per token")
    rows, figures = [], []
    for load, rendered in loads.items():
        useful = sum(map(len, rendered))
        speeds = {name: useful / statistics.median(runs[load, name]) for name in ways}
        share = computed[load, "ours"] * work / statistics.median(runs[load, "ours"]) / rate
        theirs = {f"vLLM, caching {way}": useful / s for way, s in vllm.get(load, {}).items()}
        done = computed[load, "ours"]
        print(f"{load}: {len(rendered)} conversations, {useful:,} tokens, {done:,} computed; {share:.0%} of the rate")
        best = max(theirs.values(), default=None)
        for name, speed in {**speeds, **theirs}.items():
            against = "" if best is None else f"  {speed / best:5.2f} × vLLM"
            print(f"  {name:20} {speed:9,.0f} tokens/s  {speed / speeds['one at a time']:5.2f} × one at a time{against}")
        figures.append(
            Figure(
                f"useful tokens, {load}",
                speeds["ours"],
                "tokens/s",
                "vLLM" if best else "one at a time",
                best or speeds["one at a time"],
                "1.3 × vLLM",
            )
        )
        rows.append(
            {
                "load": load,
                "tokens": useful,
                "computed": computed[load, "ours"],
                "share_of_rate": share,
                "speeds": {**speeds, **theirs},
                "seconds": {name: runs[load, name] for name in ways},
            }
        )
    facts = {
        "backbone": given.backbone,
        "device": device,
        "batch_tokens": given.batch_tokens,
        "products_per_second": rate,
        "loads": rows,
    }
    name = "features" if device == "cpu" else f"features-{given.backbone}"
    write_results(name, facts, figures)


if __name__ == "__main__":
    main()
