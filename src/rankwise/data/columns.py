"""From rows to examples: which column is the instruction, which the input, which the answer.

Three schemas are recognised, in this order: an instruction with its output (Stanford Alpaca and its aliases), chat
messages, plain text. `options: {columns: {...}}` names the columns instead.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rankwise.data.examples import SPLITS, Example, SplitName
from rankwise.data.rows import Row
from rankwise.errors import DataError

ALIASES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "prompt", "question", "query"),
    "input": ("input", "context"),
    "output": ("output", "response", "answer", "completion"),
    "messages": ("messages", "conversations", "conversation"),
    "text": ("text",),
}
"""What each part of an example is called, most usual first."""

USER_ROLES = {"user", "human"}
ANSWER_ROLES = {"assistant", "gpt"}


@dataclass(frozen=True, slots=True)
class LoadedExample:
    """One example of a source, before anything is left out."""

    example: Example
    is_text: bool = False
    """Plain text, which has no prompt by nature."""
    split: SplitName | None = None
    """The split that the source puts it in, where it names all three."""
    num_unused_turns: int = 0
    """Messages after the first exchange."""


def build_examples(rows: Sequence[Row], source: str, columns: Mapping[str, str] | None = None) -> list[LoadedExample]:
    """One example per row, in order.

    Args:
        rows: At least one.
        source: For error messages.
        columns: Part of an example (a key of `ALIASES`) to column name; None to recognise the schema.

    Raises:
        DataError: no schema fits the columns, or a row lacks a value or has one of another type.
    """
    available = list(dict.fromkeys(name for row in rows for name in row.fields))
    parts = _named_parts(columns, available, source) if columns else _recognised_parts(available, source)
    splits = _splits(rows)
    return [_build(row, parts, split, source) for row, split in zip(rows, splits, strict=True)]


def _recognised_parts(available: Sequence[str], source: str) -> dict[str, str]:
    """Part -> column of the first schema that fits."""
    found = {
        part: next(name for name in names if name in available)
        for part, names in ALIASES.items()
        if any(name in available for name in names)
    }
    for schema in (("instruction", "input", "output"), ("messages",), ("text",)):
        if all(part in found for part in schema if part != "input"):
            return {part: found[part] for part in schema if part in found}
    raise DataError(
        f"{source}: no schema fits its columns ({_listed(available)}). Recognised are an instruction with its output "
        f"({', '.join(ALIASES['instruction'])} with {', '.join(ALIASES['output'])}), messages, and text; name others "
        "with data.options, such as {columns: {instruction: question, output: answer}}."
    )


def _named_parts(columns: Mapping[str, str], available: Sequence[str], source: str) -> dict[str, str]:
    for part, name in columns.items():
        if part not in ALIASES:
            raise DataError(
                f"data.options.columns: {part!r} is not a part of an example{_nearest(part, list(ALIASES))}. Allowed "
                f"are {', '.join(ALIASES)}."
            )
        if name not in available:
            raise DataError(
                f"data.options.columns.{part}: {source} has no column {name!r}{_nearest(str(name), available)}. "
                f"Its columns: {_listed(available)}."
            )
    if not ({"instruction", "output"} <= set(columns) or set(columns) in ({"messages"}, {"text"})):
        raise DataError(
            f"data.options.columns: {', '.join(columns)} cannot make an example. Name instruction and output (and "
            "input, where there is one), or messages alone, or text alone."
        )
    return dict(columns)


def _splits(rows: Sequence[Row]) -> list[SplitName | None]:
    """The column `split`, if it puts every row in one of the three splits and uses all three."""
    named = [row.fields.get("split") for row in rows]
    if all(isinstance(name, str) for name in named) and set(named) == set(SPLITS):
        return cast(list[SplitName | None], named)
    return [None] * len(rows)


def _build(row: Row, parts: Mapping[str, str], split: SplitName | None, source: str) -> LoadedExample:
    place = f"{source}: {row.place}"
    if "messages" in parts:
        return _from_messages(row.fields.get(parts["messages"]), split, place)
    if "text" in parts:
        return LoadedExample(Example("", "", _text(row, parts["text"], place)), is_text=True, split=split)
    family = row.fields.get("family")
    example = Example(
        instruction=_text(row, parts["instruction"], place),
        input=_text(row, parts["input"], place, optional=True) if "input" in parts else "",
        output=_text(row, parts["output"], place),
        family=family if isinstance(family, str) and family else None,
    )
    return LoadedExample(example, split=split)


def _text(row: Row, column: str, place: str, *, optional: bool = False) -> str:
    """A field as text; null is empty, a number is written out."""
    if column not in row.fields and not optional:
        raise DataError(
            f"{place} has no {column!r} (found: {_listed(list(row.fields))}). Every row needs one; it may be empty."
        )
    value = row.fields.get(column)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place}: {column!r} is a {type(value).__name__}; allowed are texts and numbers.")


def _from_messages(messages: Any, split: SplitName | None, place: str) -> LoadedExample:
    """The first exchange: a system message, where there is one, goes before what the user says."""
    turns = [_turn(message, place) for message in messages] if isinstance(messages, (list, tuple)) else []
    num_system = int(bool(turns) and turns[0][0] == "system")
    exchange = turns[num_system : num_system + 2]
    if [role for role, _ in exchange] != ["user", "assistant"]:
        raise DataError(
            f"{place}: messages begin with {_listed([role for role, _ in turns[:3]])}; allowed is a list that begins "
            "with a user's message (a system message may come before it) and the assistant's answer."
        )
    instruction = "\n\n".join(text for _, text in turns[: num_system + 1])
    example = Example(instruction=instruction, input="", output=exchange[1][1])
    return LoadedExample(example, split=split, num_unused_turns=len(turns) - num_system - 2)


def _turn(message: Any, place: str) -> tuple[str, str]:
    """Role and text, in either of the two common spellings."""
    fields = message if isinstance(message, dict) else {}
    role, text = fields.get("role", fields.get("from")), fields.get("content", fields.get("value"))
    if not isinstance(role, str) or not isinstance(text, str):
        raise DataError(
            f"{place}: a message must be an object with texts under `role` and `content` (or `from` and `value`)."
        )
    return "user" if role in USER_ROLES else "assistant" if role in ANSWER_ROLES else role, text


def _nearest(name: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "") if names else "none"
