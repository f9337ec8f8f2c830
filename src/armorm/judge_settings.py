"""What a recipe says about a language model that judges.

In: plain values, as they stand in a recipe.  Out: `JudgeSettings`, checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from armorm.bounds import BatchTokens, Name, PerMinute, Price, Seconds, Seed, shown
from armorm.small_files import expanded
from armorm.user_files import is_file

TEMPLATES = ("pairwise-1", "pairwise-short-1", "pointwise-1", "pointwise-short-1")
"""The package's own templates. A text that changes gets a new number: verdicts under the old one stay what they were."""

DEFAULT_KEY = "OPENAI_API_KEY"
REMOTE = frozenset(
    {"endpoint", "key_env", "seed", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout", "retries"}
)
LOCAL = frozenset({"dtype", "device", "batch_tokens"})
"""How a model behind an endpoint is asked, and how one on this machine."""
REASONED, SHORT = 1024, 16
"""Tokens for a reply with reasons, and for one that is only a verdict."""


def _is_url(given: str) -> bool:
    if re.search(r"[\x00-\x20\x7f]", given):
        return False
    try:
        parts = urlsplit(given)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, say
        return False


class JudgeSettings(BaseModel):
    """One judge: a model behind an OpenAI-compatible endpoint (`model`), or one that runs here (`local`).

    `name` is what tables call it. `template` is one of `TEMPLATES` or the path of a text file with the placeholders {context} and
    either {answer_a} and {answer_b} (a pairwise judge) or {answer} (a pointwise one); {mark}, if it occurs, becomes a text that
    no answer contains. `max_tokens` bounds a reply; unset, it is 16 for the package's short templates and 1024 for all others.

    For `model`: `endpoint` is the base URL, such as http://localhost:8000/v1 (unset: the openai package's own default); `key_env`
    names the environment variable that holds the key; `seed` is sent along unless it is null; `timeout` is in seconds, `retries`
    counts further tries of one request; `price_in` and `price_out` are US dollars per million tokens.

    For `local`: "smollm2" (embedded), a .gguf file, a folder or a hub id; `batch_tokens` bounds a batch and its replies.
    `verdict: log-probabilities` asks which of A and B it would say next, in the words of the pairwise preference model, and
    writes nothing: for models that are too small to keep to a form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    model: str | None = Field(default=None, min_length=1)
    local: str | None = Field(default=None, min_length=1)
    template: str = "pairwise-1"
    max_tokens: int | None = Field(default=None, ge=1, le=10**6)
    endpoint: str | None = None
    key_env: str = DEFAULT_KEY
    seed: Seed | None = 0
    concurrency: int = Field(default=8, ge=1, le=256)
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    timeout: Seconds = 120.0
    retries: int = Field(default=5, ge=0, le=20)
    price_in: Price | None = None
    price_out: Price | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: str = "auto"
    batch_tokens: BatchTokens = 8192
    verdict: Literal["reply", "log-probabilities"] = "reply"

    @property
    def reply_tokens(self) -> int:
        """The longest reply, in tokens."""
        if self.max_tokens is not None:
            return self.max_tokens
        return SHORT if self.template in TEMPLATES and "-short-" in self.template else REASONED

    @property
    def template_file(self) -> Path | None:
        """The file of a template of one's own; None for the package's."""
        return None if self.template in TEMPLATES else expanded(self.template)

    @field_validator("endpoint")
    @classmethod
    def _url(cls, given: str | None) -> str | None:
        if given is not None and not _is_url(given):
            raise ValueError("an endpoint is a URL, such as http://localhost:8000/v1")
        return given

    @field_validator("key_env")
    @classmethod
    def _variable(cls, given: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given):
            raise ValueError("give the name of an environment variable that holds the key, never the key itself")
        return given

    @model_validator(mode="after")
    def _one_kind(self) -> JudgeSettings:
        if (self.model is None) == (self.local is None):
            raise ValueError("give either `model` (behind an endpoint) or `local` (runs on this machine)")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("give both price_in and price_out (US dollars per million tokens), or neither")
        where, odd = ("local", REMOTE | {"price_in", "price_out"}) if self.local is not None else ("model", LOCAL | {"verdict"})
        odd |= {"template", "max_tokens"} if self.verdict == "log-probabilities" else set()
        if out_of_place := sorted(name for name in odd if getattr(self, name) != type(self).model_fields[name].default):
            raise ValueError(f"{', '.join(out_of_place)}: nothing that such a judge (`{where}`) reads; leave it out")
        return self

    @model_validator(mode="after")
    def _template_there(self) -> JudgeSettings:
        if self.template_file is not None and not is_file(self.template_file):
            raise ValueError(f"template: {shown(self.template)} is neither {', '.join(TEMPLATES)} nor a file that is there")
        return self
