"""What every type of result is: frozen, a sentence per field, and in its file exactly what it holds.

In: numbers and names as a command found them.  Out: `Result`, `Number`, `Estimate`, `Provenance`, which all types of results use.
Cost: one validation of what is put together or read.

A number that is undefined is NaN in memory and null in the file. A field that was never set is not in the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from armorm.errors import CheckpointError
from armorm.intervals import Interval


def _read_number(raw: Any) -> Any:
    return math.nan if raw is None else raw


def write_number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def _read_estimate(raw: Any) -> Any:
    return {name: _read_number(value) for name, value in raw.items()} if isinstance(raw, Mapping) else raw


Number = Annotated[float, BeforeValidator(_read_number), PlainSerializer(write_number)]
"""A number that may be undefined."""

Estimate = Annotated[Interval, BeforeValidator(_read_estimate), PlainSerializer(Interval.to_json)]
"""A number with the ends of its 95 % interval, any of which may be undefined."""


class Result(BaseModel):
    """A type of result, or of a part of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True, use_attribute_docstrings=True)

    def to_json(self) -> dict[str, Any]:
        """What the file holds, as plain JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


Kind = TypeVar("Kind", bound=Result)


def read_result(kind: type[Kind], path: Path) -> Kind:
    """The results that a file holds. Raises CheckpointError where it is missing or holds something else."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{path}: these are no {kind.__name__}: {error}: compute them again") from error


class Share(Result):
    """A share with its 95 % interval."""

    value: Number
    """The share."""
    low: Number
    """The lower end of its 95 % interval."""
    high: Number
    """The upper end."""

    @property
    def interval(self) -> Interval:
        """The same alone."""
        return Interval(self.value, self.low, self.high)


class Provenance(Result):
    """Where a result comes from."""

    created: str
    """When it was computed, in UTC."""
    version: str
    """The version of this package."""
    commit: str | None
    """The commit of the code, null outside a checkout."""
    machine: str
    """Processor, threads, memory and accelerator."""
    command: str
    """The command line that computed it."""

    def origin(self) -> dict[str, str]:
        """What it takes to compute it again."""
        return {"command": self.command, "commit": self.commit or "", "machine": self.machine, "created": self.created}
