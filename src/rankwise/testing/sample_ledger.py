"""A small made-up study with its runs and all that training tells of them: for tests of what stores or reads a ledger.

Every number is a fixed function of arm, seed and learning rate; nothing is trained.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rankwise.allocation.rank_map import Scaling
from rankwise.ledger import Ledger
from rankwise.records import (
    Answered,
    Evaluated,
    RanksRevised,
    Record,
    RunAllocated,
    RunAudited,
    RunDiverged,
    RunFinished,
    SiteAllocation,
    SiteOutcome,
    Split,
    StepDone,
    StepTrace,
    WrittenAnswer,
)
from rankwise.streams import stream
from rankwise.study.config import Arm, BaseSettings, BudgetSettings, CompareSettings, DataSettings, Study, TrainSettings
from rankwise.study.plan import report_runs, tuning_runs
from rankwise.study.runs import Purpose, Run

Value = TypeVar("Value")

RATES = (1e-3, 3e-3)
RANKS = {"uniform": (4, 4), "linear_decay": (6, 2), "random": (3, 5)}
"""Of two sites, and of each further two the same, per strategy."""
REVISIONS = {"linear_decay": {2: (5, 3), 4: (6, 2)}}
"""Step -> ranks, of the strategy that here plays the one that moves them."""
SIGNAL = "RMS gradient (nats per unit weight)"
SIGNALS = {"linear_decay": (0.75, 0.25)}
"""Of the two sites, of the strategy that here also plays one that measures."""


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """How much each run has to tell."""

    num_layers: int = 2
    modules: tuple[str, ...] = ("self_attn.q_proj",)
    """Adapted layers of each block; `num_layers` times their number is even."""
    num_steps: int = 8
    steps_per_trace: int = 1
    num_examples: int = 6

    @property
    def num_sites(self) -> int:
        return self.num_layers * len(self.modules)

    def each(self, pair: tuple[Value, Value]) -> tuple[Value, ...]:
        """What two sites have, repeated for all."""
        return pair * (self.num_sites // 2)


SMALL = SampleSize()


def sample_study(name: str = "sample", arms: Sequence[str] = ("uniform", "linear_decay", "random")) -> Study:
    return Study(
        name=name,
        hypothesis="Where the ranks are makes a difference.",
        arms=tuple(sample_arm(strategy) for strategy in arms),
        seeds=(0, 1, 2),
        tuning_seeds=(1000,),
        compare=CompareSettings(),
    )


def sample_arm(strategy: str, *, name: str | None = None, **settings: Any) -> Arm:
    return Arm(
        name=name or strategy,
        strategy=strategy,
        strategy_settings=settings,
        base=BaseSettings(),
        data=DataSettings(),
        targets="all-linear",
        budget=BudgetSettings(rank=4),
        train=TrainSettings(learning_rates=RATES),
        scaling=Scaling(),
        init="kaiming",
        dropout=0.0,
    )


def sample_runs(study: Study, *, base_fingerprint: str = "base", rate: float = RATES[0]) -> list[tuple[Run, Purpose]]:
    """Tuning runs, then reported ones at `rate`."""
    fingerprints = {arm.name: (base_fingerprint, "data") for arm in study.arms}
    chosen = {arm.name: rate for arm in study.arms}
    planned = [*tuning_runs(study, fingerprints), *report_runs(study, chosen, fingerprints)]
    return [(plan.run, plan.purpose) for plan in planned]


def run_records(run: Run, *, score_test: bool = True, size: SampleSize = SMALL) -> list[Record]:
    """What a run that finishes tells."""
    training = _training_records(run, size.num_steps, size)
    scores = _final_scores(run, score_test, size)
    return [*training, *scores, _audited(run, size), _finished(run, "finished", size.num_steps)]


def diverged_records(run: Run, step: int = 5) -> list[Record]:
    """What a run tells whose loss stops being finite at `step`."""
    *before, last, _ = _training_records(run, step, SMALL)
    assert isinstance(last, StepDone)
    broken = StepDone(**{**vars(last), "loss_nats": float("nan"), "grad_norm": float("inf")})
    diverged = RunDiverged(run_id=run.id, step=step, cause="the loss is not a number")
    return [*before, broken, diverged, _finished(run, "diverged", step)]


def write_sample(ledger: Ledger) -> Study:
    """A study with a run in every state: all finished but the last arm's (diverged, failed, pending)."""
    study = sample_study()
    runs = sample_runs(study)
    worker = "machine:1:0"  # the same everywhere, and of no machine
    ledger.register_study(study, runs)
    ledger.set_environment(study.name, {"torch": "2.13.0", "device": "cpu", "command": "rankwise study sample.yaml"})
    ledger.set_data_summary(study.name, {"test": {"num_examples": SMALL.num_examples, "excluded": {"too_long": 1}}})
    ledger.set_chosen_learning_rates(study.name, {arm.name: RATES[0] for arm in study.arms})
    *finished, diverged, failed, _ = [run.id for run, _ in runs]
    ledger.claim([*finished, diverged, failed], worker)
    for run, purpose in runs[: len(finished)]:
        ledger.write(run_records(run, score_test=purpose == "report"), worker)
    ledger.write(diverged_records(runs[-3][0]), worker)
    ledger.mark_failed(failed, "OutOfMemoryError: 43.1 GiB wanted")
    return study


