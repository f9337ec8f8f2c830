"""Small files of settings, read whole: YAML of recipes and profiles, JSON, templates. The one place that knows YAML.

In: a path.  Out: plain values or a text; an error of the caller's kind that names file, line and remedy.
Cost: at most a megabyte of text, 50,000 values, 40 levels, whatever the file is.

YAML is read as values alone: no tags beyond the plain ones, no key twice, keys are texts. What looks like a date, a time or an
octal number stays a text. An alias counts as all that it repeats: a few lines of them can stand for gigabytes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from armorm import user_json
from armorm.bounds import shown
from armorm.errors import ArmormError, RecipeError
from armorm.user_files import shown as shown_path
from armorm.user_json import JsonFault

LARGEST = 1_000_000
"""Bytes of a file of settings."""
MOST_VALUES = 50_000
DEEPEST = 40
LONGEST_NUMBER = 30
_TAG = "tag:yaml.org,2002:"
_KINDS = (
    ("bool", r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    ("null", r"(?:~|null|Null|NULL|)$", ("~", "n", "N", "")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("float", r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$", "-+0123456789."),
    ("float", r"[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$", "-+."),
)
"""What a bare word is, tried in this order; else it is a text."""


def read_text(path: Path, what: str, *, error: type[ArmormError] = RecipeError, remedy: str = "", missing: str = "") -> str:
    """A small text file as it is, without a byte order mark. `what` is what it should be: "recipe"; `missing` says that it is
    not there.

    Raises `error` for a file that is missing, no regular file, larger than a megabyte, or not UTF-8.
    """
    named, end = shown_path(path), f"; {remedy}" if remedy else ""
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            seen = "a folder" if stat.S_ISDIR(kind) else "a pipe or device"
            raise error(f"{named}: is {seen}: a {what} is a file{end}")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise error(f"{named}: {missing or f'no such {what}'}{end}") from None
    except (OSError, ValueError) as failed:  # a NUL in a path is a ValueError
        raise error(f"{named}: the {what} can't be read ({getattr(failed, 'strerror', None) or failed}){end}") from None
    if len(data) > LARGEST:
        raise error(f"{named}: is larger than {LARGEST:,} bytes, which no {what} is{end}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failed:
        line = data.count(b"\n", 0, failed.start) + 1
        raise error(f"{named}, line {line}: is not UTF-8 text: save the {what} as UTF-8{end}") from None


def read_yaml(path: Path, what: str, *, error: type[ArmormError] = RecipeError, remedy: str = "", missing: str = "") -> Any:
    """The values that a YAML file holds. Raises `error` as `read_text` does, and naming the line of what can't be read."""
    text = read_text(path, what, error=error, remedy=remedy, missing=missing)
    return yaml_values(text, shown_path(path), error=error)


def yaml_values(text: str, named: str, *, error: type[ArmormError] = RecipeError) -> Any:
    """The values that a text in YAML holds; `named` is what errors call it. Raises `error` naming the line that can't be read."""
    if len(text) > LARGEST:
        raise error(f"{named}: is larger than {LARGEST:,} letters, which no file of settings is")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Values().of(node, depth=1)
    except ReaderError as failed:
        line = text.count("\n", 0, int(failed.position)) + 1
        raise error(f"{named}, line {line}: is not YAML: a control character stands there: take it out") from None
    except yaml.MarkedYAMLError as failed:
        mark = failed.problem_mark or failed.context_mark
        said = " ".join(part for part in (failed.context, failed.problem) if part)
        raise error(f"{named}, line {mark.line + 1 if mark else 1}: is not YAML: {shown_sentence(said)}") from None
    except (ValueError, OverflowError, yaml.YAMLError) as failed:  # an escape beyond the last letter
        line = loader.line + 1 if loader is not None else 1
        raise error(f"{named}, line {line}: is not YAML: {shown_sentence(str(failed))}") from None


