"""The reward model: frozen decoder, probe, debiasing and gate in one Hugging Face model.

In: conversations (or bare token ids).  Out: scores that are sums of named contributions (eq. 4).
Cost: one forward pass of the decoder, cut to the deepest layer that is read; prompts that several answers share run once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import ModelOutput, cached_file

from armorm.conversation import Conversation, Renderer
from armorm.errors import BackboneError, CheckpointError, ConversationError, DataError, ObjectiveMismatch
from armorm.features.backbone import Backbone
from armorm.features.extract import Features, extract, join_parts, pool
from armorm.features.forward import Stretch, positions_of, run_decoder
from armorm.features.spec import FeatureSpec
from armorm.fit.debias import Debias
from armorm.fit.gate import Gate
from armorm.fit.probe import Probe
from armorm.model.config import FORMAT, RewardModelConfig
from armorm.model.layouts.released import beta_of, is_released, released_config
from armorm.model.weights import check_weights
from armorm.scoring.explain import Difference, difference
from armorm.scoring.profile import FILE, Profile
from armorm.scoring.reference import FILES as REFERENCE_FILES
from armorm.scoring.reference import Reference
from armorm.scoring.score import Score
from armorm.scoring.steer import Steering
from armorm.scoring.uncertainty import FILES as UNCERTAINTY_FILES
from armorm.scoring.uncertainty import Uncertainty

CHUNK = 256
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


@dataclass
class RewardOutput(ModelOutput):
    """What `forward` returns for B rows; `logits` (B, 1) is the score, as TRL and RewardBench read it.

    `rewards` (B, k) before debiasing, [0, 1] scale; `gating_output` (B, k), rows sum to 1 (to the config's `gate_scale`);
    `coefficients` and `terms` (B, k+m) whose products sum to `score` (B); `hidden_state` and `prompt_embedding`: the
    response's and prompt's features. Under a profile, `gating_output` holds the steered weights, `gate_as_trained` the
    gate's own, and `coefficients` and `terms` have one more column for each constraint.
    """

    logits: Tensor | None = None
    score: Tensor | None = None
    rewards: Tensor | None = None
    gating_output: Tensor | None = None
    coefficients: Tensor | None = None
    terms: Tensor | None = None
    hidden_state: Tensor | None = None
    prompt_embedding: Tensor | None = None
    gate_as_trained: Tensor | None = None


class GatingNetwork(nn.Module):
    """ReLU MLP with a softmax over the objectives (eq. 4), times `scale`, which is 1 unless the gate came with one.

    `logit_scale` is β, used in training only.
    """

    def __init__(self, width: int, hidden: Sequence[int], k: int, temperature: float, scale: float = 1.0) -> None:
        super().__init__()
        widths = [width, *hidden, k]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.temperature = temperature
        self.scale = scale
        self.logit_scale = nn.Parameter(torch.ones(1))

    def forward(self, prompts: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        hidden = prompts
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden.relu() if i else hidden)
        return torch.softmax(hidden / self.temperature, dim=-1) * self.scale  # over k


class RewardModel(PreTrainedModel):
    """Interpretable reward model; `AutoModelForSequenceClassification` loads it after `import armorm`.

    `score` takes conversations; `forward` takes token ids. Loading reads safetensors and JSON only.
    """

    config_class = RewardModelConfig
    config: RewardModelConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _keep_in_fp32_modules_strict = ["regression_layer", "reward_transform_matrix", "gating"]  # noqa: RUF012 - transformers' way
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: RewardModelConfig) -> None:
        super().__init__(config)
        if config.armorm_format != FORMAT:
            raise CheckpointError(f"the model has format {config.armorm_format}, this version reads {FORMAT}: upgrade armorm")
        self.objectives = config.named_objectives
        self.response_spec = FeatureSpec.parse(config.response_feature)
        self.prompt_spec = FeatureSpec.parse(config.prompt_feature)
        facts = dict(config.backbone_config)
        self.model = AutoModel.from_config(CONFIG_MAPPING[facts.pop("model_type")].from_dict(facts))
        width, k = config.hidden_size, len(self.objectives)
        self.regression_layer = nn.Linear(width * len(self.response_spec.parts), k, bias=config.probe_bias)
        self.reward_transform_matrix = nn.Parameter(torch.eye(k + len(config.computed), k))
        self.gating = GatingNetwork(
            width * len(self.prompt_spec.parts), config.gate_hidden, k, config.gating_temperature, config.gate_scale
        )
        self.tokenizer: Any = None
        self.uncertainty: Uncertainty | None = None
        self.reference: Reference | None = None
        self._renderer: Renderer | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    # -- building, saving, loading -------------------------------------------------------------------------------------

    @classmethod
    def assemble(
        cls,
        backbone: Backbone,
        renderer: Renderer,
        probe: Probe,
        debias: Debias,
        gate: Gate,
        *,
        response: FeatureSpec,
        prompt: FeatureSpec,
        gate_scale: float = 1.0,
    ) -> RewardModel:
        """Put the fitted parts together. The backbone is cut to the depth that is needed.

        `gate_scale` multiplies the gate's weights when scoring; it is not β, which is `gate.scale`.

        Raises ObjectiveMismatch when the parts were fitted on different objectives, BackboneError when on features of
        another width.
        """
        if not probe.objectives.names == debias.objectives.names == gate.objectives.names:
            raise ObjectiveMismatch(
                f"the probe has {probe.objectives}, the debiasing {debias.objectives}, the gate {gate.objectives}: "
                "fit the later parts again on this probe"
            )
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
            gating_temperature=gate.temperature,
            gate_scale=gate_scale,
            probe_bias=bool(np.any(probe.intercepts)),
            max_tokens=renderer.max_tokens,
            header_ids=renderer.header_ids,
            closing_ids=renderer.closing_ids,
            pad_token_id=backbone.tokenizer.pad_token_id,
            dtype=str(next(backbone.model.parameters()).dtype).removeprefix("torch."),
        )
        with torch.device("meta"):
            model = cls(config)
        model.model = backbone.model
        model.regression_layer = _linear(probe.weights, probe.intercepts if config.probe_bias else None)
        model.reward_transform_matrix = nn.Parameter(_float(debias.matrix))
        model.gating = GatingNetwork(needed[1], config.gate_hidden, len(model.objectives), gate.temperature, gate_scale)
        model.gating.layers = nn.ModuleList(_linear(w, b) for w, b in zip(layers, gate.biases, strict=True))
        model.gating.logit_scale = nn.Parameter(torch.tensor([gate.scale], dtype=torch.float32))
        model.tokenizer = backbone.tokenizer
        return model.requires_grad_(False).eval().to(backbone.device)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write a Hugging Face folder: safetensors, config, tokenizer. Never pickles."""
        super().save_pretrained(save_directory, **kwargs)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)
        if self.config.profile is not None:
            Profile.from_json(self.config.profile).to_yaml(Path(save_directory) / FILE)
        self.save_beside(Path(save_directory))

    def save_beside(self, folder: Path) -> None:
        """Write what is kept beside the weights: uncertainty and reference, where the model has them."""
        for part in (self.uncertainty, self.reference):
            if part is not None:
                part.save(folder)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> RewardModel:
        """Load a folder or hub id, of this package's layout or the released ArmoRM's. Runs no code from it, reads no pickles.

        Raises CheckpointError when the folder is no reward model or a file of it is missing or damaged.
        """
        kwargs.pop("trust_remote_code", None)
        hub = {k: kwargs[k] for k in HUB_OPTIONS if k in kwargs}
        facts = {} if isinstance(kwargs.get("config"), RewardModelConfig) else _facts(str(name), hub)
        if released := is_released(facts):
            kwargs["config"] = released_config(facts, str(name))
        if (dtype := kwargs.get("dtype", kwargs.get("torch_dtype"))) not in (None, "auto"):
            config = deepcopy(kwargs["config"]) if kwargs.get("config") else RewardModelConfig.from_pretrained(name, **hub)
            config.backbone_config["dtype"] = str(dtype).removeprefix("torch.")  # the decoder's own; the heads stay in float32
            kwargs["config"] = config
        # What a file lacks or holds in another shape is found in `info`; transformers alone would fill it with random numbers.
        ours = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            model, info = super().from_pretrained(name, *args, **{**kwargs, **ours})
        except (OSError, ValueError, KeyError, DataError) as error:
            raise CheckpointError(f"{name} can't be loaded as a reward model: {str(error).splitlines()[0]}") from error
        except Exception as error:
            if type(error).__name__ == "SafetensorError":
                raise CheckpointError(f"{name}: a safetensors file is damaged or cut short ({error}): copy it again") from error
            raise
        if lacking := sorted((*info["missing_keys"], *(key[0] for key in info["mismatched_keys"]))):
            raise CheckpointError(
                f"{name}: the safetensors lack {', '.join(lacking[:3])}, or hold another shape ({len(lacking)} in all): "
                "copy them again"
            )
        try:
            model.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **hub)
        except (OSError, ValueError, KeyError):
            model.tokenizer = None  # `forward` works without; `score` says what is missing
        if released:
            model._speak_released(facts)
        if (folder := _beside(str(name), hub)) is not None:
            model.uncertainty = Uncertainty.load(folder, model.objectives)
            model.reference = Reference.load(folder, model.objectives.names)
        model.requires_grad_(False).eval()
        return (model, info) if kwargs.get("output_loading_info") else model  # type: ignore[return-value]

    @torch.no_grad()
    def _speak_released(self, facts: Mapping[str, Any]) -> None:
        # What that layout keeps elsewhere: a factor of the score where β is here, and the template's tokens in the tokenizer.
        self.gating.scale = self.config.gate_scale = float(self.gating.logit_scale)
        self.gating.logit_scale.fill_(beta_of(facts))
        if getattr(self.tokenizer, "chat_template", None):
            with suppress(BackboneError, ConversationError):
                self.config.header_ids, self.config.closing_ids = map(list, (self.renderer.header_ids, self.renderer.closing_ids))

    # -- scoring -------------------------------------------------------------------------------------------------------

    @property
    def backbone(self) -> Backbone:
        """The decoder as the feature extractor sees it."""
        c = self.config
        return Backbone(c.backbone_name, self.model, self.tokenizer, c.backbone_layers, c.hidden_size, fingerprint="")

    @property
    def renderer(self) -> Renderer:
        """Raises BackboneError when the folder had no tokenizer."""
        if self.tokenizer is None:
            raise BackboneError("this model came without tokenizer files: add them to its folder, or call it on token ids")
        if self._renderer is None:
            self._renderer = Renderer(self.tokenizer, max_tokens=self.config.max_tokens)
        return self._renderer

    @overload
    def score(self, conversations: Conversation, *, batch_tokens: int = ..., profile: Profile | None = ...) -> Score: ...
    @overload
    def score(
        self, conversations: Sequence[Conversation], *, batch_tokens: int = ..., profile: Profile | None = ...
    ) -> list[Score]: ...
    def score(self, conversations: Any, *, batch_tokens: int = 4096, profile: Profile | None = None) -> Score | list[Score]:
        """Score one conversation (messages ending with the assistant's answer) or a list of them.

        The result does not depend on what else is in the list. A `profile` steers this call, in place of one that is baked in
        (`Profile()` steers nothing). Raises ConversationError for a row that is none,
        RecipeError for a profile that does not fit.
        """
        if conversations and isinstance(conversations[0], Mapping):
            return self.score([conversations], batch_tokens=batch_tokens, profile=profile)[0]
        self.steering(profile)  # says what does not fit before the decoder runs
        scores: list[Score] = []
        for i in range(0, len(conversations), CHUNK):
            chunk = list(conversations[i : i + CHUNK])
            features = extract(
                chunk,
                self.backbone,
                self.renderer,
                response=self.response_spec.parts,
                prompt=self.prompt_spec.parts,
                batch_tokens=batch_tokens,
            )
            scores += self.score_features(features, profile)
        return scores

    @torch.no_grad()
    def compare(
        self,
        a: Conversation,
        b: Conversation,
        *,
        names: tuple[str, str] = ("A", "B"),
        profile: Profile | None = None,
        batch_tokens: int = 4096,
    ) -> Difference:
        """Two conversations against each other: which objectives make the difference, and whether it is too close to call.

        The standard deviation of a difference is smaller than those of its scores say: both err with the same weights. Raises as
        `score` does.
        """
        response, prompt = self.response_spec.parts, self.prompt_spec.parts
        features = extract([a, b], self.backbone, self.renderer, response=response, prompt=prompt, batch_tokens=batch_tokens)
        one, two = self.score_features(features, profile)
        if self.uncertainty is None:
            return difference(one, two, names=names)
        states = join_parts(features.response, self.response_spec).astype(np.float64)
        weights = np.array([list(s.coefficients.values()) for s in (one, two)])
        std = self.uncertainty.of_difference(states[:1], weights[:1], states[1:], weights[1:])
        return difference(one, two, names=names, std=float(std[0]))

    @torch.no_grad()
    def score_features(self, features: Features, profile: Profile | None = None) -> list[Score]:
        """Scores from features of this model's own layers and poolings."""
        device = self.regression_layer.weight.device
        out = self.heads(
            torch.from_numpy(join_parts(features.response, self.response_spec)).to(device),
            torch.from_numpy(join_parts(features.prompt, self.prompt_spec)).to(device),
            torch.from_numpy(features.response_tokens).float().to(device),
            profile,
        )
        return self._scores(out, features.truncated.tolist(), self.steering(profile))

    def steering(self, profile: Profile | None = None) -> Steering | None:
        """What a profile, or else the one that is baked in, does here; None without either. Raises RecipeError."""
        if profile is None and self.config.profile is None:
            return None
        wanted = profile or Profile.from_json(self.config.profile, where="config.json: profile")
        return Steering.of(wanted, self.objectives.names, self.config.computed, self.reward_transform_matrix)

    def heads(
        self,
        response: Float[Tensor, "b w"],
        prompt: Float[Tensor, "b v"],
        response_tokens: Float[Tensor, " b"],
        profile: Profile | None = None,
    ) -> RewardOutput:
        """Probe, gate, profile and debiasing on features: eq. 1 to 4 in a few lines."""
        rewards = self.regression_layer(response)
        gate = self.gating(prompt)
        computed = response_tokens[:, None].expand(-1, len(self.config.computed))
        terms = torch.cat([rewards, computed], dim=1)
        as_trained, steering = gate, self.steering(profile)
        if steering is None:
            coefficients = gate @ self.reward_transform_matrix.T
        else:
            gate, coefficients, terms = steering.combine(gate, terms, self.reward_transform_matrix)
        score = (coefficients * terms).sum(dim=1)  # over k + m, and constraints
        return RewardOutput(score[:, None], score, rewards, gate, coefficients, terms, response, prompt, as_trained)

    def forward(
        self,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Int[Tensor, "b t"] | None = None,
        prompt_lengths: Int[Tensor, " b"] | None = None,
        **_: Any,
    ) -> RewardOutput:
        """Scores of bare token ids, padded on either side.

        Without `attention_mask`, padding tokens at either end of a row are passed over. `prompt_lengths`: tokens of each
        prompt, padding aside, with the header that opens the answer. Without them the last
        place where the config's `header_ids` stand opens the answer, as TRL and RewardBench need it; text inside an answer
        that imitates the header can then move it, so give the lengths, or use `score`.
        """
        mask = self._mask(input_ids) if attention_mask is None else attention_mask
        sizes = mask.sum(dim=1)
        first = mask.argmax(dim=1)
        prompts = self._prompt_lengths(input_ids, first, sizes) if prompt_lengths is None else prompt_lengths.to(sizes)
        closing = self._closing_lengths(input_ids, first + sizes)
        specs = (self.response_spec, self.prompt_spec)
        layers = {p.layer for s in specs for p in s.parts}
        states = run_decoder(
            self.model, layers, input_ids=input_ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=False
        )
        answer = (sizes - prompts - closing).clamp_min(1)
        response = pool(Stretch(states, first + prompts, answer, first + sizes), specs[0].parts)
        prompt = pool(Stretch(states, first, prompts, first + prompts), specs[1].parts, header=len(self.config.header_ids))
        return self.heads(_joined(response, specs[0]), _joined(prompt, specs[1]), answer.float())

    def _mask(self, ids: Int[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        # A padding token that texts hold too (the end of a turn, BOS, EOS) says nothing about where a row ends.
        c, pad = self.config, self.config.pad_token_id
        eos = c.backbone_config.get("eos_token_id")
        ends = eos if isinstance(eos, list) else [eos]
        if pad is None or pad in (*c.closing_ids, *c.header_ids, c.backbone_config.get("bos_token_id"), *ends):
            return torch.ones_like(ids)
        real = (ids != pad).long()
        return ((real.cumsum(dim=1) > 0) & (real.flip(1).cumsum(dim=1).flip(1) > 0)).long()

    def _prompt_lengths(self, ids: Int[Tensor, "b t"], first: Int[Tensor, " b"], sizes: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        header = torch.tensor(self.config.header_ids, device=ids.device)
        if not len(header) or ids.shape[1] < len(header):
            raise BackboneError("the answer's place is not known: give prompt_lengths, the number of tokens of each prompt")
        found = (ids.unfold(1, len(header), 1) == header).all(dim=-1)
        t = torch.arange(found.shape[1], device=ids.device)
        inside = (t >= first[:, None]) & (t + len(header) < (first + sizes)[:, None])
        last = torch.where(found & inside, t, -1).amax(dim=1)
        if (last < 0).any():
            rows = (last < 0).nonzero().flatten().tolist()
            raise BackboneError(f"rows {rows} hold no answer header: give prompt_lengths, the number of tokens of each prompt")
        return last + len(header) - first

    def _closing_lengths(self, ids: Int[Tensor, "b t"], end: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        closing = torch.tensor(self.config.closing_ids, device=ids.device)
        if not len(closing):
            return torch.zeros_like(end)
        at = (end[:, None] - len(closing) + torch.arange(len(closing), device=ids.device)).clamp_min(0)
        return (ids.gather(1, at) == closing).all(dim=1).long() * len(closing)

    def _scores(self, out: RewardOutput, truncated: Sequence[bool], steering: Steering | None = None) -> list[Score]:
        names = self.objectives.names
        constraints = steering.labels if steering else ()
        terms = (*names, *self.config.computed, *constraints)
        parts = (out.rewards, out.gating_output, out.terms, out.coefficients, out.gate_as_trained)
        rewards, gate, values, coefficients, as_trained = (t.double().cpu().numpy() for t in parts if t is not None)
        raw = self.objectives.from_unit(rewards)
        contributions = coefficients * values
        stds, reward_stds = self._unsure(out, coefficients)
        return [
            Score(
                score=float(contributions[i].sum()),
                rewards=dict(zip(names, rewards[i].tolist(), strict=True)),
                raw=dict(zip(names, raw[i].tolist(), strict=True)),
                gate=dict(zip(names, gate[i].tolist(), strict=True)),
                terms=dict(zip(terms, values[i].tolist(), strict=True)),
                coefficients=dict(zip(terms, coefficients[i].tolist(), strict=True)),
                contributions=dict(zip(terms, contributions[i].tolist(), strict=True)),
                truncated=truncated[i],
                std=stds[i],
                reward_std=reward_stds[i],
                profile=steering.profile.name if steering else None,
                gate_as_trained=dict(zip(names, as_trained[i].tolist(), strict=True)) if steering else {},
                constraints=constraints,
            )
            for i in range(len(rewards))
        ]

    def _unsure(self, out: RewardOutput, coefficients: np.ndarray) -> tuple[list[float | None], list[dict[str, float | None]]]:
        # Standard deviations of the scores, and of the rewards by name.
        n = len(coefficients)
        if self.uncertainty is None or out.hidden_state is None:
            return [None] * n, [{}] * n
        found = self.uncertainty.of_score(out.hidden_state.double().cpu().numpy(), coefficients)
        rows = [[None if np.isnan(x) else x for x in row] for row in found.reward_std.tolist()]
        return found.std.tolist(), [dict(zip(self.objectives.names, row, strict=True)) for row in rows]


def _beside(name: str, hub: Mapping[str, Any]) -> Path | None:
    # The folder that holds what is kept beside the weights: the model's own, or the hub's snapshot where it has such files.
    if Path(name).is_dir():
        return Path(name)
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    kept = [cached_file(name, file, **quiet, **hub) for file in (*UNCERTAINTY_FILES, *REFERENCE_FILES)]
    return next((Path(file).parent for file in kept if file), None)


def _facts(name: str, hub: Mapping[str, Any]) -> dict[str, Any]:
    # config.json as it is, of a folder whose weights are all there.
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(f"{name}: no config.json in it; give a run's model folder (runs/NAME/model)")
    try:
        facts, _ = PreTrainedConfig.get_config_dict(name, **hub)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{name} can't be loaded as a reward model: {str(error).splitlines()[0]}") from error
    if facts.get("model_type") != RewardModelConfig.model_type and not is_released(facts):
        what = ", ".join(map(str, facts.get("architectures") or ())) or facts.get("model_type") or "nothing known"
        raise CheckpointError(
            f"{name}: its config.json says {what}, which is no reward model of named objectives; give a run's model folder "
            "(runs/NAME/model), or one in the released ArmoRM's layout"
        )
    if folder.is_dir():
        check_weights(folder)
    return facts


def _joined(pooled: Mapping[str, Float[Tensor, "b d"]], spec: FeatureSpec) -> Float[Tensor, "b w"]:
    return torch.cat([pooled[str(p)] for p in spec.parts], dim=1)


def _float(array: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float32)


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(_float(weight))
    if bias is not None:
        layer.bias = nn.Parameter(_float(bias))
    return layer


AutoModelForSequenceClassification.register(RewardModelConfig, RewardModel, exist_ok=True)
