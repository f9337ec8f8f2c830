"""Fitted parts and a decoder → one reward model, in this package's own layout.

In: a backbone, its renderer, the fitted method.  Out: `RewardModel`.
Cost: none; the decoder's tensors are taken over, not copied.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from armorm.errors import BackboneError
from armorm.features.backbone import Backbone
from armorm.features.spec import FeatureSpec
from armorm.fit.method import Fitted
from armorm.model.config import RewardModelConfig
from armorm.model.gating import GatingNetwork
from armorm.model.marks import marks_of
from armorm.model.reward_model import RewardModel
from armorm.model.soundness import check_heads
from armorm.rendering import Renderer


def assemble(
    backbone: Backbone,
    renderer: Renderer,
    fitted: Fitted,
    *,
    prompt: FeatureSpec,
    gate_scale: float = 1.0,
) -> RewardModel:
    """Put the fitted method on its decoder, which is cut to the depth that is needed; `prompt` is what the gate reads.

    `gate_scale` multiplies the gate's weights when scoring; it is not β, which is `gate.scale`. Raises BackboneError when the
    parts were fitted on features of another width, CheckpointError for parts with numbers that are none.
    """
    probe, debias, gate, response = fitted.probe, fitted.debias, fitted.gate, FeatureSpec.parse(fitted.feature)
    needed = (backbone.width * len(response.parts), backbone.width * len(prompt.parts))
    layers = gate.weights if gate.width else (np.zeros((len(gate.biases[0]), needed[1])), *gate.weights[1:])
    if (widths := (probe.weights.shape[1], layers[0].shape[1])) != needed:
        raise BackboneError(
            f"the probe and the gate read features of widths {widths}, {response} and {prompt} of {backbone.name} have "
            f"{needed}: use the backbone and the features that they were fitted on"
        )
    backbone.cut([*response.parts, *prompt.parts])
    facts = {k: v for k, v in backbone.model.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    config = RewardModelConfig(
        objectives=probe.objectives.to_json(),
        computed=debias.computed,
        response_feature=str(response),
        prompt_feature=str(prompt),
        backbone_config=facts,
        backbone_layers=backbone.layers,
        backbone_name=backbone.name,
        gate_hidden=[w.shape[0] for w in gate.weights[:-1]],
        gate_blocks=gate.blocks,
        gating_temperature=gate.temperature,
        gate_scale=gate_scale,
        probe_bias=bool(np.any(probe.intercepts)),
        max_tokens=renderer.max_tokens,
        rendering=renderer.rendering.to_json(),
        **marks_of(renderer),
        pad_token_id=backbone.tokenizer.pad_token_id,
        dtype=str(next(backbone.model.parameters()).dtype).removeprefix("torch."),
    )
    with torch.device("meta"):
        model = RewardModel(config)
    model.model = backbone.model
    model.regression_layer = _linear(probe.weights, probe.intercepts if config.probe_bias else None)
    model.reward_transform_matrix = nn.Parameter(_float(debias.matrix))
    model.gating = GatingNetwork(needed[1], config.gate_hidden, len(model.objectives), gate.temperature, gate_scale, gate.blocks)
    model.gating.layers = nn.ModuleList(_linear(w, b) for w, b in zip(layers, gate.biases, strict=True))
    model.gating.logit_scale = nn.Parameter(torch.tensor([gate.scale], dtype=torch.float32))
    model.tokenizer = backbone.tokenizer
    check_heads(model, "the model put together")
    return model.requires_grad_(False).eval().to(backbone.device)


def _float(array: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(_float(weight))
    if bias is not None:
        layer.bias = nn.Parameter(_float(bias))
    return layer
