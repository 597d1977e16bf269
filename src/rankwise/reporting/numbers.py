"""Every number of a report as one JSON document, at full precision."""

import json
import math
from dataclasses import asdict
from typing import Any

from rankwise.reporting.values import StudyComparison


def comparison_json(comparison: StudyComparison) -> str:
    """The comparison as one JSON document; what is missing or not a number is null."""
    return json.dumps(comparison_dict(comparison), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def comparison_dict(comparison: StudyComparison) -> dict[str, Any]:
    document = _plain(asdict(comparison))
    assert isinstance(document, dict)
    return document


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
