"""A model's card: README.md with the facts that hubs and people look for, of what the model itself says.

In: a model that has been saved in a folder.  Out: `README.md` there, unless somebody wrote one.  Cost: a text.

The licence is the base model's own where its card is on this machine; else nothing is said of it, since nobody here knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from armorm.disk import digest_of, is_there, write_text
from armorm.features.backbone import EMBEDDED, EMBEDDED_HUB_ID
from armorm.numbers import decimal
from armorm.sums import read_sums
from armorm.user_files import read_small

if TYPE_CHECKING:
    from armorm.model.reward_model import RewardModel

NAME = "README.md"
TAGS = ("armorm", "reward-model", "preference", "rlhf", "interpretable")
LICENCE_OF_EMBEDDED = "apache-2.0"
LARGEST = 1 << 20
"""Bytes of another model's card at most."""
LOADING = """\
## How to load it

```python
import armorm

model = armorm.RewardModel.from_pretrained("FOLDER")
score = model.score([{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}])
score.score, score.contributions
```

`AutoModelForSequenceClassification` loads it too, with one logit, the score: after `import armorm`, or with
`trust_remote_code=True`, which imports the installed package (`pip install armorm`). This folder holds no code but that import.
"""


def write_card(folder: Path, model: RewardModel) -> None:
    """Write the card, in place of one of ours alone. Raises StorageError."""
    place = folder / NAME
    if is_there(place) and not (place.is_file() and read_sums(folder).get(NAME) == digest_of(place)):
        return
    write_text(place, card_of(model))


def card_of(model: RewardModel) -> str:
    """The card's text: facts for machines in front, then what people ask."""
    base = _hub_id(model.config.backbone_name)
    facts = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=list(TAGS),
        base_model=base,
        license=_licence(model.config.backbone_name, base),
        metrics=sorted({str(one["metric"]) for one in model.config.measured}) or None,
    )
    return f"---\n{facts.to_yaml()}\n---\n\n{''.join(_sections(model))}"


def _sections(model: RewardModel) -> Iterator[str]:
    c, dtype = model.config, str(model.dtype).removeprefix("torch.")
    yield (
        "# Reward model of named objectives\n\n"
        "A score is a sum of named parts: one reward per objective, weighed by a gate that reads the prompt, with nuisances such "
        "as length taken out.\n\n"
    )
    yield LOADING
    yield "\n## Objectives\n\n| name | scale | direction | rater | licence |\n|---|---|---|---|---|\n"
    for o in model.objectives:
        about = " | ".join(map(_cell, (o.name, f"{o.min:g} to {o.max:g}", o.direction.replace("_", " "), o.rater, o.licence)))
        yield f"| {about} |\n"
    yield (
        f"\n## What it reads\n\nThe decoder is {_cell(Path(c.backbone_name).name)}, frozen, in {dtype}, of {c.backbone_layers} "
        f"blocks as it came; answers are read at `{c.response_feature}`, prompts at `{c.prompt_feature}`; a conversation has at "
        f"most {c.max_tokens:,} tokens.\n"
    )
    if (profile := model.profile) is not None:
        yield f"\nThe steering profile {_cell(profile.name)} is baked in; `profile.yaml` has it.\n"
    if c.measured:
        yield "\n## Measured\n\n| metric | on | value | n |\n|---|---|---|---|\n"
        for one in c.measured:
            yield f"| {one['metric']} | {_cell(one['on'])} | {decimal(one['value'])} | {one['n']:,} |\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|") or "–"


def _hub_id(name: str) -> str | None:
    # A backbone's id on the hub; a path on the machine where it was trained is nobody's concern.
    if name == EMBEDDED:
        return EMBEDDED_HUB_ID
    with suppress(HFValidationError):
        validate_repo_id(name)
        return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists() else None
    return None


def _licence(name: str, base: str | None) -> str | None:
    # As the base model's own card has it, in its folder or in the hub's cache.
    if name == EMBEDDED:
        return LICENCE_OF_EMBEDDED
    own = Path(name) / NAME if base is None else try_to_load_from_cache(base, NAME)
    if not isinstance(own, str | Path):
        return None
    try:
        card = ModelCard(read_small(Path(own), LARGEST).decode("utf-8"), ignore_metadata_errors=True)
    except Exception:  # somebody's text, in which a parser may find anything
        return None
    licence = getattr(card.data, "license", None)
    return licence if isinstance(licence, str) else None
