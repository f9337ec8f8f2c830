"""One pass of the decoder: token ids in, the hidden states of the wanted layers out.

In: a decoder, rows of token ids, names of layers.  Out: states [b t d] per layer; `Stretch`es of them that hold a text.
Cost: the pass. Padding on the right needs no mask (a causal decoder's tokens never see what follows); shared prompts are padded
on the left, and their keys and values serve all their answers. Neither is taken for granted: `reading_of` tries both on three
short sequences, once for each decoder.

A decoder is shared by everybody who scores with it, so nothing is hung on it: a pass runs a view, shallow clones of the modules
on the way to its blocks, which share the weights and alone carry the hooks. Any number of threads may run passes at once.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from armorm.errors import BackboneError
from armorm.features.backbone import Backbone, blocks_of
from armorm.features.prefixes import Ids, Path
from armorm.features.spec import FINAL
from armorm.rendering import Rendered

States = Mapping[str, Float[Tensor, "t d"]]
Each = list[Mapping[str, Tensor]]
"""The states of several sequences, each by layer [t d] with a number of tokens of its own."""
PROOF = ((5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16), (5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 3), (30, 5, 31))
"""Sequences that show how a decoder may be read: a fork, and one apart."""
FORK = 9
"""Where the first two part."""
FREQUENCIES = "inv_freq"
"""How the buffers are called in which rotary embeddings keep their frequencies."""


def _compute_alone() -> None:
    # The pool of threads does not come along into a forked process, and OpenMP would wait for it without end.
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_compute_alone)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment of each sequence of a pass, whose tokens stand in the states at `paths`: its tokens [start, end), of which the
    first `text` are the text's own."""

    states: States
    paths: Sequence[Path]
    start: Sequence[int]
    text: Sequence[int]
    end: Sequence[int]


@dataclass(frozen=True, slots=True)
class Reading:
    """What gives a decoder's states of each sequence alone, where it isn't packed.

    `together`: several sequences in a batch, padded on the right. `shared`: answers behind a prompt's cached keys and values.
    """

    together: bool
    shared: bool


_readings: WeakKeyDictionary[Any, Reading] = WeakKeyDictionary()
_proving = Lock()


def reading_of(backbone: Backbone) -> Reading:
    """How a decoder may be read, tried once for each decoder on three short sequences.

    Raises BackboneError for one that is not causal: a prompt's states would change with the answer.
    """
    with _proving, torch.inference_mode():
        if backbone.model not in _readings:
            _readings[backbone.model] = _tried(backbone)
        return _readings[backbone.model]


def run_decoder(
    model: Any, layers: Collection[str], *, adapt: Callable[[Any], Any] | None = None, **inputs: Any
) -> dict[str, Float[Tensor, "b t d"]]:
    """Call a decoder without its head, and return the states of `layers` (block numbers from 1, or "final").

    `adapt` makes another decoder of the one that this pass runs, and must leave the modules that it shares as they are.
    Raises BackboneError for a token that the decoder has no embedding of.
    """
    known, most = int(model.get_input_embeddings().weight.shape[0]), int(inputs["input_ids"].max())
    if most >= known:
        raise BackboneError(f"the tokenizer gives token {most}, the decoder knows {known}: copy both again, from one model")
    states: dict[str, Tensor] = {}
    view = _view(model, [layer for layer in layers if layer != FINAL], states)
    call = adapt(view) if adapt else view
    output = call(**inputs, output_hidden_states=False, output_attentions=False)  # whatever its config asks for
    if FINAL in layers:
        states[FINAL] = output.last_hidden_state
    shape = inputs["input_ids"].shape
    if other := next((state.shape for state in states.values() if state.shape[:2] != shape), None):
        raise BackboneError(
            f"{type(model).__name__} gives states of shape {tuple(other)} for token ids of shape {tuple(shape)}: "
            "only decoders whose blocks give a state for each token can be backbones"
        )
    return states


def run_whole(rendered: Sequence[Rendered], backbone: Backbone, layers: Collection[str]) -> tuple[Stretch, Stretch]:
    """Whole conversations, padded on the right: their prompts and their answers."""
    ids = pad_right([r.ids for r in rendered], backbone.device)
    states = _flat(run_decoder(backbone.model, layers, input_ids=ids, use_cache=False))
    paths = [(range(at, at + len(r)),) for at, r in zip(range(0, ids.numel(), ids.shape[1]), rendered, strict=True)]
    return prompts_and_answers(states, paths, rendered)


