"""The figures of a report. Each function draws one, writes it as PNG, PDF and CSV, and returns what it wrote.

It returns None, and writes nothing, where there is nothing to show.
"""

from collections.abc import Callable
from pathlib import Path

from rankwise.ledger.results import StudyResults
from rankwise.reporting.figures.differences import draw_differences
from rankwise.reporting.figures.learning_curves import draw_learning_curves
from rankwise.reporting.figures.loss_against_params import draw_loss_against_params
from rankwise.reporting.figures.pareto import draw_pareto
from rankwise.reporting.figures.predictions import draw_predictions
from rankwise.reporting.figures.quantization_error import draw_quantization_error
from rankwise.reporting.figures.rank_maps import draw_rank_maps
from rankwise.reporting.figures.ranks_over_time import draw_ranks_over_time
from rankwise.reporting.figures.signals import draw_signals
from rankwise.reporting.figures.stability import draw_stability
from rankwise.reporting.figures.tuning import draw_tuning
from rankwise.reporting.style import FigureFiles
from rankwise.reporting.values import StudyComparison

FIGURES: dict[str, Callable[[StudyResults, StudyComparison, Path], FigureFiles | None]] = {
    "pareto": draw_pareto,
    "differences": draw_differences,
    "loss_against_params": draw_loss_against_params,
    "predictions": draw_predictions,
    "rank_maps": draw_rank_maps,
    "ranks_over_time": draw_ranks_over_time,
    "signals": draw_signals,
    "learning_curves": draw_learning_curves,
    "stability": draw_stability,
    "quantization_error": draw_quantization_error,
    "tuning": draw_tuning,
}
"""Name of the files -> the function that draws them."""

__all__ = ["FIGURES"]
