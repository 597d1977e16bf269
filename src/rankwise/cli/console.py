"""The two consoles of the command line: results on standard output, what is only for a person on the other."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

console = Console(highlight=False)
"""Results, tables, paths written."""
error_console = Console(stderr=True, highlight=False)
"""Progress, notes and errors, so that standard output can be piped."""


def cell(value: object, style: str = "") -> Text:
    """Any value of a table as literal text, which no markup can steer; an en dash for None."""
    return Text("–" if value is None else printable(str(value)), style=style)


def print_json(document: Any) -> None:
    """Write one JSON document to standard output, never wrapped or coloured."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON can have them: null for what is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def print_error(message: str) -> None:
    """Write one paragraph to standard error.

    It is wrapped on a terminal only: in a log, a path broken over two lines cannot be searched for.
    """
    paragraph = Text(f"rankwise: {printable(message)}")
    error_console.print(paragraph, soft_wrap=not error_console.is_terminal, overflow="ignore")


def printable(text: str) -> str:
    """Show control characters as escapes: text from a data set must not steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)
