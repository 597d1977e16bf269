"""Which arms a figure shows where a study has more than it can hold.

A hundred panels take minutes to lay out and cannot be told apart in print. Tables, page and data files have every arm;
the drawing has the baseline and those that lost least.
"""

import math
from collections.abc import Iterable, Mapping

from rankwise.reporting.values import StudyComparison

_PANELS, _ROWS = 24, 48
MOST_ARMS: Mapping[str, int] = {
    "rank_maps": _PANELS,
    "learning_curves": _PANELS,
    "stability": _PANELS,
    "tuning": _PANELS,
    "signals": _PANELS,
    "ranks_over_time": _PANELS,
    "differences": _ROWS,
    "loss_against_params": _ROWS,
    "pareto": _ROWS,
}
"""Name of a figure -> the arms it has room for: fewer where each has a panel or a line than where it has a row or a
point."""


def shown_arms(comparison: StudyComparison, figure: str, names: Iterable[str]) -> frozenset[str]:
    """Those of the arms `names` that fit: the baseline and those of lowest test loss, arms without a score last."""
    wanted = set(names)
    arms = [arm for arm in comparison.arms if arm.name in wanted]
    arms.sort(key=lambda arm: (not arm.is_baseline, arm.test_loss.value if arm.test_loss else math.inf))
    return frozenset(arm.name for arm in arms[: MOST_ARMS[figure]])


def crowd_note(comparison: StudyComparison, figure: str) -> str:
    """What a caption says of the arms that are not shown; empty where all fit."""
    most = MOST_ARMS.get(figure, len(comparison.arms))
    if len(comparison.arms) <= most:
        return ""
    return (
        f" At most {most} of the {len(comparison.arms):,} arms are shown: {comparison.baseline} and those of lowest "
        "test loss; the data hold all."
    )
