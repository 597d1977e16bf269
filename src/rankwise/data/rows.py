"""One row of a source before its columns are understood, and where a person finds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    place: str
    """For error messages, such as `line 12` or `row 3` (counted from 1)."""
    fields: Mapping[str, Any]
