"""What the reports warn of, said once: a warning names the studies it is about, and how many of their arms."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.reporting.format import format_count
from rankwise.reporting.paper.blocks import Column, Table
from rankwise.reporting.paper.sources import Source
from rankwise.reporting.values import StudyComparison

_PLURAL: Mapping[str, str] = {
    r"^has ": "have ",
    r"^is ": "are ",
    r"\bits difference is\b": "their differences are",
}


@dataclass(frozen=True)
class _Warning:
    text: str
    """Without the arms that it is about."""
    num_arms: int
    """0: it is about the study."""


def warnings_table(sources: Sequence[Source]) -> Table | None:
    """One line a warning; None where nothing is warned of. Each study's RESULTS.md names the arms."""
    places: dict[str, dict[str, int]] = {}
    for source in sources:
        found = source.comparison
        for warning in (_taken_apart(text, found) for text in found.warnings):
            num_arms = places.setdefault(warning.text, {})
            num_arms[found.study] = num_arms.get(found.study, 0) + warning.num_arms
    if not places:
        return None
    return Table(
        name="warnings",
        caption="What the reports warn of, with the studies and how many of their arms each is about; the reports name "
        "them.",
        is_long=True,
        columns=(Column(title="Warning", align="p", width=0.56), Column(title="Studies", align="p", width=0.38)),
        rows=tuple((text, ", ".join(_place(*place) for place in of.items())) for text, of in places.items()),
        size="scriptsize",
    )


def _place(study: str, num_arms: int) -> str:
    return f"{study} ({format_count(num_arms, 'arm')})" if num_arms else study


def _taken_apart(text: str, found: StudyComparison) -> _Warning:
    """`a, b: the rest` and `a; b have the rest` as the rest, in one form for one arm and for several."""
    rest, num_arms = text, 0
    names = sorted((arm.name for arm in found.arms), key=len, reverse=True)
    while name := next((name for name in names if re.match(re.escape(name) + r"(?=[,;: ])", rest)), None):
        rest, num_arms = rest.removeprefix(name), num_arms + 1
        if not rest.startswith((", ", "; ")):
            break
        rest = rest[2:]
    if not num_arms:
        return _Warning(text, 0)
    rest = rest.removeprefix(":").strip()
    for singular, plural in _PLURAL.items():
        rest = re.sub(singular, plural, rest)
    return _Warning(f"They {rest}" if rest.startswith(("have ", "are ")) else rest[:1].upper() + rest[1:], num_arms)