def read_json(path: Path, what: str, *, error: type[ArmormError] = RecipeError, remedy: str = "") -> Any:
    """The values that a small JSON file holds. Raises `error` as `read_text` does, and for what is no JSON."""
    text = read_text(path, what, error=error, remedy=remedy)
    try:
        return user_json.read_json(text, constants=False)
    except JsonFault as fault:
        raise error(f"{shown_path(path)}: not JSON ({shown_sentence(str(fault))})") from None


def expanded(text: str) -> Path:
    """A path with `$NAME`, `${NAME}` and `~` replaced; one whose home or variable there is not stays as it is."""
    path = Path(os.path.expandvars(text))
    try:
        return path.expanduser()
    except RuntimeError:  # a user that this machine does not have
        return path


def yaml_text(facts: Any) -> str:
    """Plain values as YAML that `read_yaml` reads back: no anchors, keys in their order."""
    return str(yaml.dump(facts, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def shown_sentence(said: str) -> str:
    """A sentence on one line, cut where it repeats a long value."""
    line = " ".join(said.split())
    return line if len(line) <= 300 else line[:299] + "…"


class _Resolver(BaseResolver):
    """What bare words are."""


for _kind, _form, _first in _KINDS:
    _Resolver.add_implicit_resolver(_TAG + _kind, re.compile(_form), list(_first))


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    # The parser up to its tree of nodes, which is bounded.

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self.values = self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()
        self.values += 1
        self.depth += 1
        _check_size(event, self.values, self.depth)
        found: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return found


class _Dumper(yaml.SafeDumper):
    # Quotes what `_Loader` would not read as a text; every value is written out where it stands.
    yaml_implicit_resolvers = _Resolver.yaml_implicit_resolvers

    def ignore_aliases(self, _data: Any) -> bool:
        return True


class _Values:
    # The values of a tree of nodes, counted as they are made: an alias is a node that stands in several places.

    def __init__(self) -> None:
        self.made = self.letters = 0

    def of(self, node: Node, depth: int) -> Any:
        self.made += 1
        _check_size(node, self.made, depth)
        if isinstance(node, MappingNode):
            _check_tag(node, "map")
            return dict(self.entries(node, depth))
        if isinstance(node, SequenceNode):
            _check_tag(node, "seq")
            return [self.of(one, depth + 1) for one in node.value]
        self.letters += len(node.value)
        if self.letters > LARGEST:
            raise _fault(node, f"its aliases repeat more than {LARGEST:,} letters")
        return _scalar(node)

    def entries(self, node: MappingNode, depth: int) -> Iterator[tuple[str, Any]]:
        seen = set[str]()
        for key_node, value_node in node.value:
            key = _scalar(key_node) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                raise _fault(key_node, "a key is a text: put it in quotes")
            if key in seen:
                raise _fault(key_node, f"the key {shown(key)} stands twice: leave one out")
            seen.add(key)
            yield key, self.of(value_node, depth + 1)


def _check_size(at: Any, values: int, depth: int) -> None:
    if values > MOST_VALUES:
        raise _fault(at, f"it holds more than {MOST_VALUES:,} values")
    if depth > DEEPEST:
        raise _fault(at, f"it is nested more than {DEEPEST} levels deep, or holds itself")


def _scalar(node: Node) -> Any:
    kind, text = node.tag.removeprefix(_TAG), str(node.value)
    if kind == "str" or node.tag == "!":
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise _fault(node, "a text holds NUL or half a letter (\\0, \\ud800): take it out")
        return text
    if kind == "null":
        return None
    if kind == "bool" and text:
        return text.lower() in ("yes", "true", "on")
    if kind == "int":
        if len(text) > LONGEST_NUMBER:
            raise _fault(node, f"a whole number of {len(text):,} digits, more than {LONGEST_NUMBER}")
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise _fault(node, f"the tag {shown(node.tag)} is not read: write plain values")


def _check_tag(node: Node, kind: str) -> None:
    if node.tag != _TAG + kind:
        raise _fault(node, f"the tag {shown(node.tag)} is not read: write plain values")


def _fault(at: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
