"""Which arms fit the memory that the training of one adapter may use later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rankwise.errors import PackError
from rankwise.execution.packing import SizedRun, estimate_memory
from rankwise.execution.recommend.candidates import quantized
from rankwise.execution.sizing import size_runs
from rankwise.execution.workbench import Workbench
from rankwise.packing.memory import predict_memory
from rankwise.packing.passes import PassSize
from rankwise.reporting.format import format_bytes
from rankwise.study.config import Arm
from rankwise.study.plan import PlannedRun
from rankwise.study.runs import Run
from rankwise.training.engine import EngineOptions


@dataclass(frozen=True, kw_only=True)
class SizedArm:
    """An arm with what it stores and what its training needs."""

    arm: Arm
    params: int
    site_names: tuple[str, ...]
    ranks: tuple[int, ...] | None
    """None where they are measured first, or move."""
    solo_bytes: int
    """Predicted peak of training it alone."""

    @property
    def num_sites(self) -> int:
        return len(self.site_names)


def size_arm(arm: Arm, bench: Workbench, engine: EngineOptions) -> SizedArm:
    """Raises ModelError, AllocationError, DataError where the arm cannot be realised on its base model and data."""
    sized = _size(arm, bench, engine)
    strategy = arm.build_strategy()
    is_known = not strategy.required_signals() and strategy.mover() is None
    return SizedArm(
        arm=arm,
        params=sized.rank_map.params,
        site_names=tuple(site.name for site in sized.rank_map.sites),
        ranks=sized.rank_map.ranks if is_known else None,
        solo_bytes=_solo_bytes(sized),
    )


def _size(arm: Arm, bench: Workbench, engine: EngineOptions) -> SizedRun:
    run = Run(arm=arm, learning_rate=arm.train.learning_rates[0], seed=0, base_fingerprint="", data_fingerprint="")
    return size_runs([PlannedRun(run=run, purpose="report")], bench, engine)[0]


def _solo_bytes(sized: SizedRun, *, batch_size: int | None = None, longest: int | None = None) -> int:
    """One adapter in PEFT: the batch in one pass, padded, no prefix shared, logits at every position.

    Or one adapter in this engine, where that needs more: the race must fit as well.
    """
    rows = batch_size or sized.planned.run.arm.train.batch_size
    longest = longest or sized.data.longest_tokens
    elsewhere = predict_memory(
        sized.shape,
        [sized.rank_map],
        sized.activations,
        sized.working,
        training=[PassSize(num_rows=rows, own_tokens=longest, num_answers=rows * longest)],
        on_host=sized.on_host,
    )
    here = estimate_memory([sized]).total_bytes if batch_size is None else 0
    return max(elsewhere.total_bytes, here)


def race_engine(template: Arm, bench: Workbench) -> EngineOptions:
    """Passes no larger than one batch, for a race under a memory limit."""
    sized = _size(template, bench, EngineOptions())
    tokens = sized.data.longest_tokens * template.train.batch_size
    default = EngineOptions()
    return replace(default, micro_tokens=min(sized.micro_tokens, tokens), eval_tokens=min(default.eval_tokens, tokens))


def keep_fitting(
    arms: Sequence[SizedArm],
    limit_bytes: int | None,
    bench: Workbench,
    engine: EngineOptions,
    quantizations: Sequence[str],
) -> tuple[list[SizedArm], list[tuple[str, str]]]:
    """Each arm as it is or, where that does not fit, on the first quantized base that does; and who does not fit, why.

    Raises:
        PackError: nothing fits; says what would.
    """
    kept: list[SizedArm] = []
    left_out = []
    for sized in arms:
        forms = [sized, *(size_arm(quantized(sized.arm, name), bench, engine) for name in quantizations)]
        fitting = next((form for form in forms if limit_bytes is None or form.solo_bytes <= limit_bytes), None)
        if fitting is not None:
            kept.append(fitting)
        else:
            needed = format_bytes(min(form.solo_bytes for form in forms))
            left_out.append((sized.arm.name, f"its training is predicted to need {needed}"))
    if not kept and limit_bytes is not None:
        raise PackError(_what_would_fit(arms, limit_bytes, bench, engine))
    return kept, left_out


def _checkpointed_way(sized: SizedRun) -> dict[str, int]:
    """Gradient checkpointing with what it would bring the need to; empty where it is on, or cannot be."""
    if sized.checkpointed is None or sized.planned.run.arm.train.gradient_checkpointing:
        return {}
    activations, micro_tokens = sized.checkpointed
    return {"--gradient-checkpointing": _solo_bytes(replace(sized, activations=activations, micro_tokens=micro_tokens))}


def _what_would_fit(arms: Sequence[SizedArm], limit_bytes: int, bench: Workbench, engine: EngineOptions) -> str:
    smallest = min(arms, key=lambda sized: sized.solo_bytes)
    sized = _size(smallest.arm, bench, engine)
    train = smallest.arm.train
    shorter = max(1, sized.data.longest_tokens // 2)
    packed = _size(quantized(smallest.arm, "nf4"), bench, engine)
    ways = {
        **_checkpointed_way(sized),
        "--batch-size 1": _solo_bytes(sized, batch_size=1),
        f"--batch-size 1 --max-tokens {shorter}": _solo_bytes(sized, batch_size=1, longest=shorter),
        "a 4-bit base with --batch-size 1 (the extra `quant`)": _solo_bytes(packed, batch_size=1),
    }
    told = ", ".join(f"{way} would need {format_bytes(size)}" for way, size in ways.items())
    return (
        f"--memory: no arm can be trained in {format_bytes(limit_bytes)}. The smallest, {smallest.arm.name} with "
        f"batches of {train.batch_size} sequences of up to {sized.data.longest_tokens} tokens, is predicted to need "
        f"{format_bytes(smallest.solo_bytes)}; {told}. Choose one that fits, a smaller base model, or allow more. "
        "Nothing was trained."
    )