def prompts_and_answers(states: States, paths: Sequence[Path], rendered: Sequence[Rendered]) -> tuple[Stretch, Stretch]:
    """The two stretches of conversations whose tokens stand at `paths`."""
    starts, prompts = [0] * len(rendered), [len(r.prompt) for r in rendered]
    answers, wholes = [len(r.answer) for r in rendered], [len(r) for r in rendered]
    return Stretch(states, paths, starts, prompts, prompts), Stretch(states, paths, prompts, answers, wholes)


class SharedPrompts:
    """Prompts that have been read once; their keys and values serve all their answers.

    `stretch` holds the prompts' own states. Needs a decoder of which `reading_of` says that it shares them.
    """

    def __init__(self, prompts: Sequence[Ids], backbone: Backbone, layers: Collection[str]) -> None:
        self._backbone, self._layers = backbone, layers
        ids, self._mask = pad_left(prompts, backbone.device)
        cache = DynamicCache()
        states = run_decoder(
            backbone.model,
            layers,
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions_of(self._mask),
            past_key_values=cache,
            use_cache=True,
        )
        stops = range(ids.shape[1], ids.numel() + 1, ids.shape[1])
        paths = [(range(stop - len(p), stop),) for stop, p in zip(stops, prompts, strict=True)]
        sizes = [len(p) for p in prompts]
        self.stretch = Stretch(_flat(states), paths, [0] * len(sizes), sizes, sizes)
        self._keys_values = [(layer.keys, layer.values) for layer in cache.layers]

    @property
    def depth(self) -> int:
        """Blocks whose keys and values were kept."""
        return len(self._keys_values)

    def run_answers(self, rendered: Sequence[Rendered], which: Sequence[int]) -> Stretch:
        """Answers with their closings, each behind the prompt whose place `which` gives."""
        device, at = self._backbone.device, torch.tensor(which, device=self._backbone.device)
        sizes = [len(r.answer) + len(r.closing) for r in rendered]
        tails = pad_right([r.answer + r.closing for r in rendered], device)
        inside = torch.arange(tails.shape[1], device=device) < torch.tensor(sizes, device=device)[:, None]
        mask = torch.cat([self._mask[at], inside.long()], dim=1)
        states = run_decoder(
            self._backbone.model,
            self._layers,
            input_ids=tails,
            attention_mask=mask,
            position_ids=positions_of(mask)[:, self._mask.shape[1] :],
            past_key_values=DynamicCache([(keys[at], values[at]) for keys, values in self._keys_values]),
            use_cache=True,
        )
        starts = range(0, tails.numel(), tails.shape[1])
        paths = [(range(at, at + size),) for at, size in zip(starts, sizes, strict=True)]
        return Stretch(_flat(states), paths, [0] * len(sizes), [len(r.answer) for r in rendered], sizes)


def last_states(states: Float[Tensor, "b t d"], rows: Sequence[Sequence[int]]) -> Float[Tensor, "b d"]:
    """The state of each row's last token, of rows that were padded on the right."""
    last = torch.tensor([len(row) - 1 for row in rows], device=states.device)
    return states[torch.arange(len(rows), device=states.device), last]


def pad_right(rows: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "b t"]:
    """Token ids with zeros behind them."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids.to(device)


def pad_left(
    rows: Sequence[Sequence[int]], device: torch.device, *, padding: int = 0
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Token ids with `padding` in front of them, and the mask that says which are real."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def positions_of(mask: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """Each token's place among the real ones of its row."""
    return (mask.cumsum(dim=1) - 1).clamp_min(0)


def clone_shallowly(module: Any) -> Any:
    """A module with the same weights and children, whose own children, buffers and hooks may be changed without touching it.

    Raises BackboneError where another library has put a forward of its own on the module that would run the module itself.
    """
    clone = copy.copy(module)
    forward = module.__dict__.get("forward")
    if isinstance(forward, MethodType) and forward.__self__ is module:
        clone.__dict__["forward"] = MethodType(forward.__func__, clone)
    elif forward is not None:
        raise BackboneError(
            f"{type(module).__name__} has a forward of another library's (several devices by a device_map, offloaded weights, a "
            "compiled forward): load the decoder on one device, and leave its forward as it is"
        )
    clone.__dict__["_compiled_call_impl"] = None  # it would run the module itself
    for name in ("_modules", "_buffers"):
        clone.__dict__[name] = dict(module.__dict__[name])
    clone.__dict__["_forward_hooks"] = OrderedDict(module._forward_hooks)
    return clone


def _apart(module: Any) -> Any:
    # The module, or a clone where a pass would write into it (rotary embeddings change their frequencies in place) or where it is
    # in training, with dropout; and of all that hold one such.
    children = {name: _apart(child) for name, child in module._modules.items() if child is not None}
    turning = [name for name in module._buffers if name.endswith(FREQUENCIES)]
    if not turning and not module.training and all(child is module._modules[name] for name, child in children.items()):
        return module
    clone = clone_shallowly(module)
    clone.training = False
    clone._modules.update(children)
    clone._buffers.update({name: clone._buffers[name].clone() for name in turning})
    return clone