def _training_records(run: Run, steps: int, size: SampleSize) -> Iterator[Record]:
    """The allocation, the validation loss before training, and the steps."""
    measured = SIGNALS.get(run.arm.strategy)
    signals = size.each(measured) if measured else (None,) * size.num_sites
    ranks = size.each(RANKS[run.arm.strategy])
    sites = tuple(_site(i, rank, signal, size) for i, (rank, signal) in enumerate(zip(ranks, signals, strict=True)))
    params, budget_params = sum(site.params for site in sites), 65 * len(sites)
    yield RunAllocated(
        run_id=run.id,
        sites=sites,
        budget_params=budget_params,
        params=params,
        residual_params=budget_params - params,
        probe_wall_s=0.5,
        probe_peak_memory_bytes=200 * 2**20,
        signal=SIGNAL if measured else None,
    )
    yield _evaluated(run, "validation", 0, size)
    for step in range(1, steps + 1):
        yield StepDone(
            run_id=run.id,
            step=step,
            num_steps=size.num_steps,
            loss_nats=3.0 / step + 0.1 * run.seed,
            grad_norm=1.0 / step,
            learning_rate=run.learning_rate * (1 - step / size.num_steps),
            num_tokens=100 + step,
        )
        if moved := REVISIONS.get(run.arm.strategy, {}).get(step):
            yield RanksRevised(run_id=run.id, step=step, ranks=size.each(moved))
        if step % size.steps_per_trace == 0:
            yield StepTrace(
                run_id=run.id,
                step=step,
                groups=("attention.early", "attention.late"),
                grad_norms=(0.8 / step, 0.6 / step),
                update_norms=(0.2 / step, 0.1 / step),
                weight_norms=(0.2 * step, 0.1 * step),
            )


def _site_name(index: int, size: SampleSize) -> str:
    layer, module = divmod(index, len(size.modules))
    return f"model.layers.{layer}.{size.modules[module]}"


def _site(index: int, rank: int, signal: float | None, size: SampleSize) -> SiteAllocation:
    name = _site_name(index, size)
    return SiteAllocation(
        site=name,
        kind="mlp" if ".mlp." in name else "attention",
        layer=index // len(size.modules),
        in_features=8,
        out_features=8,
        planned_rank=rank,
        realised_rank=rank,
        scale=16 / rank,
        params=rank * 16,
        lr_factor_up=2.0,
        signal=signal,
    )


def _audited(run: Run, size: SampleSize) -> RunAudited:
    ranks, num_revisions = size.each(RANKS[run.arm.strategy]), len(REVISIONS.get(run.arm.strategy, {}))
    sites = tuple(
        SiteOutcome(
            site=_site_name(index, size),
            rank=rank,
            scale=16 / rank,
            params=rank * 16,
            num_unmoved=index,
            num_revisions=num_revisions,
        )
        for index, rank in enumerate(ranks)
    )
    stored = sum(site.params for site in sites)
    return RunAudited(run_id=run.id, sites=sites, params=stored, held_params=stored)


def _final_scores(run: Run, score_test: bool, size: SampleSize) -> list[Record]:
    if not score_test:
        return [_evaluated(run, "validation", size.num_steps, size)]
    splits: tuple[Split, ...] = ("validation", "test", "general")
    at_the_end = (_evaluated(run, split, size.num_steps, size) for split in splits)
    return [_evaluated(run, "general", 0, size), *at_the_end, _answered(run, size)]


def _answered(run: Run, size: SampleSize) -> Answered:
    """Every other answer is right."""
    answers = tuple(
        WrittenAnswer(
            question=f"What is {index} + {run.seed}?",
            expected=str(index + run.seed),
            written=str(index + run.seed) if index % 2 else "I do not know.",
            num_tokens=2 + index,
            exact_match=bool(index % 2),
            rouge_l=float(index % 2),
            chrf=1.0 if index % 2 else 0.125,
        )
        for index in range(size.num_examples)
    )
    fingerprint = f"data-{run.seed}"
    return Answered(run_id=run.id, split="test", step=size.num_steps, data_fingerprint=fingerprint, answers=answers)


def _evaluated(run: Run, split: Split, step: int, size: SampleSize) -> Evaluated:
    tokens_E = np.arange(1, size.num_examples + 1, dtype=np.int64)
    ease_E = stream(run.seed, split, run.arm.name, step).uniform(0.9, 1.1, size.num_examples)
    loss_E = tokens_E * ease_E * (4.0 if step == 0 else 2.0)
    return Evaluated(
        run_id=run.id,
        split=split,
        step=step,
        loss_nats=float(loss_E.sum() / tokens_E.sum()),
        token_accuracy=0.25,
        num_examples=size.num_examples,
        num_answer_tokens=int(tokens_E.sum()),
        calibration_error=0.125,
        example_loss_nats=loss_E,
        example_answer_tokens=tokens_E,
        example_correct_tokens=tokens_E // 2,
    )


def _finished(run: Run, status: str, steps: int) -> RunFinished:
    return RunFinished(
        run_id=run.id,
        status="finished" if status == "finished" else "diverged",
        steps=steps,
        wall_s=12.5,
        peak_memory_bytes=300 * 2**20,
        pack_slots=3,
        predicted_memory_bytes=280 * 2**20,
        predicted_wall_s=11.0,
        micro_tokens=2048,
        pack_id="0123456789abcdef",
        tokens=100 * steps,
        padding_tokens=steps,
    )
