"""Read back what a report recorded: comparison.json to the values that it was written from.

A comparison outlives the version that wrote it. What a later version added is missing there, and stays missing: None,
or empty where a value has no None. What a later version will add is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rankwise.errors import ReportError
from rankwise.reporting.values import StudyComparison

COMPARISON = "comparison.json"
MAX_BYTES = 64 << 20
"""A study of a thousand runs takes about one MiB."""


def read_comparison(folder: Path) -> StudyComparison:
    """The comparison that the report in `folder` was written from.

    Raises ReportError where there is none, or where the file is no comparison.
    """
    path = folder / COMPARISON
    advice = "Name a results folder that holds a report, or write it: rankwise report DIR."
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReportError(f"{path} has more than {MAX_BYTES:,} bytes: too large for a comparison. {advice}")
        document = json.loads(path.read_text(encoding="utf-8"))
        return _comparisons().validate_python(_completed(StudyComparison, document))
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror or error}). {advice}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ReportError(f"{path} is not a comparison: {place or 'the document'}: {first['msg']}. {advice}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not a comparison ({type(error).__name__}: {error}). {advice}") from error


@cache
def _comparisons() -> TypeAdapter[StudyComparison]:
    return TypeAdapter(StudyComparison)


def _completed(wanted: Any, value: Any, *, is_absent: bool = False) -> Any:
    """`value`, with what the dataclasses in `wanted` have and it lacks; `is_absent`: it was not recorded at all."""
    if value is None:
        return None
    if isinstance(wanted, type) and is_dataclass(wanted) and isinstance(value, Mapping):
        hints = get_type_hints(wanted)
        names = [field.name for field in fields(wanted)]
        known = {name: _completed(hints[name], value[name]) for name in names if name in value}
        absent = {name: _nothing(hints[name], is_absent) for name in names if name not in value}
        return known | {name: item for name, item in absent.items() if item is not _REQUIRED}
    if get_origin(wanted) is tuple and isinstance(value, list):
        return [_completed(get_args(wanted)[0], item) for item in value]
    if isinstance(wanted, UnionType):
        return _completed(next((part for part in get_args(wanted) if is_dataclass(part)), None), value)
    return value


_REQUIRED = object()


def _nothing(wanted: Any, is_absent: bool) -> Any:
    """What stands for a value that was not recorded; `_REQUIRED` where nothing can."""
    origin = get_origin(wanted)
    if origin is UnionType and NoneType in get_args(wanted):
        return None
    if origin is tuple:
        return ()
    if origin is dict or origin is Mapping:
        return {}
    if isinstance(wanted, type) and is_dataclass(wanted):
        return _completed(wanted, {}, is_absent=True)
    return {str: "not recorded", int: 0}.get(wanted, _REQUIRED) if is_absent else _REQUIRED
