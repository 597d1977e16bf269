"""How a study is run on this machine, and how it says that it was stopped."""

from dataclasses import dataclass, field
from pathlib import Path

from rankwise.packing.packs import DEFAULT_MAX_SLOTS
from rankwise.training.engine import EngineOptions


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is run on this machine; nothing here changes a result beyond rounding."""

    out: Path
    """Holds checkpoints, and the results of a single study."""
    command: str = "rankwise study"
    max_slots: int = DEFAULT_MAX_SLOTS
    memory_bytes: int | None = None
    """Limit of one pack; None: what is free now, less a reserve."""
    num_workers: int = 1
    """How many processes share the study; none takes more than its share of the runs that are left."""
    solo_first: bool = False
    """Train each arm's first reported seed alone: its time and memory are then its own, not a share of a pack's."""
    engine: EngineOptions = field(default_factory=EngineOptions)


class StudyStopped(Exception):  # noqa: N818 - not an error: someone asked for it
    """The study was asked to stop; checkpoints are written and the same command goes on."""
