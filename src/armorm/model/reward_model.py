"""The reward model: frozen decoder, probe, debiasing and gate in one Hugging Face model.

In: conversations (or bare token ids).  Out: scores that are sums of named contributions (eq. 4), explained and compared.
Cost: one forward pass of the decoder, cut to the deepest layer that is read; prompts that several answers share run once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import ModelOutput

from armorm.conversation import (
    Conversation,
    Fault,
    entries_of,
    is_one_conversation,
    kind_of,
    parse_conversation,
    split_answer,
)
from armorm.errors import BackboneError, CheckpointError, ConversationError
from armorm.features.backbone import Backbone, blocks_of
from armorm.features.extract import pool
from armorm.features.forward import FREQUENCIES, run_whole
from armorm.features.loading import hold_weights, loading_errors
from armorm.features.nuisances import counts_style, style_of
from armorm.features.spec import FeatureSpec
from armorm.fit.parts import load_preference, save_preference
from armorm.fit.preference import Preference
from armorm.model.card import write_card
from armorm.model.config import ASIDE, FORMAT, RewardModelConfig
from armorm.model.folder import BESIDE, check_built, checkpoint_error, folder_beside, read_facts, read_tokenizer
from armorm.model.gating import GatingNetwork
from armorm.model.layouts.released import finish_released, is_released, released_config
from armorm.model.padding import check_ids, check_lengths
from armorm.model.segments import find_segments
from armorm.model.soundness import HEADS, check_gate_settings, check_heads, computed_places
from armorm.objectives import Objectives
from armorm.rendering import Rendered, Renderer, Rendering
from armorm.scoring.comparison import Comparison, comparison
from armorm.scoring.engine import Engine, join_pooled
from armorm.scoring.explain import Difference, Explanation, explain
from armorm.scoring.profile import FILE, Profile
from armorm.scoring.reference import Reference
from armorm.scoring.score import Score
from armorm.scoring.steer import Heads, Steering
from armorm.scoring.table import Basis, Profiles
from armorm.scoring.uncertainty import Uncertainty
from armorm.sums import check_model, listing_written, read_sums

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


@dataclass
class RewardOutput(ModelOutput):
    """What `forward` returns for B rows; `logits` (B, 1) is the score, as TRL and RewardBench read it; `loss`, where there were
    labels, its mean squared error.

    `rewards` (B, k) before debiasing, [0, 1] scale; `gating_output` (B, k), rows sum to 1 (to the config's `gate_scale`);
    `coefficients` and `terms` (B, k+m) whose products sum to `score` (B); `hidden_state` and `prompt_embedding`: the
    response's and prompt's features. Under a profile, `gating_output` holds the steered weights, `gate_as_trained` the
    gate's own, and `coefficients` and `terms` have one more column for each constraint. A row without an answer has its prompt's
    gate and the worst ratings that there are. Of a row whose answer has no certain place, all but `score` and `logits` is for the
    last header's.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    score: Tensor | None = None
    rewards: Tensor | None = None
    gating_output: Tensor | None = None
    coefficients: Tensor | None = None
    terms: Tensor | None = None
    hidden_state: Tensor | None = None
    prompt_embedding: Tensor | None = None
    gate_as_trained: Tensor | None = None


class RewardModel(PreTrainedModel):
    """Interpretable reward model; `AutoModelForSequenceClassification` loads it after `import armorm`.

    `score`, `explain`, `compare` and `difference` take conversations, and any number of threads may call them at once; `forward`
    takes token ids. Loading reads safetensors and JSON only.
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
        _check_labels(config.num_labels)
        self.objectives = config.named_objectives
        self.response_spec = FeatureSpec.parse(config.response_feature)
        self.prompt_spec = FeatureSpec.parse(config.prompt_feature)
        facts = dict(config.backbone_config)
        self.model = AutoModel.from_config(CONFIG_MAPPING[facts.pop("model_type")].from_dict(facts))
        self._computed = computed_places(config.computed)
        check_gate_settings(config.gating_temperature, config.gate_scale)
        width, k = config.hidden_size, len(self.objectives)
        self.regression_layer = nn.Linear(width * len(self.response_spec.parts), k, bias=config.probe_bias)
        self.reward_transform_matrix = nn.Parameter(torch.eye(k + len(config.computed), k))
        self.gating = GatingNetwork(
            width * len(self.prompt_spec.parts),
            config.gate_hidden,
            k,
            config.gating_temperature,
            config.gate_scale,
            config.gate_blocks,
        )
        self.tokenizer: Any = None
        self.uncertainty: Uncertainty | None = None
        self.preference: Preference | None = None
        self.reference: Reference | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    @property
    def dtype(self) -> torch.dtype:
        """The decoder's, which is what programs ask for when they choose one; the heads are in float32."""
        return self.model.dtype

    def _apply(self, fn: Any, recurse: bool = True) -> RewardModel:
        # Casts are for the decoder's weights: heads and rotary frequencies stay as they are when it is loaded in that type.
        kept = {name: tensor.detach() for name, tensor in self._exact()}
        super()._apply(fn, recurse)
        for name, tensor in self._exact():
            if tensor.dtype != kept[name].dtype:
                tensor.data = kept[name].to(tensor.device)
        return self

    def _exact(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((name, tensor) for name, tensor in self.named_parameters() if name.startswith(HEADS))
        yield from ((name, tensor) for name, tensor in self.named_buffers() if name.endswith(FREQUENCIES))

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Nothing: transformers would copy this module's own source into every folder that is saved."""

    # -- saving, loading -----------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write a Hugging Face folder: safetensors, config, tokenizer, card, and a list of their digests. Never pickles.

        A README.md that is there and was not written so is left as it is.
        """
        folder = Path(save_directory)
        with listing_written(folder, ASIDE):
            super().save_pretrained(save_directory, **kwargs)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(save_directory)
            if (profile := self.profile) is not None:
                profile.to_yaml(folder / FILE)
            self.save_beside(folder)
            write_card(folder, self)

    def save_beside(self, folder: Path) -> None:
        """Write what is kept beside the weights: uncertainty, reference and P(right), where the model has them.

        What the folder's list says an earlier save left of such, for another model maybe, goes.
        """
        listed = read_sums(folder)
        for name in (*BESIDE, *(f"{ASIDE}/{file}" for file in BESIDE)):
            if name in listed:
                (folder / name).unlink(missing_ok=True)
        for part in (self.uncertainty, self.reference):
            if part is not None:
                part.save(folder / ASIDE)
        if self.preference is not None:
            save_preference(folder / ASIDE, self.preference, self.objectives)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> RewardModel:
        """Load a folder or hub id, of this package's layout or the released ArmoRM's. Runs no code from it, reads no pickles.

        Raises CheckpointError when the folder is no reward model or a file of it is missing or damaged.
        """
        kwargs.pop("trust_remote_code", None)
        given = kwargs.get("config")
        known = given.num_labels if isinstance(given, RewardModelConfig) else 1
        _check_labels(kwargs.pop("num_labels", known), f"{name}: ")
        hub = {k: kwargs[k] for k in HUB_OPTIONS if k in kwargs}
        facts = {} if isinstance(kwargs.get("config"), RewardModelConfig) else read_facts(str(name), hub)
        if is_released(facts):
            with loading_errors(checkpoint_error(str(name))):
                kwargs["config"] = released_config(facts, str(name))
        if (dtype := kwargs.get("dtype", kwargs.get("torch_dtype"))) not in (None, "auto"):
            config = deepcopy(kwargs["config"]) if kwargs.get("config") else RewardModelConfig.from_pretrained(name, **hub)
            config.backbone_config["dtype"] = str(dtype).removeprefix("torch.")  # the decoder's own; the heads stay in float32
            kwargs["config"] = config
        # What a file lacks or holds in another shape is found in `info`; transformers alone would fill it with random numbers.
        ours = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        check_model(Path(name))
        with loading_errors(checkpoint_error(str(name))):
            check_built(cls, kwargs.get("config") or RewardModelConfig.from_pretrained(name, **hub), str(name))
            model, info = super().from_pretrained(name, *args, **{**kwargs, **ours})
            hold_weights(model)
        if lacking := sorted((*info["missing_keys"], *(key[0] for key in info["mismatched_keys"]))):
            raise CheckpointError(
                f"{name}: the safetensors lack {', '.join(lacking[:3])}, or hold another shape ({len(lacking)} in all): "
                "copy them again"
            )
        model.tokenizer = read_tokenizer(str(name), hub, model.get_input_embeddings().weight.shape[0])
        if is_released(facts):
            with loading_errors(checkpoint_error(str(name))):
                finish_released(model, facts)
        check_heads(model, str(name))
        if (folder := folder_beside(str(name), hub)) is not None:
            model.uncertainty = Uncertainty.load(folder, model.objectives)
            model.reference = Reference.load(folder, model.objectives.names)
            model.preference = load_preference(folder, model.objectives)
        model.requires_grad_(False).eval()
        return (model, info) if kwargs.get("output_loading_info") else model  # type: ignore[return-value]

    # -- what the scoring core needs -----------------------------------------------------------------------------------

    @property
    def backbone(self) -> Backbone:
        """The decoder as the feature extractor sees it."""
        c = self.config
        return Backbone(c.backbone_name, self.model, self.tokenizer, c.backbone_layers, c.hidden_size, fingerprint="")

    @cached_property
    def renderer(self) -> Renderer:
        """Raises BackboneError when the folder had no tokenizer."""
        if self.tokenizer is None:
            raise BackboneError("this model came without tokenizer files: add them to its folder, or call it on token ids")
        return Renderer(self.tokenizer, max_tokens=self.config.max_tokens, rendering=self._rendering)

    @property
    def _rendering(self) -> Rendering:
        try:
            return Rendering.model_validate(self.config.rendering)
        except ValidationError as error:
            raise CheckpointError(f"config.json: rendering: {error.errors()[0]['msg']}: copy the file again") from error

    @property
    def profile(self) -> Profile | None:
        """The steering profile that is baked in, if one is."""
        facts = self.config.profile
        return None if facts is None else Profile.from_json(facts, where="config.json: profile")

    @property
    def basis(self) -> Basis:
        """What the columns of this model's scores are about."""
        matrix = self.reward_transform_matrix.detach().cpu().float()
        return Basis(self.objectives, tuple(self.config.computed), matrix, str(self.response_spec), self.uncertainty)

    def heads(
        self,
        response: Float[Tensor, "b w"],
        prompt: Float[Tensor, "b v"],
        response_tokens: Float[Tensor, " b"],
        style: Float[Tensor, "b s"] | None = None,
    ) -> Heads:
        """Probe, gate and debiasing on features: eq. 1 to 4 in a few lines. float32, whatever type the weights were cast to.

        Under autocast too, which trainers put around reward models. `style` holds the counts of `STYLE`, for a model that reads
        any of them.
        """
        kind = self.regression_layer.weight.dtype
        with torch.autocast(response.device.type, enabled=False):
            rewards, gate = self.regression_layer(response.to(kind)).float(), self.gating(prompt.to(kind)).float()
            members = self.gating.members(prompt.to(kind))
            coefficients = gate @ self.reward_transform_matrix.T.float()
        counted = response_tokens[:, None] if style is None else torch.cat([response_tokens[:, None], style], dim=1)
        terms = torch.cat([rewards, counted[:, self._computed]], dim=1)
        return Heads(rewards, gate, coefficients, terms, None if members is None else members.float())

    # -- scoring -------------------------------------------------------------------------------------------------------

    def engine(self, *, batch_tokens: int = 4096, max_tokens: int | None = None, exact: bool = False) -> Engine:
        """The scoring core with this model, for columns of numbers; see `Engine`.

        Raises BackboneError when the folder had no tokenizer, and for more tokens than the decoder takes.
        """
        _ = self.renderer  # says what is missing
        return Engine(self, batch_tokens=batch_tokens, max_tokens=max_tokens, exact=exact)

    @overload
    def score(
        self, conversations: Conversation | Mapping[str, Any], *, profile: Profile | None = ..., **engine: Any
    ) -> Score: ...
    @overload
    def score(self, conversations: Iterable[Any], *, profile: Profiles = ..., **engine: Any) -> list[Score]: ...
    def score(self, conversations: Any, *, profile: Profiles = None, **engine: Any) -> Score | list[Score]:
        """Score one conversation (messages ending with the assistant's answer) or any collection of them.

        Messages may come in lists, tuples, arrays, columns of tables and generators, or as a mapping with `messages` and `tools`.
        What else is in the collection changes a score by the decoder's rounding alone (`exact=True`: by nothing). A `profile` (or
        a list of one for each conversation) steers this call, in place of one that is baked in (`Profile()` steers nothing).
        Whole scores are made, with their standard deviations where the model knows them; for many numbers alone, ask `engine`,
        whose settings `batch_tokens`, `max_tokens` and `exact` may be given here. Raises ConversationError naming a row that is
        none, RecipeError for a profile that does not fit.
        """
        if isinstance(conversations, Tensor):
            raise BackboneError(
                "`score` takes conversations, not hidden states: this model is no linear head on its decoder (TRL's get_reward "
                "asks for one). Call the model on token ids, model(input_ids, attention_mask=mask).logits, as reward functions do"
            )
        entries, single = _entries(conversations)
        table = self.engine(**engine).score(entries, profile=profile, deviations=True, strict=True)
        return table[0] if single else list(table)

    def explain(
        self, conversation: Conversation, *, profile: Profile | None = None, alike: int = 5, **engine: Any
    ) -> Explanation:
        """A conversation's score taken apart and, where the model has a reference, set beside it.

        The reference gives percentiles and the `alike` prompts that open the gate most alike. Raises as `score` does.
        """
        score: Any = self.score(conversation, profile=profile, **engine)
        if not isinstance(score, Score):
            raise ConversationError(f"explain takes one conversation, and got a list of {len(score)}: explain each by itself")
        return explain(score, self.reference, alike=alike)

    def difference(
        self,
        a: Conversation,
        b: Conversation,
        *,
        names: tuple[str, str] = ("A", "B"),
        profile: Profile | None = None,
        **engine: Any,
    ) -> Difference:
        """Score of `a` minus score of `b`: which objectives make the difference. `compare` says how likely it is to be right.

        The standard deviation of a difference is smaller than those of its scores say: both err with the same weights. Raises as
        `score` does.
        """
        table = self.engine(**engine).score([a, b], profile=profile, deviations=True, strict=True)
        return table.difference(0, 1, names=names)

    @overload
    def compare(
        self,
        a: Conversation | Mapping[str, Any],
        b: Conversation | Mapping[str, Any],
        *,
        names: tuple[str, str] = ...,
        profile: Profile | None = ...,
        **engine: Any,
    ) -> Comparison: ...
    @overload
    def compare(
        self, a: Iterable[Any], b: Iterable[Any], *, names: tuple[str, str] = ..., profile: Profile | None = ..., **engine: Any
    ) -> list[Comparison]: ...
    def compare(
        self, a: Any, b: Any, *, names: tuple[str, str] = ("A", "B"), profile: Profile | None = None, **engine: Any
    ) -> Comparison | list[Comparison]:
        """Which of two answers to a prompt is better, with what probability, and which objectives make the difference.

        Two conversations, or two collections of as many: the first of one with the first of the other. The probability is
        calibrated on validation pairs of the model's own run. It is None, with a note, for a model without a calibration (trained
        by an earlier version, or of the released layout), under a profile that steers, and for answers to different prompts.
        Raises as `score` does, ConversationError for collections of different sizes.
        """
        (first, single), (second, other) = _entries(a), _entries(b)
        if single != other or len(first) != len(second):
            told = ["one conversation" if one else f"a list of {len(x)}" for x, one in ((first, single), (second, other))]
            raise ConversationError(f"compare got {told[0]} and {told[1]}: give two conversations, or two lists of as many")
        rows = [_held(conversation) for pair in zip(first, second, strict=True) for conversation in pair]
        table = self.engine(**engine).score(rows, profile=profile, deviations=True, strict=True)
        applied = profile or self.profile
        steered = applied.name if applied is not None and applied.steers else None
        found = [
            comparison(
                table.difference(i, i + 1, names=names),
                self.preference,
                steered=steered,
                one_prompt=self._context(rows[i]) == self._context(rows[i + 1]),
            )
            for i in range(0, len(rows), 2)
        ]
        return found[0] if single else found

    def _context(self, conversation: Any) -> tuple[Any, ...]:
        # What an answer answers, the tools that it has included.
        return split_answer(parse_conversation(conversation).messages, self.renderer.rendering.answer)[0]

    def compile(self, *args: Any, **settings: Any) -> None:
        """Compiles the decoder's blocks, each by itself: where the time goes, and graphs that are the same for all of them.

        Takes what `torch.compile` takes (`fullgraph=True` holds). What is around them reads token ids in Python and stays as it
        is, also under `torch.compile(model)`, which therefore compiles nothing.
        """
        for block in blocks_of(self.model):
            block.compile(*args, **settings)

    @torch.compiler.disable(reason="it reads ids in Python: use model.compile()")  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Tensor | None = None,
        prompt_lengths: Tensor | None = None,
        labels: Any = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> RewardOutput | tuple[Any, ...]:
        """Scores of bare token ids [b t], padded on either side: those that `score` gives, wherever the ids tell what it is told.

        `prompt_lengths`: tokens of each prompt, padding aside, with the header that opens the answer; all tokens are then read as
        they are. Without them the last place where the config's `header_ids` stand opens the answer, as TRL and RewardBench need
        it, and an answer whose first tokens have joined the header's last is read anew from its text. A row without an answer, or
        with white space alone, is scored as one with the worst rating on each objective (or has the config's `empty_score`); one
        whose answer imitates the chat has NaN, with a warning (`UnclearAnswer`). An answer that imitates a user's turn and a
        header can't be told from a longer conversation: where answers may be hostile, give the lengths, or use `score`.

        `attention_mask`: 0 and 1 of any type. Without it, padding tokens at either end of a row are passed over. `labels` [b] or
        [b 1]: numbers that the scores should be, for a `loss`. `return_dict=False` gives a tuple of what there is. Raises
        BackboneError for ids that are no such tensor, and naming the rows that can't be told: without a header, with a mask or
        lengths that don't fit, ending with a token that may be padding or text, or longer than the decoder has positions; rows
        that are longer than `score` reads have a score, with a warning (`LongRow`).
        """
        check_ids(input_ids)
        at = find_segments(input_ids, self.config, tokenizer=self.tokenizer, mask=attention_mask, prompt_lengths=prompt_lengths)
        check_lengths(at.rows, self.config)
        layers = {part.layer for spec in (self.response_spec, self.prompt_spec) for part in spec.parts}
        prompts, answers = run_whole(at.rows, self.backbone, layers)
        prompt = pool(prompts, self.prompt_spec.parts, header=len(self.config.header_ids))
        response_feature = join_pooled(pool(answers, self.response_spec.parts), self.response_spec)
        prompt_feature = join_pooled(prompt, self.prompt_spec)
        tokens = torch.tensor(answers.text, device=prompt_feature.device).float()
        heads = self.heads(response_feature, prompt_feature, tokens, self._style_of(at.rows, tokens))
        heads, steered = self.judged(heads, at.empty)
        score = at.judged(steered.score, self.config.empty_score)
        output = RewardOutput(
            loss=None if labels is None else _loss(score, labels),
            logits=score[:, None],
            score=score,
            rewards=heads.rewards,
            gating_output=steered.gate,
            coefficients=steered.coefficients,
            terms=steered.terms,
            hidden_state=response_feature,
            prompt_embedding=prompt_feature,
            gate_as_trained=heads.gate,
        )
        return output.to_tuple() if return_dict is False else output

    def judged(self, heads: Heads, empty: Sequence[int]) -> tuple[Heads, Heads]:
        """The heads' outputs, and the same under the profile that is baked in; rows of `empty` answers with the worst ratings."""
        (steering,) = self.basis.bind(self.profile, 1)
        steered = self._steered(heads, steering)
        if not empty:
            return heads, steered
        heads = _with_worst(heads, steered, empty, self.objectives)
        return heads, self._steered(heads, steering)

    def _steered(self, heads: Heads, steering: Steering | None) -> Heads:
        return heads if steering is None else steering.steer(heads, self.reward_transform_matrix.float())

    def _style_of(self, rows: Sequence[Rendered], like: Tensor) -> Float[Tensor, "b s"] | None:
        # Of token ids alone: what is counted stands in the text that they are of.
        if not counts_style(self.config.computed):
            return None
        if self.tokenizer is None:
            names = ", ".join(self.config.computed)
            raise BackboneError(f"the score reads {names}, which are counted in texts: add tokenizer files to the model's folder")
        how = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        counts = [style_of(str(self.tokenizer.decode(list(row.answer), **how))) for row in rows]
        return torch.tensor(counts, dtype=like.dtype, device=like.device)


def _entries(given: Any) -> tuple[list[Any], bool]:
    """Conversations, and whether what was given is a single one. Raises ConversationError for what holds none."""
    entries = entries_of(given)
    if isinstance(given, Mapping) or (entries is not None and is_one_conversation(entries)):
        return [given if entries is None else entries], True
    if entries is None:
        raise Fault("not-messages", f"got {kind_of(given)}").error()
    return entries, False


def _held(conversation: Any) -> Any:
    # One that can be read twice.
    if isinstance(conversation, Mapping):
        turns = conversation.get("messages")
        return conversation if turns is None else {**conversation, "messages": _held(turns)}
    return conversation if (turns := entries_of(conversation)) is None else turns


def _with_worst(heads: Heads, steered: Heads, rows: Sequence[int], objectives: Objectives) -> Heads:
    # For rows that say nothing: on each objective the end of its scale that gives less, and of what is counted none.
    low, high = (heads.rewards.new_tensor(ends) for ends in zip(*(o.unit_ends for o in objectives), strict=True))
    k, at = len(objectives), list(rows)
    worst = torch.where(steered.coefficients[at, :k] < 0, high, low)
    rewards, terms = heads.rewards.clone(), heads.terms.clone()
    rewards[at], terms[at] = worst, torch.cat([worst, torch.zeros_like(terms[at, k:])], dim=1)
    return heads._replace(rewards=rewards, terms=terms)


def _loss(score: Float[Tensor, " b"], labels: Any) -> Float[Tensor, ""]:
    if not isinstance(labels, Tensor) or labels.shape not in (score.shape, (*score.shape, 1)):
        found = tuple(labels.shape) if isinstance(labels, Tensor) else kind_of(labels)
        raise BackboneError(f"labels are {found}: give a tensor with one number for each of the {len(score)} rows")
    return mse_loss(score, labels.reshape(score.shape).to(score))


def _check_labels(labels: Any, where: str = "") -> None:
    if labels != 1:
        raise CheckpointError(f"{where}num_labels is {labels!r}: a reward model gives one number, so leave it out")


AutoModelForSequenceClassification.register(RewardModelConfig, RewardModel, exist_ok=True)
