"""Every error that a user of the package can meet, as one tree.

ArmormError                    exit code 1: a fault of ours or of the machine
├── UserError                  exit code 2: something the caller can put right; the message says how
│   ├── RecipeError            a recipe that is incomplete, misspelt or contradicts itself (all faults at once)
│   ├── DataError              rows that can't be read or don't hold what they should (file, row, remedy)
│   │   └── InUse              a place that another process is writing
│   ├── ConversationError      messages that are no conversation, or don't fit the template
│   ├── BackboneError          a model folder, hub id or GGUF file that can't be used as a backbone
│   ├── ObjectiveMismatch      parts fitted on different objectives put together
│   ├── FitError               too few rows, no variance, nothing to fit
│   ├── CheckpointError        a saved artefact that is missing, truncated, or of another format
│   └── MissingExtra           an optional dependency that is not installed (the pip command is in the message)
└── StorageError               the disk is full or a file can't be written
"""

from __future__ import annotations


class ArmormError(Exception):
    """The root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class UserError(ArmormError):
    """A fault that the caller can put right."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe is incomplete, misspelt or contradicts itself."""


class DataError(UserError):
    """Rows can't be read or don't hold what they should."""


class InUse(DataError):  # noqa: N818 - named for what was seen
    """Another process is writing there."""


class ConversationError(UserError):
    """Messages are no conversation, or don't fit the chat template. `fault` names what is wrong, where it has a name."""

    def __init__(self, message: str, fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault


class BackboneError(UserError):
    """A model can't be used as a backbone."""


class ObjectiveMismatch(UserError):  # noqa: N818 - named for what was seen
    """Parts that were fitted on different objectives are put together."""


class FitError(UserError):
    """There is nothing to fit: too few rows, no variance."""


class CheckpointError(UserError):
    """A saved artefact is missing, truncated or of another format."""


class MissingExtra(UserError):  # noqa: N818 - named for what was seen
    """An optional dependency is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'armorm[{extra}]'")


class StorageError(ArmormError):
    """The disk is full or a file can't be written."""
