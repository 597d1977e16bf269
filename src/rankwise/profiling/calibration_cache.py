"""Calibrations kept for the next command: one JSON file in the platform's cache folder.

A key says all that a speed depends on. What cannot be read or written is measured again; nothing else depends on it.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankwise.files import write_whole
from rankwise.profiling.calibration import Calibration, PassSpeed

FILE_NAME = "calibration.json"
VERSION = 2
"""Raised when a calibration means something else than before; older ones are then measured again."""


def cache_folder() -> Path:
    """`RANKWISE_CACHE`, or Rankwise's folder where the platform keeps what can be made again."""
    if given := os.environ.get("RANKWISE_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rankwise"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "rankwise"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankwise"


def read_calibrations() -> dict[str, Calibration]:
    """All that are kept, by key; none where there is no readable file of this version."""
    try:
        document = json.loads((cache_folder() / FILE_NAME).read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            return {}
        return {key: _parse(value) for key, value in document["calibrations"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def keep_calibration(key: str, found: Calibration) -> None:
    """Add one to the file; in a folder that cannot be written, keep nothing."""
    kept = {name: asdict(value) for name, value in {**read_calibrations(), key: found}.items()}
    text = json.dumps({"version": VERSION, "calibrations": kept}, indent=2) + "\n"
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / FILE_NAME, text)


def _parse(value: Mapping[str, Any]) -> Calibration:
    speeds = {name: PassSpeed(**value[name]) for name in ("training", "scoring", "decoding")}
    return Calibration(**speeds, params_per_s=value["params_per_s"])
