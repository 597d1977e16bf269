"""What a study would train, in which packs, at what cost, and what it can show. Trains nothing and reads no weights.

Tuning runs are known exactly. Reported runs depend on the learning rates that tuning is going to choose, so those of a
tuned arm have no learning rate and no id yet; everything that memory and time depend on is known for them all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rankwise.errors import ModelError
from rankwise.execution.detectable import Detectable, judge_detectable
from rankwise.execution.duration import DurationPredictor
from rankwise.execution.packing import SizedRun, cut_packs, estimate_memory
from rankwise.execution.sizing import size_runs
from rankwise.execution.workbench import Workbench
from rankwise.ledger.results import StudyResults
from rankwise.models.fingerprint import fingerprint_base
from rankwise.models.source import EMBEDDED, INDEX_FILE
from rankwise.packing.memory import MemoryEstimate
from rankwise.study.config import Arm, BaseSettings, Study
from rankwise.study.plan import Fingerprints, PlannedRun, report_runs, tuning_runs
from rankwise.study.runs import Purpose
from rankwise.training.engine import EngineOptions

UNKNOWN = "unknown"
"""Stands for the fingerprint of a base model whose weights are not on this machine."""
WEIGHT_FILES = ("model.safetensors", INDEX_FILE)
"""A repository in the hub's cache has one of them once its weights have been downloaded."""
PURPOSES: tuple[Purpose, ...] = ("tuning", "report")
"""In the order in which they are trained."""


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """How an arm spends its budget. Ranks and what follows from them are None where they are measured first."""

    name: str
    strategy: str
    targets: str
    num_sites: int
    budget_params: int
    params: int | None
    residual_params: int | None
    min_rank: int | None
    max_rank: int | None


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
    memory: MemoryEstimate
    wall_s: float

    def to_dict(self) -> dict[str, Any]:
        predicted = {"memory_bytes": self.memory.total_bytes, "wall_s": self.wall_s}
        terms = {f"{name}_bytes": size for name, size in self.memory.terms().items()}
        return {
            "purpose": self.purpose,
            "runs": list(self.runs),
            "num_steps": self.num_steps,
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
    """What could not be known, a sentence each."""

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


def plan_study(
    study: Study,
    bench: Workbench,
    *,
    engine: EngineOptions,
    limit_bytes: int | None,
    max_slots: int,
    earlier: StudyResults | None = None,
) -> StudyPlan:
    """The runs and packs of `study` on this machine.

    Of the base models only config.json and the tokenizer are read; where the weights are here as well, they are hashed
    for the runs' ids. No weights are downloaded.

    Args:
        limit_bytes: Memory that a pack may fill; None for no limit.
        max_slots: Most runs of a pack.
        earlier: What a ledger holds of a study of the same name, for the detectable difference.

    Raises:
        ModelError, DataError, AllocationError: an arm cannot be realised on its base model and data.
        PackError: a run alone does not fit the limit.
    """
    fingerprints, notes = _find_fingerprints(study, bench)
    sized = size_runs(_planned_runs(study, fingerprints), bench, engine)
    arms = {arm.name: _plan_arm(arm, sized) for arm in study.arms}
    distinct = _distinct(sized)
    if len(distinct) < len(sized):
        notes.append(
            f"{len(sized) - len(distinct)} runs serve two arms of the same specification, and are trained once."
        )
    place_of = {id(run): place for place, run in enumerate(distinct)}
    predictor = DurationPredictor(bench)
    packs = [
        PackPlan(
            purpose=purpose,
            runs=tuple(place_of[id(run)] for run in pack.items),
            num_steps=max(run.num_steps for run in pack.items),
            memory=estimate_memory(pack.items),
            wall_s=predictor.predict_s(pack.items),
        )
        for purpose in PURPOSES
        for pack in cut_packs(_of(purpose, distinct), limit_bytes=limit_bytes, max_slots=max_slots)
    ]
    return StudyPlan(
        study=study.name,
        hypothesis=study.hypothesis,
        arms=tuple(arms.values()),
        runs=tuple(_plan_run(run, arms) for run in distinct),
        packs=tuple(packs),
        detectable=judge_detectable(study, earlier),
        notes=tuple(notes),
    )


def _find_fingerprints(study: Study, bench: Workbench) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Fingerprints of base and data per arm; and a sentence for each base that has none."""
    found = {arm.base: _find_fingerprint(arm.base) for arm in study.arms}
    notes = [
        f"Ids of runs are not known where the weights are missing. {problem}"
        for _, problem in found.values()
        if problem
    ]
    return {arm.name: (found[arm.base][0], bench.data(arm).fingerprint) for arm in study.arms}, list(
        dict.fromkeys(notes)
    )


def _find_fingerprint(base: BaseSettings) -> tuple[str, str | None]:
    """The fingerprint, or UNKNOWN and why; a plan downloads no weights."""
    if base.model != EMBEDDED and not Path(base.model).expanduser().is_dir():
        cached = [try_to_load_from_cache(base.model, name, revision=base.revision) for name in WEIGHT_FILES]
        if not any(isinstance(path, str) for path in cached):
            return UNKNOWN, f"base.model: {base.model} has not been downloaded yet; training will do so."
    try:
        return fingerprint_base(base), None
    except ModelError as error:
        return UNKNOWN, str(error)


def _planned_runs(study: Study, fingerprints: Fingerprints) -> list[PlannedRun]:
    """Tuning runs, then reported ones. Those of a tuned arm have the first candidate as learning rate."""
    rates = {arm.name: arm.train.learning_rates[0] for arm in study.arms}
    return [*tuning_runs(study, fingerprints), *report_runs(study, rates, fingerprints)]


def _distinct(sized: Sequence[SizedRun]) -> list[SizedRun]:
    """Each run once, though two arms may plan it. What is yet to be chosen is the same only among equal candidates."""
    first: dict[tuple[str, tuple[float, ...] | None], SizedRun] = {}
    for run in sized:
        train = run.planned.run.arm.train
        candidates = train.learning_rates if run.planned.purpose == "report" else None
        first.setdefault((run.planned.run.id, candidates), run)
    return list(first.values())


def _of(purpose: Purpose, sized: Sequence[SizedRun]) -> list[SizedRun]:
    return [run for run in sized if run.planned.purpose == purpose]


def _plan_arm(arm: Arm, sized: Sequence[SizedRun]) -> ArmPlan:
    rank_map = next(run.rank_map for run in sized if run.planned.run.arm.name == arm.name)
    is_known = not arm.build_strategy().required_signals()
    return ArmPlan(
        name=arm.name,
        strategy=arm.strategy,
        targets=arm.targets if isinstance(arm.targets, str) else ", ".join(arm.targets),
        num_sites=len(rank_map.sites),
        budget_params=rank_map.budget_params,
        params=rank_map.params if is_known else None,
        residual_params=rank_map.residual_params if is_known else None,
        min_rank=min(rank_map.ranks) if is_known else None,
        max_rank=max(rank_map.ranks) if is_known else None,
    )


def _plan_run(sized: SizedRun, arms: Mapping[str, ArmPlan]) -> RunPlan:
    run, purpose = sized.planned.run, sized.planned.purpose
    has_rate = purpose == "tuning" or len(run.arm.train.learning_rates) == 1
    return RunPlan(
        id=run.id if has_rate and run.base_fingerprint != UNKNOWN else None,
        purpose=purpose,
        arm=arms[run.arm.name],
        learning_rate=run.learning_rate if has_rate else None,
        seed=run.seed,
        num_steps=sized.num_steps,
    )
