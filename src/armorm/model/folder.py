"""A model folder or hub id before and while it is loaded: its facts, whether its weights are there, what went wrong.

In: a name.  Out: config.json's facts, the folder beside the weights; CheckpointError saying what is missing and what to do.
Cost: a listing, and JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt
from pydantic import BaseModel, ConfigDict, FiniteFloat, StrictBool, StrictInt, StrictStr, ValidationError
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file

from armorm.bounds import Size, TokenId
from armorm.errors import CheckpointError, DataError, RecipeError
from armorm.features.loading import (
    VOCABULARIES,
    Said,
    check_config,
    check_files,
    check_sizes,
    check_tokenizer,
    check_weights,
    faults_in,
    first_line,
    folder_of,
    loading_errors,
    weights_in,
)
from armorm.features.spec import FINAL, FeatureSpec
from armorm.fit.parts import PREFERENCE_FILES
from armorm.model.config import ASIDE, RewardModelConfig
from armorm.model.layouts.released import is_released
from armorm.objectives import Objectives
from armorm.scoring.profile import Profile
from armorm.scoring.reference import FILES as REFERENCE_FILES
from armorm.scoring.uncertainty import FILES as UNCERTAINTY_FILES
from armorm.user_files import shown

BESIDE = (*UNCERTAINTY_FILES, *REFERENCE_FILES, *PREFERENCE_FILES)
"""What a model keeps beside its weights: no score depends on it."""


def checkpoint_error(name: str) -> Said:
    """Errors about a folder or hub id that can't be loaded as a reward model."""
    return lambda fault: CheckpointError(f"{name} can't be loaded as a reward model: {fault}")


