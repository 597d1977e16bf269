"""YAML text to plain values, with the line of every key.

No objects are built and no aliases followed, so a file from a stranger is as harmless as JSON. Scalars follow the core
schema of YAML 1.2: `1e-4` is a number, `no`, `12:30` and `2024-01-01` are text.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.composer import Composer, ComposerError
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from rankwise.errors import StudyError

MAX_DEPTH = 16
"""Nesting beyond which a file is refused; a study uses about six levels."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: `("arms", 1, "budget", "rank")`."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a file says, and on which line it says it."""

    origin: str
    value: Any
    lines: Mapping[KeyPath, int]
    """Line, from 1, of each key and list item."""

    def line(self, path: KeyPath) -> int:
        """Line of the value at `path`, or of the nearest thing that holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(text: str, *, origin: str) -> Document:
    """The values of one YAML document.

    Raises StudyError, with line and column, on text that is not YAML, on aliases, tags, keys that are given twice or
    are not text, numbers that are not finite, and nesting deeper than `MAX_DEPTH`.
    """
    lines: dict[KeyPath, int] = {}
    try:
        node = _Loader(text).get_single_node()
        value = None if node is None else _value(node, (), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise StudyError(f"{place}: cannot be read: {reason}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StudyError(f"{origin}:{line}: the character U+{ord(text[error.position]):04X} is not allowed.") from None
    return Document(origin=origin, value=value, lines=lines)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's parser up to the node tree, without the part that builds objects."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refused(f"the alias *{event.anchor} is refused, write the value out", event)
        if self.depth == MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_TAG = "tag:yaml.org,2002:"
for _name, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), None)


def _value(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    """The plain value of a node; the lines of all keys below `path` are added to `lines`."""
    lines.setdefault(path, node.start_mark.line + 1)
    match node.id, node.tag.removeprefix(_TAG):
        case "mapping", "map":
            return _mapping(node, path, lines)
        case "sequence", "seq":
            return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
        case "scalar", "null":
            return None
        case "scalar", "bool" if node.value.lower() in ("true", "false"):
            return node.value.lower() == "true"
        case "scalar", "int" | "float" as kind:
            return _number(node, kind)
        case "scalar", "str":
            return _text(node)
    raise _refused(f"the tag {node.tag} is refused here", node)


def _mapping(node: Any, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.id != "scalar" or key_node.tag != _TAG + "str" or "\n" in key_node.value:
            raise _refused("a key that is not a line of text is refused", key_node)
        key = _text(key_node)
        if key in values:
            raise _refused(f"{key} is given twice, first on line {lines[*path, key]}", key_node)
        lines[*path, key] = key_node.start_mark.line + 1
        values[key] = _value(value_node, (*path, key), lines)
    return values


def _number(node: Any, kind: str) -> int | float:
    try:
        number = int(node.value) if kind == "int" else float(node.value)
        if math.isfinite(number):
            return number
    except (ValueError, OverflowError):  # an explicit tag on text that is no number, or far too many digits
        pass
    raise _refused(f"{node.value[:40]} is not a finite number", node)


def _text(node: Any) -> str:
    """The text of a node; control characters (they can steer a terminal) and lone surrogates are refused."""
    for character in node.value:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise _refused(f"the character U+{ord(character):04X} is refused", node)
    return node.value


def _refused(reason: str, place: Any) -> ComposerError:
    return ComposerError(None, None, reason, place.start_mark)
