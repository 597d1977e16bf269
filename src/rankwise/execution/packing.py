"""Planned runs into packs for this machine."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rankwise.allocation.rank_map import RankMap
from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.data.prepare import PreparedData
from rankwise.evaluation.generation import cut_batches
from rankwise.execution.what_fits import describe_ways
from rankwise.packing.activations import ActivationSize
from rankwise.packing.memory import MemoryEstimate, ModelShape, predict_memory
from rankwise.packing.packs import DEFAULT_MAX_SLOTS, Pack, plan_packs
from rankwise.packing.passes import AnswerSize, PassSize, pass_sizes
from rankwise.packing.working import WorkingSize
from rankwise.study.config import SUBTRACTED_INITS
from rankwise.study.plan import PlannedRun
from rankwise.training.order import BatchOrder

SAMPLED_STEPS = 24
"""Optimizer steps whose passes are cut to learn how large they get; more change the largest by little."""


@dataclass(frozen=True, kw_only=True)
class SizedRun:
    """A planned run with what its memory and length depend on."""

    planned: PlannedRun
    rank_map: RankMap
    """Exact for strategies that measure nothing; else a uniform map of the same budget stands in."""
    shape: ModelShape
    data: PreparedData
    general: tuple[TokenizedExample, ...]
    """Text that is scored at the end of a reported run; empty where that is not asked for."""
    context: int
    """Most tokens that the base takes."""
    activations: ActivationSize
    working: WorkingSize
    checkpointed: tuple[ActivationSize, int] | None
    """`activations` and `micro_tokens` with gradient checkpointing, for what is said where the run does not fit; None
    where the model has no list of blocks."""
    micro_tokens: int
    """Of one training pass; runs of a pack take the smallest among theirs."""
    eval_tokens: int
    on_host: bool
    packed_shape: ModelShape
    """The base with its linear layers in 4 bits, for what is said where the run does not fit."""
    shares_prefixes: bool
    """Whether the model can compute what rows begin with once for all of them."""

    @property
    def _order(self) -> BatchOrder:
        train = self.planned.run.arm.train
        return BatchOrder(num_examples=len(self.data.train), batch_size=train.batch_size, epochs=train.epochs, seed=0)

    @property
    def num_steps(self) -> int:
        return self._order.num_steps

    def rows(self, slot: int, step: int) -> list[Row]:
        """Of one optimizer step, in the order of seed 0: what is predicted does not depend on the seed."""
        order = self._order
        chosen = [self.data.train[index] for index in order.batch(step % order.num_steps)]
        shares = self.shares_prefixes and not self.planned.run.arm.dropout
        return [
            Row(slot, example, position, example.num_shared_tokens if shares else 0)
            for position, example in enumerate(chosen)
        ]

    @property
    def writes_answers(self) -> bool:
        """Whether the test examples are answered at the end."""
        arm = self.planned.run.arm
        return arm.evaluate.generate and self.is_reported and self.data.examples["test"][0].has_prompt

    @property
    def is_reported(self) -> bool:
        return self.planned.purpose == "report"

    def scored_rows(self, slot: int, split: Literal["validation", "test", "general"] | None = None) -> list[Row]:
        """Of a split that is scored; None for the larger of validation and test."""
        data = self.data
        if split == "general":
            return [Row(slot, example) for example in self.general]
        examples = getattr(data, split) if split else max(data.validation, data.test, key=len)
        return [Row(slot, example, 0, example.num_shared_tokens if self.shares_prefixes else 0) for example in examples]


def estimate_memory(runs: Sequence[SizedRun]) -> MemoryEstimate:
    """Predicted peak of training `runs` together, by cause."""
    movers = [run.planned.run.arm.build_strategy().mover() for run in runs]
    mechanics = [mover.mechanics() for mover in movers if mover is not None]
    longest = max(run.data.longest_tokens for run in runs)
    return predict_memory(
        runs[0].shape,
        [run.rank_map for run in runs],
        max((run.activations for run in runs), key=lambda size: size.of_token(longest)),
        runs[0].working,
        training=[size for step in sampled_steps(runs) for size in training_passes(runs, step)],
        scoring=scoring_passes(runs),
        answers=answer_batches(runs),
        on_host=runs[0].on_host,
        num_measured=sum(one.importance == "sensitivity" for one in mechanics),
        has_gates=any(one.gate is not None for one in mechanics),
        subtracted=[run.rank_map for run in runs if run.planned.run.arm.init in SUBTRACTED_INITS],
    )


def sampled_steps(runs: Sequence[SizedRun]) -> list[int]:
    """Optimizer steps that stand for all: at most `SAMPLED_STEPS`, spread evenly over the longest run."""
    num_steps = max(run.num_steps for run in runs)
    num = min(SAMPLED_STEPS, num_steps)
    return [i * num_steps // num for i in range(num)]


def training_passes(runs: Sequence[SizedRun], step: int) -> list[PassSize]:
    """The passes of one optimizer step of all `runs`."""
    rows = [row for slot, run in enumerate(runs) for row in run.rows(slot, step)]
    return pass_sizes(rows, micro_tokens_of(runs))


def scoring_passes(runs: Sequence[SizedRun]) -> list[PassSize]:
    """The passes of scoring one split of all `runs`, and the general text of those that ask for it."""
    splits: list[list[Row]] = [[row for slot, run in enumerate(runs) for row in run.scored_rows(slot)]]
    splits.append([row for slot, run in enumerate(runs) if run.is_reported for row in run.scored_rows(slot, "general")])
    return [size for rows in splits for size in pass_sizes(rows, runs[0].eval_tokens)]


def answer_batches(runs: Sequence[SizedRun]) -> list[AnswerSize]:
    """The batches in which those of `runs` that write answers do so, runs of one data set together."""
    by_data: dict[str, list[SizedRun]] = defaultdict(list)
    for run in runs:
        if run.writes_answers:
            by_data[run.data.fingerprint].append(run)
    found = []
    for alike in by_data.values():
        first = alike[0]
        prompts = [example.input_ids[: example.num_prompt_tokens] for example in first.data.test] * len(alike)
        longest_answer = max(example.num_answer_tokens for example in first.data.test)
        for batch, num_new in cut_batches(prompts, longest_answer, first.context, first.eval_tokens):
            longest = max(len(prompts[place]) for place in batch)
            found.append(AnswerSize(num_rows=len(batch), prompt_tokens=longest, new_tokens=num_new))
    return found


def micro_tokens_of(runs: Sequence[SizedRun]) -> int:
    """Tokens of a training pass of `runs` together: what suits the most demanding of them."""
    return min(run.micro_tokens for run in runs)


def cut_packs(
    runs: Sequence[SizedRun], *, limit_bytes: int | None, max_slots: int = DEFAULT_MAX_SLOTS
) -> list[Pack[SizedRun]]:
    """Packs of runs over the same base model, with and without gradient checkpointing apart, long runs first.

    Raises:
        PackError: one run alone does not fit.
    """
    return plan_packs(
        runs,
        group=_group,
        length=lambda run: run.num_steps,
        predict_bytes=lambda members: estimate_memory(members).total_bytes,
        limit_bytes=limit_bytes,
        max_slots=max_slots,
        name=_describe,
        advise=lambda run, limit: describe_ways(run, limit, estimate_memory),
    )


def _group(run: SizedRun) -> tuple[str, str, bool]:
    """What the runs of a pack have in common."""
    arm = run.planned.run.arm
    return run.planned.run.base_fingerprint, arm.base.model_dump_json(), arm.train.gradient_checkpointing


def _describe(run: SizedRun) -> str:
    """In words, because a plan knows some runs before it knows their ids."""
    planned = run.planned.run
    return f"{planned.arm.name} (learning rate {planned.learning_rate:g}, seed {planned.seed})"
