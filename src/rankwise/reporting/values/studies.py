"""All arms of a study against its baseline, and how far the study and its predictions can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankwise.reporting.values.arms import ArmComparison
from rankwise.reporting.values.designs import Factorial, Ordering, Sweep


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """What benchmarks said of a base model alone."""

    model: str
    form: str
    """How it is quantized, or `none`."""
    arms: tuple[str, ...]
    """That stand on it."""
    scores: Mapping[str, float]
    """Named as those of arms."""


@dataclass(frozen=True, kw_only=True)
class FlawCheck:
    """One known flaw of comparing rank allocations, judged for this study by what its ledger holds."""

    flaw: str
    """What others did, in words."""
    is_avoided: bool | None
    """None: there is nothing yet to judge it by."""
    evidence: str
    """Numbers, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """How far what was predicted of packs was from what they then took: predicted / measured - 1, as fractions."""

    num_packs: int
    median_frac: float
    """Of the errors without their signs."""
    largest_frac: float
    """The one farthest from 0, with its sign."""
    study_frac: float
    """Of all these packs as one: of memory the largest, of time the sum."""


@dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """All arms of a study against its baseline."""

    study: str
    hypothesis: str
    baseline: str
    level: float
    equivalence_nats: float
    num_seeds: int
    """Declared by the study."""
    family: tuple[str, ...]
    """Arms whose p-values were adjusted together."""
    arms: tuple[ArmComparison, ...]
    minimum_detectable_nats: float | None
    """The median of the comparisons' own; None where none could show anything."""
    factorial: Factorial | None
    """None where arms do not vary two factors at once."""
    ordering: Ordering | None
    """None where no two seeds finished in three arms of equal conditions."""
    flaws: tuple[FlawCheck, ...]
    """In the order of docs/reading-the-report.md."""
    memory_prediction: PredictionError | None
    """None where no pack of finished runs is known with what was predicted of it."""
    time_prediction: PredictionError | None
    sweeps: tuple[Sweep, ...]
    """Settings that some of the arms vary one at a time; empty in a study of allocations."""
    base_scores: tuple[BaseScores, ...]
    """Of the bases alone; empty where no benchmark was asked for."""
    warnings: tuple[str, ...]
    data_summary: Mapping[str, Any]
    """Counts of the prepared data: see `StudyResults`."""
    environment: Mapping[str, str]
    """Versions, device, processor and command of the last session that trained for this study."""

    def arm(self, name: str) -> ArmComparison:
        return next(arm for arm in self.arms if arm.name == name)
