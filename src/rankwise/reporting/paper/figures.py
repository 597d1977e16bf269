"""Figures of a paper: the drawings of the reports, with captions that stand by themselves."""

from collections.abc import Callable, Mapping

from rankwise.reporting.figures.crowd import crowd_note
from rankwise.reporting.paper.blocks import Figure
from rankwise.reporting.paper.sources import Source
from rankwise.reporting.predictions import NEAR_FRAC
from rankwise.reporting.values import StudyComparison

CAPTIONS: Mapping[str, Callable[[StudyComparison], str]] = {
    "differences": lambda found: (
        f"Difference in test loss to {found.baseline}, paired by seed: mean with {found.level:.0%} interval; small "
        f"dots are single seeds. Shaded: differences below {found.equivalence_nats:g} nats, practically nothing. "
        "Triangles point to the side of a significant difference."
    ),
    "pareto": lambda found: (
        f"Test loss against what an arm costs. Line: the front of means. Filled: on the front in almost every paired "
        f"resample of the seeds; half filled: in some; hollow: in few. Bars: {found.level:.0%} interval of the paired "
        f"difference to {found.baseline}, around the arm's mean."
    ),
    "loss_against_params": lambda found: (
        f"Test loss against adapter parameters: mean over seeds with {found.level:.0%} interval, which contains the "
        "luck that all arms share; whether arms differ is shown by the paired differences."
    ),
    "rank_maps": lambda found: (
        "Components at each adapted layer, on one colour scale. Where a map differs between seeds, the mean over the "
        "reported runs is shown. Hatched: no adapter there."
    ),
    "ranks_over_time": lambda _: (
        "Ranks over training of the strategies that move them: a row is a site, grouped by module and from the first "
        "layer (top) to the last; the mean over finished seeds. The last column is what is stored. One colour scale."
    ),
    "signals": lambda _: (
        "What each measuring strategy went by, against the rank that it gave, site by site. Large markers: means over "
        "seeds; small: single seeds. ρ: Spearman's rank correlation over sites, mean over seeds."
    ),
    "predictions": lambda _: (
        "Memory and time as they were predicted against what they then were, pack by pack, tuning included. Line: the "
        f"two are equal; shaded: within {NEAR_FRAC:.0%}. Measured time contains what else the machine did."
    ),
    "learning_curves": lambda found: (
        "Learning curves. Thin: training loss of each seed, smoothed. Markers: mean validation loss of the finished "
        f"seeds, with its pointwise {found.level:.0%} band. Dotted: validation loss of {found.baseline}. Cross: a run "
        "diverged."
    ),
    "tuning": lambda found: (
        "Validation loss at the end of training on the tuning seeds, which are not reported. Dots: single runs; line: "
        "mean; ring: the chosen learning rate; crosses at the top: rates at which a run diverged."
    ),
    "stability": lambda found: (
        "Median over seeds of the norm of the adapter gradient before clipping, of one optimizer step in the effective "
        "weights, and of all that training has added to the base; shaded: smallest to largest seed. Below: the step by "
        "kind of site and third of the depth. Cross: a run diverged."
    ),
}
"""Name of a report's figure -> its caption. A figure that is not named here gets its name as a caption."""

MAIN = ("differences", "pareto")
"""The figures of the main text; the others stand in the appendix."""
COST = "predictions"
"""Stands with what reproduces a study; of a paper about several, in each one's appendix."""


def figure_of(source: Source, name: str) -> Figure | None:
    """None where the report has no such figure."""
    if name not in source.figures:
        return None
    caption = CAPTIONS[name](source.comparison) if name in CAPTIONS else name.replace("_", " ").capitalize() + "."
    return Figure(
        name=f"{name.replace('_', '-')}-{source.slug}",
        caption=f"{source.comparison.study}: {caption}{crowd_note(source.comparison, name)}",
        pdf=source.figures[name],
    )