def read_facts(name: str, hub: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as it is, of a reward model whose weights are all there. `hub` are options for the hub.

    Raises CheckpointError for a folder without config or weights, and for another kind of model.
    """
    said = checkpoint_error(name)
    check_name(name)
    with loading_errors(said):
        facts, _ = PreTrainedConfig.get_config_dict(name, **hub)
        own = facts.get("model_type") == RewardModelConfig.model_type
        if not own and not is_released(facts):
            raise CheckpointError(
                f"{name}: its config.json says {_kind_in(facts)}, which is no reward model of named objectives; give a run's "
                "model folder (runs/NAME/model), or one in the released ArmoRM's layout; `armorm bench` judges models with one "
                "label too"
            )
        check_config(facts, said)
        if own:
            _check_own(facts, said)
        if Path(name).is_dir():
            check_weights(Path(name), said)
    return facts


def check_built(build: Callable[[Any], Any], config: Any, name: str) -> None:
    """Raises CheckpointError for a config of which no model can be built, or one that its weights can't hold."""
    said = checkpoint_error(name)
    decoder = CONFIG_MAPPING[config.backbone_config["model_type"]].from_dict(dict(config.backbone_config))
    depth = decoder.get_text_config().num_hidden_layers
    parts = [part for text in (config.response_feature, config.prompt_feature) for part in FeatureSpec.parse(text).parts]
    if any(part.layer != FINAL and int(part.layer) > depth for part in parts):
        raise said(f"config.json says {depth} layers, its features are of {', '.join(map(str, parts))}: copy the files again")
    check_sizes(decoder, weights_in(Path(name) if Path(name).is_dir() else None), said, lambda: build(config))


def local(name: str) -> str:
    """A model's name, with the home folder in place of a `~`. Raises CheckpointError as `check_name` does."""
    folder = folder_of(name, CheckpointError)
    found = name if folder is None else str(folder)
    check_name(found)
    return found


def check_name(name: str) -> None:
    """Raises CheckpointError for a path where nothing is, and for a folder with an adapter alone, an encoder, or no model."""
    folder, said = folder_of(name, CheckpointError), checkpoint_error(name)
    if folder is None:
        if _looks_like_path(name):
            raise CheckpointError(
                f"{shown(name)}: no such folder; give a run's model folder (runs/NAME/model) or a hub id (owner/name)"
            )
        return
    with loading_errors(said):
        check_files(folder, said)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{name}: no config.json in it; give a run's model folder (runs/NAME/model)")
        facts, _ = PreTrainedConfig.get_config_dict(str(folder))
        if _is_encoder(facts):
            raise CheckpointError(
                f"{name}: its config.json says {_kind_in(facts)}, an encoder, which can be neither a backbone nor a rival: give "
                "a model with a causal decoder (Llama, Qwen, Gemma, …), or train one on the same data"
            )


def _looks_like_path(name: str) -> bool:
    # A hub id is `name` or `owner/name`; one whose owner is a folder here is a path with a slip of the pen.
    first, *others = re.split(r"[/\\]", name)
    plainly = name.startswith((".", "~")) or name.endswith("/") or "\\" in name
    return plainly or len(others) > 1 or (bool(others) and Path(first or "/").is_dir())


def _is_encoder(facts: Mapping[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES  # here: our models join what is in it

    masked = facts.get("model_type") in [*MODEL_FOR_MASKED_LM_MAPPING_NAMES] and not facts.get("is_decoder")
    return bool(masked or facts.get("is_encoder_decoder"))


def _kind_in(facts: Mapping[str, Any]) -> str:
    # What a config.json says of itself, with its labels where it has more than one.
    kind = ", ".join(map(str, facts.get("architectures") or ())) or facts.get("model_type") or "nothing known"
    labels = facts.get("num_labels") or len(facts.get("id2label") or ())
    return f"{kind} with {labels} labels" if labels > 1 else str(kind)


class _Measured(BaseModel):
    metric: StrictStr
    on: StrictStr
    value: FiniteFloat
    n: Annotated[StrictInt, Ge(0)]


class _Own(BaseModel):
    # What kinds of values config.json holds in this package's own layout; what it lacks has a default.
    model_config = ConfigDict(extra="ignore")
    objectives: list[dict[str, Any]]
    computed: list[StrictStr] = []
    response_feature: StrictStr = ""
    prompt_feature: StrictStr = ""
    backbone_config: dict[str, Any]
    backbone_layers: Annotated[StrictInt, Ge(0)] = 0
    architectures: list[StrictStr] | None = None
    backbone_name: StrictStr = ""
    gate_hidden: list[Size] = []
    gate_blocks: Size = 1
    gating_temperature: Annotated[FiniteFloat, Gt(0)] = 1.0
    gate_scale: FiniteFloat = 1.0
    probe_bias: StrictBool = False
    max_tokens: Size = 1
    rendering: dict[str, StrictStr] | None = None
    empty_score: FiniteFloat | None = None
    header_ids: list[TokenId] = []
    closing_ids: list[TokenId] = []
    question_ids: list[list[TokenId]] = []
    empty_ids: list[TokenId] = []
    profile: dict[str, Any] | None = None
    measured: list[_Measured] = []
    armorm_format: StrictInt = 0


def _check_own(facts: Mapping[str, Any], said: Said) -> None:
    try:
        _Own.model_validate(facts)
        Objectives.from_json(facts["objectives"], where="config.json: objectives")
        if facts.get("profile") is not None:
            Profile.from_json(facts["profile"], where="config.json: profile")
    except ValidationError as error:
        raise said(f"config.json is damaged ({faults_in(error)}): copy it again") from error
    except (DataError, RecipeError) as error:
        raise said(f"{first_line(error)}: copy config.json again") from error


def folder_beside(name: str, hub: Mapping[str, Any]) -> Path | None:
    """The folder of what is kept beside the weights, if there is such: `ASIDE`, or the model's own, of earlier versions."""
    if Path(name).is_dir():
        places = (Path(name) / ASIDE, Path(name))
        return next((place for place in places if any((place / file).is_file() for file in BESIDE)), None)
    for at in (f"{ASIDE}/", ""):
        kept = [cached_file(name, at + file, **_QUIET, **hub) for file in BESIDE]
        if found := next((Path(file).parent for file in kept if file), None):
            return found
    return None


def read_tokenizer(name: str, hub: Mapping[str, Any], rows: int) -> Any:
    """The tokenizer beside the weights of a decoder of `rows` tokens, or None where there are no files of one.

    Without it a model takes token ids alone, and `score` says what is missing. Raises CheckpointError where a file of it is
    damaged or lacking.
    """
    files = (*VOCABULARIES, "tokenizer_config.json")
    here = [(Path(name) / f).is_file() if Path(name).is_dir() else cached_file(name, f, **_QUIET, **hub) for f in files]
    if not any(here):
        return None

    def said(fault: str) -> CheckpointError:
        return CheckpointError(
            f"{name}: its tokenizer can't be read, a file of it is missing or damaged ({fault}): copy it again"
        )

    with loading_errors(said):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **hub)
        # Where there is no vocabulary, some classes make one up of special tokens alone.
        if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
            raise said("it holds special tokens alone")
        check_tokenizer(tokenizer, said, rows)
    return tokenizer


_QUIET = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
