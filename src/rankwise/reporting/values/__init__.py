"""What a comparison found: frozen, plain values that tables and figures are made from. Missing is None, never zero."""

from rankwise.reporting.values.arms import (
    ArmAudit,
    ArmComparison,
    ArmStability,
    SecondaryScore,
    SeedScore,
    SoloCost,
    TuningPoint,
)
from rankwise.reporting.values.designs import (
    Contrast,
    Factorial,
    InteractionEffect,
    MainEffect,
    MixedEffect,
    Ordering,
    SeedVariance,
    Sweep,
    SweepAxis,
)
from rankwise.reporting.values.estimates import Difference, Estimate, Range, Span
from rankwise.reporting.values.studies import BaseScores, FlawCheck, PredictionError, StudyComparison

__all__ = [
    "ArmAudit",
    "ArmComparison",
    "ArmStability",
    "BaseScores",
    "Contrast",
    "Difference",
    "Estimate",
    "Factorial",
    "FlawCheck",
    "InteractionEffect",
    "MainEffect",
    "MixedEffect",
    "Ordering",
    "PredictionError",
    "Range",
    "SecondaryScore",
    "SeedScore",
    "SeedVariance",
    "SoloCost",
    "Span",
    "StudyComparison",
    "Sweep",
    "SweepAxis",
    "TuningPoint",
]
