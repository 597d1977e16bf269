"""Planned runs into packs for this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.allocation.rank_map import RankMap
from rankwise.data.prepare import PreparedData
from rankwise.packing.activations import ActivationSize
from rankwise.packing.memory import MemoryEstimate, ModelShape, predict_memory
from rankwise.packing.packs import DEFAULT_MAX_SLOTS, Pack, plan_packs
from rankwise.study.config import SUBTRACTED_INITS
from rankwise.study.plan import PlannedRun
from rankwise.training.order import BatchOrder

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.5, "fp4": 0.5}


@dataclass(frozen=True, kw_only=True)
class SizedRun:
    """A planned run with what its memory and length depend on."""

    planned: PlannedRun
    rank_map: RankMap
    """Exact for strategies that measure nothing; else a uniform map of the same budget stands in."""
    shape: ModelShape
    data: PreparedData
    activations: ActivationSize
    micro_tokens: int
    """Of one training pass; runs of a pack take the smallest among theirs."""
    eval_tokens: int
    on_host: bool

    @property
    def num_steps(self) -> int:
        train = self.planned.run.arm.train
        return BatchOrder(
            num_examples=len(self.data.train), batch_size=train.batch_size, epochs=train.epochs, seed=0
        ).num_steps

    @property
    def own_frac(self) -> float:
        """Share of the training tokens that are computed for each row, not once for a prefix."""
        total = sum(example.num_tokens for example in self.data.train)
        return 1 - sum(example.num_shared_tokens for example in self.data.train) / total

    @property
    def answer_frac(self) -> float:
        """Share of the rows' own tokens that are answer tokens."""
        own = sum(example.num_tokens - example.num_shared_tokens for example in self.data.train)
        return sum(example.num_answer_tokens for example in self.data.train) / own


def estimate_memory(runs: Sequence[SizedRun]) -> MemoryEstimate:
    """Predicted peak of training `runs` together, by cause."""
    movers = [run.planned.run.arm.build_strategy().mover() for run in runs]
    mechanics = [mover.mechanics() for mover in movers if mover is not None]
    longest = max(run.data.longest_tokens for run in runs)
    return predict_memory(
        runs[0].shape,
        [run.rank_map for run in runs],
        max((run.activations for run in runs), key=lambda size: size.of_token(longest)),
        micro_tokens=micro_tokens_of(runs),
        eval_tokens=runs[0].eval_tokens,
        step_rows=sum(run.planned.run.arm.train.batch_size for run in runs),
        scored_rows=sum(max(len(run.data.validation), len(run.data.test)) for run in runs),
        longest_tokens=longest,
        own_frac=min(run.own_frac for run in runs),
        answer_frac=max(run.answer_frac for run in runs),
        on_host=runs[0].on_host,
        num_measured=sum(one.importance == "sensitivity" for one in mechanics),
        has_gates=any(one.gate is not None for one in mechanics),
        subtracted=[run.rank_map for run in runs if run.planned.run.arm.init in SUBTRACTED_INITS],
    )


def micro_tokens_of(runs: Sequence[SizedRun]) -> int:
    """Tokens of a training pass of `runs` together: what suits the most demanding of them."""
    return min(run.micro_tokens for run in runs)


def cut_packs(
    runs: Sequence[SizedRun], *, limit_bytes: int | None, max_slots: int = DEFAULT_MAX_SLOTS
) -> list[Pack[SizedRun]]:
    """Packs of runs over the same base model, long runs first.

    Raises:
        PackError: one run alone does not fit.
    """
    return plan_packs(
        runs,
        group=lambda run: (run.planned.run.base_fingerprint, run.planned.run.arm.base.model_dump_json()),
        length=lambda run: run.num_steps,
        predict_bytes=lambda members: estimate_memory(members).total_bytes,
        limit_bytes=limit_bytes,
        max_slots=max_slots,
        name=_describe,
    )


def _describe(run: SizedRun) -> str:
    """In words, because a plan knows some runs before it knows their ids."""
    planned = run.planned.run
    return f"{planned.arm.name} (learning rate {planned.learning_rate:g}, seed {planned.seed})"
