"""Where the decoder's pass spends its time: products of the linear layers, attention, everything element by element, and Python.

    python benchmarks/pass_profile.py [--backbone smollm2] [--size 3000] [--batch-tokens 4096]

Padded batches of transformers (how features were read before) and ours, on the same loads in one run. Shares are of the wall
time of a run without the profiler; the profiler's own cost falls on Python. An operation counts as attention where it runs inside
of the attention function, and as a linear layer's product by its name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from features import ours, padded, seconds_of
from loads import loads_of
from measuring import Figure, write_results
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from armorm.features.attention import NAME
from armorm.features.backbone import Backbone, load_backbone
from armorm.rendering import Rendered

ATTENTION = "attention function"
PRODUCTS = ("aten::addmm", "aten::mm", "aten::linear", "mkldnn::_linear_pointwise")
Way = Callable[[Backbone, Sequence[Rendered], int], int]
KINDS = ("linear layers", "attention", "element by element", "Python")


@contextmanager
def attention_marked() -> Iterator[None]:
    """Attention functions stand out in a profile."""
    known = {name: ALL_ATTENTION_FUNCTIONS[name] for name in ("sdpa", NAME)}

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with record_function(ATTENTION):
                return function(*given, **named)

        return call

    try:
        for name, function in known.items():
            ALL_ATTENTION_FUNCTIONS[name] = marked(function)
        yield
    finally:
        for name, function in known.items():
            ALL_ATTENTION_FUNCTIONS[name] = function


def kind_of(event: FunctionEvent) -> str:
    """What an operation's own time counts as."""
    above: Any = event
    while above is not None:
        if above.name == ATTENTION:
            return "attention"
        above = above.cpu_parent
    return "linear layers" if event.name.startswith(PRODUCTS) else "element by element"


def shares(way: Way, backbone: Backbone, rendered: Sequence[Rendered], tokens: int, times: int) -> dict[str, float]:
    """The share of each kind, and the seconds of a run (the median of several)."""
    way(backbone, rendered, tokens)
    seconds = sorted(seconds_of(way, backbone, rendered, tokens)[0] for _ in range(times))[times // 2]
    with attention_marked(), profile(activities=[ProfilerActivity.CPU]) as watched:
        way(backbone, rendered, tokens)
    found = dict.fromkeys(KINDS, 0.0)
    for event in watched.events() or []:
        if event.name != ATTENTION:  # its own time is Python's
            found[kind_of(event)] += event.self_cpu_time_total / 1e6
    found["Python"] = max(0.0, seconds - sum(found.values()))
    whole = sum(found.values())
    return {**{kind: spent / whole for kind, spent in found.items()}, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="smollm2")
    parser.add_argument("--size", type=int, default=3_000, help="tokens of a load")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    backbone = load_backbone(given.backbone, device="cpu")
    loads = loads_of(backbone, size=given.size)
    facts: dict[str, Any] = {"backbone": given.backbone, "batch_tokens": given.batch_tokens, "loads": {}}
    figures = []
    for load, rendered in loads.items():
        found = {
            name: shares(way, backbone, rendered, given.batch_tokens, given.times)
            for name, way in {"padded batches": padded, "ours": ours}.items()
        }
        facts["loads"][load] = found
        for name, one in found.items():
            told = ", ".join(f"{kind} {one[kind]:.0%}" for kind in KINDS)
            print(f"{load}, {name}: {one['seconds']:.2f} s; {told}", flush=True)
        before, after = found["padded batches"], found["ours"]
        figures += [
            Figure(f"{kind}, {load}", after[kind] * after["seconds"], "s", "padded batches", before[kind] * before["seconds"])
            for kind in KINDS
        ]
    write_results("pass_profile", facts, figures)


if __name__ == "__main__":
    main()
