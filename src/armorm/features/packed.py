"""A pass of the decoder that computes nothing twice and nothing for padding: all sequences of a batch in one row.

In: token ids of sequences, a backbone, names of layers.  Out: the row's hidden states by layer, and where each sequence stands.
Cost: the pass over the tree's tokens; the first pass of a decoder is preceded by one over three short sequences that shows
whether it may be packed.

The decoder's own modules run, through a view that no one else sees (`features/forward.py`). Linear layers, norms and
activations know nothing of sequences; the attention function is ours, registered with transformers' attention interface, and
finds its plan on the view's attention modules.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from armorm.errors import BackboneError
from armorm.features.attention import NAME, CannotPackError, Plan
from armorm.features.backbone import Backbone, blocks_of
from armorm.features.forward import PROOF, States, clone_shallowly, run_decoder
from armorm.features.fused import fused
from armorm.features.prefixes import Ids, Tree, plant
from armorm.features.spec import FINAL

PACKABLE = {"full_attention", "sliding_attention"}
_proved: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_proving = Lock()


def run_tree(tree: Tree, backbone: Backbone, layers: Collection[str]) -> States:
    """The states [t d] of a tree's tokens at `layers`.

    Raises BackboneError for a token that the decoder has no embedding of.
    """
    return _run(tree, backbone, layers)[0]


def packs(backbone: Backbone) -> bool:
    """Whether a decoder's states are the same when its sequences stand in one row; tried once for each decoder."""
    with _proving:
        model = backbone.model
        if model not in _proved:
            _proved[model] = _may_pack(model) and _is_proved(backbone)
        return _proved[model]


def _run(tree: Tree, backbone: Backbone, layers: Collection[str]) -> tuple[States, Plan]:
    plan = Plan(tree.branches, backbone.device)
    states = run_decoder(
        backbone.model,
        layers,
        adapt=lambda view: _adapted(view, plan, {}),
        input_ids=torch.tensor([tree.ids], device=backbone.device),
        position_ids=torch.tensor([tree.positions], device=backbone.device),
        use_cache=False,
    )
    return {layer: state[0] for layer, state in states.items()}, plan


def _adapted(module: Any, plan: Plan, configs: dict[int, Any]) -> Any:
    # A clone of the module and of those inside it: attention by our function and this plan, the rest as it is or fused.
    clone = clone_shallowly(module)
    config = clone.__dict__.get("config")
    if config is not None:
        if id(config) not in configs:
            configs[id(config)] = copy.copy(config)
            configs[id(config)]._attn_implementation_internal = NAME
        clone.__dict__["config"] = configs[id(config)]
        clone.__dict__["plan"] = plan
    for name, child in clone._modules.items():
        if child is not None and (child._modules or "config" in child.__dict__):
            clone._modules[name] = fused(child) or _adapted(child, plan, configs)
    return clone


def _may_pack(model: Any) -> bool:
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    return bool(getattr(model, "_supports_attention_backend", False)) and (kinds is None or set(kinds) <= PACKABLE)


def _is_proved(backbone: Backbone) -> bool:
    known = int(backbone.model.get_input_embeddings().weight.shape[0])
    sequences: list[Ids] = [tuple(i % known for i in ids) for ids in PROOF]
    tree, layer = plant(sequences), "1" if len(blocks_of(backbone.model)) > 1 else FINAL
    with torch.inference_mode():
        try:
            states, plan = _run(tree, backbone, {layer})
        except (BackboneError, CannotPackError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return False
        if plan.calls != len(blocks_of(backbone.model)) or len(plan.windows) < _windowed_layers(backbone.model.config):
            return False  # attention that is not ours, or a window that ours does not hear of
        for ids, path in zip(sequences, tree.paths, strict=True):
            alone = run_decoder(backbone.model, {layer}, input_ids=torch.tensor([ids], device=backbone.device), use_cache=False)
            if not _alike(states[layer][[i for piece in path for i in piece]], alone[layer][0]):
                return False
    return True


def _windowed_layers(config: Any) -> int:
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return sum(kind == "sliding_attention" for kind in kinds)
    return config.num_hidden_layers if getattr(config, "sliding_window", None) else 0


def _alike(a: Float[Tensor, "t d"], b: Float[Tensor, "t d"]) -> bool:
    # Within what a block makes of its type's rounding, in proportion to each state: a wrong neighbour changes far more.
    tolerance = 1e-4 if a.dtype == torch.float32 else 0.03
    return bool(((a.float() - b.float()).norm(dim=1) <= tolerance * b.float().norm(dim=1)).all())