def _tried(backbone: Backbone) -> Reading:
    known = int(backbone.model.get_input_embeddings().weight.shape[0])
    sequences = [tuple(i % known for i in ids) for ids in PROOF]
    texts = [Rendered(ids[:at], ids[at:], ()) for ids, at in zip(sequences, (FORK, FORK, 1), strict=True)]
    layers = {FINAL}  # to which all blocks add
    alone = [_alone(ids, backbone, layers) for ids in sequences]
    prompt = _alone(texts[0].prompt, backbone, layers)
    if not all(_near(prompt[layer], alone[0][layer][:FORK], rounding=0.2) for layer in layers):
        raise BackboneError(
            f"{backbone.name}: {type(backbone.model).__name__} is not causal here, a prompt's states change with what follows: "
            "name a causal decoder"
        )
    together = _holds(_read_together, texts, alone, backbone, layers)
    return Reading(together, together and backbone.shares_prefix and _holds(_read_shared, texts, alone, backbone, layers))


def _holds(
    way: Callable[..., Each | None],
    texts: Sequence[Rendered],
    alone: Each,
    backbone: Backbone,
    layers: set[str],
) -> bool:
    # Whether a way to read texts gives the states that each has alone.
    try:
        read = way(texts, backbone, layers)
    except Exception:  # whatever a library raises: this decoder can't be read so
        return False
    return read is not None and all(_near(a[layer], b[layer]) for a, b in zip(read, alone, strict=True) for layer in layers)


def _alone(ids: Ids, backbone: Backbone, layers: Collection[str]) -> States:
    return _flat(run_decoder(backbone.model, layers, input_ids=pad_right([ids], backbone.device), use_cache=False))


def _read_together(texts: Sequence[Rendered], backbone: Backbone, layers: Collection[str]) -> Each:
    whole, _ = run_whole(texts, backbone, layers)
    return [{layer: state[path.start : path.stop] for layer, state in whole.states.items()} for (path,) in whole.paths]


def _read_shared(texts: Sequence[Rendered], backbone: Backbone, layers: Collection[str]) -> Each | None:
    prompts = list(dict.fromkeys(text.prompt for text in texts))
    which = [prompts.index(text.prompt) for text in texts]
    shared = SharedPrompts(prompts, backbone, layers)
    if shared.depth != len(blocks_of(backbone.model)):
        return None
    front, back = shared.stretch, shared.run_answers(texts, which)
    paths = [(front.paths[i][0], path) for i, (path,) in zip(which, back.paths, strict=True)]
    return [
        {layer: torch.cat([front.states[layer][a.start : a.stop], back.states[layer][b.start : b.stop]]) for layer in layers}
        for a, b in paths
    ]


def _near(a: Float[Tensor, "t d"], b: Float[Tensor, "t d"], *, rounding: float = 0.1) -> bool:
    # Within `rounding` of a short type, which all blocks together make: what another token or place changes is more.
    tolerance = 1e-3 if a.dtype == torch.float32 else rounding
    return bool((a.float() - b.float()).norm() <= tolerance * b.float().norm())


def _view(model: Any, layers: Iterable[str], states: dict[str, Tensor]) -> Any:
    """A clone of the decoder whose named blocks leave what they give in `states`."""
    view = clone_shallowly(_apart(model))
    blocks = blocks_of(view)
    path = next(name for name, module in view.named_modules() if module is blocks).split(".")
    parent = view
    for name in path[:-1]:
        parent._modules[name] = clone_shallowly(parent._modules[name])
        parent = parent._modules[name]
    for name, child in parent._modules.items():  # rotary embeddings keep what a long text changes in themselves
        if child is not None and next(child.parameters(), None) is None:
            parent._modules[name] = clone_shallowly(child)
    tapped = clone_shallowly(blocks)
    parent._modules[path[-1]] = tapped
    for layer in layers:
        name = str(int(layer) - 1)
        tapped._modules[name] = clone_shallowly(tapped._modules[name])
        tapped._modules[name].register_forward_hook(_keeper(states, layer))
    return view


def _keeper(states: dict[str, Tensor], layer: str) -> Callable[..., None]:
    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        states[layer] = output[0] if isinstance(output, tuple | list) else output

    return keep


def _flat(states: Mapping[str, Float[Tensor, "b w d"]]) -> States:
    return {layer: state.flatten(0, 1) for layer, state in states.items()}
