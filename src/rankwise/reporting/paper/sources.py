"""What a paper is written from: recorded reports, each with its settings, its figures and the prose about it."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import ReportError
from rankwise.reporting.recorded import COMPARISON, read_comparison
from rankwise.reporting.values import StudyComparison

SETTINGS = "study.resolved.json"
DISCUSSION_SUFFIX = ".discussion.md"
MAX_PROSE_BYTES = 1 << 20

RESERVED = frozenset({"paper", "study", "effect"})
"""First parts of values' names that no study and no arm may have."""


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A section file."""

    path: Path
    text: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One study of a paper."""

    slug: str
    """The first part of its values' names and of its labels; unique in the paper."""
    folder: Path
    comparison: StudyComparison
    settings: Mapping[str, Any] | None
    """The resolved study; None where it was not recorded."""
    sha256: str
    """Of comparison.json."""
    figures: Mapping[str, Path]
    """Name -> PDF, of the figures that the report has."""
    discussion: Prose | None

    def baseline_settings(self) -> Mapping[str, Any]:
        """The resolved settings of the baseline; empty where they were not recorded."""
        arms = (self.settings or {}).get("arms", [])
        return next((arm for arm in arms if arm.get("name") == self.comparison.baseline), {})


def read_sources(places: Sequence[tuple[Path, Path | None]]) -> tuple[Source, ...]:
    """The studies in `places`: (results folder, section file of its discussion or None to look for one), in order.

    Raises ReportError where a folder has no comparison, or a file that was named cannot be read.
    """
    if not places:
        raise ReportError("A paper needs at least one study: name the results folders of those that it is about.")
    comparisons = [read_comparison(folder) for folder, _ in places]
    slugs = unique_slugs((comparison.study for comparison in comparisons), RESERVED)
    return tuple(
        Source(
            slug=slug,
            folder=folder,
            comparison=comparison,
            settings=_settings(folder),
            sha256=hashlib.sha256((folder / COMPARISON).read_bytes()).hexdigest(),
            figures={path.stem: path for path in sorted((folder / "figures").glob("*.pdf"))},
            discussion=read_prose(discussion) if discussion else _found_discussion(folder, comparison),
        )
        for (folder, discussion), comparison, slug in zip(places, comparisons, slugs, strict=True)
    )


def unique_slugs(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Each name as letters, digits, `-` and `_`; a second of the same gets a number.

    >>> unique_slugs(["eva ranks, rslora", "eva ranks rslora", "paper"], {"paper"})
    ['eva-ranks-rslora', 'eva-ranks-rslora-2', 'paper-2']
    """
    used, found = set(taken), []
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "unnamed"
        number, slug = 1, stem
        while slug in used:
            number += 1
            slug = f"{stem}-{number}"
        used.add(slug)
        found.append(slug)
    return found


def read_prose(path: Path) -> Prose:
    """Raises ReportError where the file cannot be read as text."""
    try:
        if path.stat().st_size > MAX_PROSE_BYTES:
            raise ReportError(f"{path} has more than {MAX_PROSE_BYTES:,} bytes: too large for a section of a paper.")
        return Prose(path=path, text=path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: byte {error.start} is not UTF-8; a section of a paper is UTF-8 text.") from None
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read ({error.strerror or error}). Check the path of this section."
        ) from None


def _settings(folder: Path) -> Mapping[str, Any] | None:
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, Mapping) else None


def _found_discussion(folder: Path, comparison: StudyComparison) -> Prose | None:
    """In the results folder, or next to the study file that the recorded command names."""
    places = [folder / "discussion.md"]
    try:
        words = shlex.split(comparison.environment.get("command", ""))
    except ValueError:
        words = []
    places += [
        Path(word).with_suffix(DISCUSSION_SUFFIX) for word in words if Path(word).suffix.lower() in (".yaml", ".yml")
    ]
    return next((read_prose(place) for place in places if place.is_file()), None)
