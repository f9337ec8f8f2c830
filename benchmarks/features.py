"""How much sharing prompts and batching by length save: the same answers three ways, in one run.

    python benchmarks/features.py [--prompts 24] [--backbone smollm2]

Prints seconds and the ratio to one conversation at a time (the way of the public scripts). Uses the starter set's prompts, each
with all its answers.
"""

from __future__ import annotations

import argparse
import time
from unittest.mock import patch

from armorm.data.starter import build
from armorm.features.backbone import Backbone, load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.rendering import Renderer
from armorm.report.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--backbone", default="smollm2")
    given = parser.parse_args()
    backbone = load_backbone(given.backbone)
    renderer = Renderer(backbone.tokenizer, max_tokens=1024)
    parts = FeatureSpec.parse("final:mean").parts
    rows = sorted(build().ratings, key=lambda r: (r.group, r.id))
    groups = sorted({r.group for r in rows})[: given.prompts]
    texts = {r.messages[-1]["content"]: r.messages for r in rows if r.group in groups}
    conversations = list(texts.values())
    tokens = sum(len(renderer.render(c)) for c in conversations)

    def seconds(batches: list[list[tuple]], *, share: bool) -> float:
        with patch.object(Backbone, "shares_prefix", share):
            start = time.perf_counter()
            for batch in batches:
                extract(batch, backbone, renderer, response=parts, prompt=parts, batch_tokens=2048)
            return time.perf_counter() - start

    seconds([conversations[:4]], share=True)  # warm up
    ways = {
        "one at a time": seconds([[c] for c in conversations], share=False),
        "batched by length": seconds([conversations], share=False),
        "batched, prompts shared": seconds([conversations], share=True),
    }
    facts = provenance()
    where = f"{facts['machine']}; commit {facts['commit']}"
    print(f"{len(conversations)} answers to {len(groups)} prompts, {tokens:,} tokens; {where}")
    slowest = ways["one at a time"]
    for way, spent in ways.items():
        print(f"{way:26} {spent:8.2f} s  {tokens / spent:8,.0f} tokens/s  {slowest / spent:5.2f}x")


if __name__ == "__main__":
    main()
