"""What a study would train, in which packs, at what cost, and what it can show. Trains nothing and reads no weights.

Tuning runs are known exactly. Reported runs depend on the learning rates that tuning is going to choose, so those of a
tuned arm have no learning rate and no id yet; everything that memory and time depend on is known for them all the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rankwise.errors import ModelError
from rankwise.execution.benchmarking import check_benchmarks
from rankwise.execution.detectable import judge_detectable
from rankwise.execution.duration import DurationPredictor
from rankwise.execution.packing import SizedRun, cut_packs, estimate_memory, micro_tokens_of
from rankwise.execution.pilot import Pilot
from rankwise.execution.sizing import size_runs
from rankwise.execution.study_plan import ArmPlan, PackPlan, RunPlan, StudyPlan
from rankwise.execution.workbench import Workbench
from rankwise.models.fingerprint import fingerprint_base
from rankwise.models.source import locate_base
from rankwise.reporting.audit import scaling_in_words
from rankwise.study.config import Arm, Study
from rankwise.study.plan import Fingerprints, PlannedRun, report_runs, tuning_runs
from rankwise.study.runs import Purpose
from rankwise.training.engine import EngineOptions

UNKNOWN = "unknown"
"""Begins what stands for the fingerprint of a base model whose weights are not on this machine."""
PURPOSES: tuple[Purpose, ...] = ("tuning", "report")
"""In the order in which they are trained."""


def plan_study(
    study: Study,
    bench: Workbench,
    *,
    engine: EngineOptions,
    limit_bytes: int | None,
    max_slots: int,
    earlier: Pilot | None = None,
) -> StudyPlan:
    """The runs and packs of `study` on this machine.

    Of the base models only config.json and the tokenizer are read; where the weights are here as well, they are hashed
    for the runs' ids. No weights are downloaded.

    Args:
        limit_bytes: Memory that a pack may fill; None for no limit.
        max_slots: Most runs of a pack.
        earlier: An earlier study that says how far seeds differ, for the detectable difference.

    Raises:
        ModelError, DataError, AllocationError: an arm cannot be realised on its base model and data.
        PackError: a run alone does not fit the limit.
    """
    check_benchmarks(study)
    fingerprints, notes = _find_fingerprints(study, bench)
    sized = size_runs(_planned_runs(study, fingerprints), bench, engine)
    arms = {arm.name: _plan_arm(arm, sized) for arm in study.arms}
    distinct, shared = _distinct(sized)
    place_of = {id(run): place for place, run in enumerate(distinct)}
    predictor = DurationPredictor(bench)
    packs = [
        PackPlan(
            purpose=purpose,
            runs=tuple(place_of[id(run)] for run in pack.items),
            num_steps=max(run.num_steps for run in pack.items),
            micro_tokens=micro_tokens_of(pack.items),
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
        notes=(*notes, *shared, *_benchmarks(study)),
    )


def _benchmarks(study: Study) -> Iterator[str]:
    if study.benchmarks:
        labels = ", ".join(benchmark.label for benchmark in study.benchmarks)
        yield (
            f"Benchmarks after training, on {len(study.arms) * len(study.seeds)} adapters and the base alone: "
            f"{labels}. Their time is not predicted."
        )


def _find_fingerprints(study: Study, bench: Workbench) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Fingerprints of base and data per arm; and a sentence for each base that has none."""
    bases, notes = {}, []
    for base in dict.fromkeys(arm.base for arm in study.arms):
        folder = locate_base(base, "config")
        try:
            # Of a hub model this is its folder in the cache, and nothing that is missing there is downloaded.
            locate_base(base.model_copy(update={"model": str(folder), "revision": None}), "weights")
            bases[base] = fingerprint_base(base)
        except ModelError as error:
            bases[base] = f"{UNKNOWN} {base.model}@{base.revision}"
            notes.append(
                f"The weights of {base.model} are not here, so the ids of its runs cannot be known; those of a hub "
                f"model are downloaded when it is trained. {error}"
            )
    return {arm.name: (bases[arm.base], bench.data(arm).fingerprint) for arm in study.arms}, notes


def _planned_runs(study: Study, fingerprints: Fingerprints) -> list[PlannedRun]:
    """Tuning runs, then reported ones. Those of a tuned arm have the first candidate as learning rate."""
    rates = {arm.name: arm.train.learning_rates[0] for arm in study.arms}
    return [*tuning_runs(study, fingerprints), *report_runs(study, rates, fingerprints)]


def _distinct(sized: Sequence[SizedRun]) -> tuple[list[SizedRun], list[str]]:
    """Each run once, though two arms may plan it; and a sentence for each pair of arms that share runs.

    Of tuned arms, the reported runs are the same only if both choose among the same candidates.
    """
    first: dict[tuple[str, tuple[float, ...] | None], SizedRun] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    for run in sized:
        arm = run.planned.run.arm
        candidates = arm.train.learning_rates if run.planned.purpose == "report" else None
        kept = first.setdefault((run.planned.run.id, candidates), run)
        if kept is not run:
            pairs[arm.name, kept.planned.run.arm.name] += 1
    notes = [
        f"{num} runs of arm {name} are also those of {other}: trained once." for (name, other), num in pairs.items()
    ]
    return list(first.values()), notes


def _of(purpose: Purpose, sized: Sequence[SizedRun]) -> list[SizedRun]:
    return [run for run in sized if run.planned.purpose == purpose]


def _plan_arm(arm: Arm, sized: Sequence[SizedRun]) -> ArmPlan:
    rank_map = next(run.rank_map for run in sized if run.planned.run.arm.name == arm.name)
    scales = [scale for rank, scale in zip(rank_map.ranks, rank_map.scales, strict=True) if rank] or [0.0]
    strategy = arm.build_strategy()
    moves_ranks = strategy.mover() is not None
    is_known = not strategy.required_signals() and not moves_ranks
    return ArmPlan(
        name=arm.name,
        strategy=arm.strategy,
        targets=arm.targets if isinstance(arm.targets, str) else ", ".join(arm.targets),
        init=arm.init,
        scaling=scaling_in_words(arm.scaling.model_dump()),
        num_sites=len(rank_map.sites),
        budget_params=rank_map.budget_params,
        params=rank_map.params if is_known else None,
        residual_params=rank_map.residual_params if is_known else None,
        held_params=rank_map.held_params,
        moves_ranks=moves_ranks,
        min_rank=min(rank_map.ranks) if is_known else None,
        max_rank=max(rank_map.ranks) if is_known else None,
        min_scale=min(scales) if is_known else None,
        max_scale=max(scales) if is_known else None,
    )


def _plan_run(sized: SizedRun, arms: Mapping[str, ArmPlan]) -> RunPlan:
    run, purpose = sized.planned.run, sized.planned.purpose
    has_rate = purpose == "tuning" or len(run.arm.train.learning_rates) == 1
    return RunPlan(
        id=run.id if has_rate and not run.base_fingerprint.startswith(UNKNOWN) else None,
        purpose=purpose,
        arm=arms[run.arm.name],
        learning_rate=run.learning_rate if has_rate else None,
        seed=run.seed,
        num_steps=sized.num_steps,
    )
