"""A study's plan as plain values: what reports and JSON are made of."""

from dataclasses import asdict, dataclass
from typing import Any

from rankwise.execution.detectable import Detectable
from rankwise.packing.memory import MemoryEstimate
from rankwise.study.runs import Purpose


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """How an arm spends its budget. Ranks and what follows from them are None where they are measured first, or move
    while training."""

    name: str
    strategy: str
    targets: str
    init: str
    scaling: str
    """The rule in words, such as `alpha / r, alpha 16`."""
    num_sites: int
    budget_params: int
    params: int | None
    residual_params: int | None
    held_params: int
    """Adapter parameters that memory is held for while training; above the budget where a dynamic strategy starts wide
    or may grow."""
    moves_ranks: bool
    """Whether ranks move while training: what is stored at the end is the budget up to less than one component."""
    min_rank: int | None
    max_rank: int | None
    min_scale: float | None
    """Smallest factor of a site that has components."""
    max_scale: float | None


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One run to train."""

    id: str | None
    """None: it depends on a choice of learning rate, or on weights that are not here."""
    purpose: Purpose
    arm: ArmPlan
    learning_rate: float | None
    """None: still to be chosen."""
    seed: int
    num_steps: int

    def to_dict(self) -> dict[str, Any]:
        arm = asdict(self.arm)
        named = {"id": self.id, "purpose": self.purpose, "arm": arm.pop("name"), "strategy": arm.pop("strategy")}
        return named | {"learning_rate": self.learning_rate, "seed": self.seed, "num_steps": self.num_steps} | arm


@dataclass(frozen=True, kw_only=True)
class PackPlan:
    """Runs that would train side by side."""

    purpose: Purpose
    runs: tuple[int, ...]
    """Places in `StudyPlan.runs`."""
    num_steps: int
    """Of the longest run."""
    micro_tokens: int
    """Padded tokens of one training pass, by the width of the model."""
    memory: MemoryEstimate
    wall_s: float

    def to_dict(self) -> dict[str, Any]:
        predicted = {"memory_bytes": self.memory.total_bytes, "wall_s": self.wall_s}
        terms = {f"{name}_bytes": size for name, size in self.memory.terms().items()}
        return {
            "purpose": self.purpose,
            "runs": list(self.runs),
            "num_steps": self.num_steps,
            "micro_tokens": self.micro_tokens,
            "predicted": predicted,
            "memory_terms": terms,
        }


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All that is known of a study before it is trained."""

    study: str
    hypothesis: str
    arms: tuple[ArmPlan, ...]
    runs: tuple[RunPlan, ...]
    packs: tuple[PackPlan, ...]
    """In the order in which they would be trained."""
    detectable: Detectable
    notes: tuple[str, ...]
    """What could not be known, and which runs arms share: a sentence each."""

    @property
    def largest_pack(self) -> PackPlan:
        """The one that needs the most memory."""
        return max(self.packs, key=lambda pack: pack.memory.total_bytes)

    @property
    def wall_s(self) -> float:
        """An estimate: counted operations at a share of the speed measured now."""
        return sum(pack.wall_s for pack in self.packs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "study": self.study,
            "num_runs": len(self.runs),
            "num_packs": len(self.packs),
            "minimum_detectable_nats": self.detectable.minimum_nats,
            "predicted": {"memory_bytes": self.largest_pack.memory.total_bytes, "wall_s": self.wall_s},
            "runs": [run.to_dict() for run in self.runs],
            "packs": [pack.to_dict() for pack in self.packs],
        }
