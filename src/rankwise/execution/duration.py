"""How long a pack would take: counted operations at a share of the matrix-product speed measured here and now."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rankwise.execution.packing import SizedRun
from rankwise.execution.workbench import BaseShape, Workbench
from rankwise.packing.flops import TokenCounts, count_scoring_flops, count_training_flops
from rankwise.packing.memory import padded_params
from rankwise.profiling.speed import measure_matmul_flops

EFFICIENCY_FRAC = 0.45
"""Share of the measured matrix-product speed that a whole training step reaches."""


@dataclass
class DurationPredictor:
    """Predicts seconds per pack; each model's speed is measured once. Loading and probing are not counted."""

    bench: Workbench
    _speeds: dict[tuple[str, int, int], float] = field(default_factory=dict)

    def predict_s(self, runs: Sequence[SizedRun]) -> float:
        """Of training and scoring `runs` side by side."""
        base = self.bench.shape(runs[0].planned.run.arm.base)
        return _count_flops(runs, base.num_block_params) / (self._flops_per_s(base, runs[0]) * EFFICIENCY_FRAC)

    def _flops_per_s(self, base: BaseShape, run: SizedRun) -> float:
        dtype, hidden, mlp = base.settings.dtype, run.shape.hidden_size, run.shape.mlp_size
        if (dtype, hidden, mlp) not in self._speeds:
            self._speeds[dtype, hidden, mlp] = measure_matmul_flops(
                run.micro_tokens, hidden, mlp, dtype=getattr(torch, dtype), device=base.device
            )
        return self._speeds[dtype, hidden, mlp]


def _count_flops(runs: Sequence[SizedRun], num_block_params: int) -> float:
    adapter_params = padded_params([run.rank_map for run in runs])
    # Before the first step all slots are the bare base, which is scored once per data set.
    untrained = {run.data.fingerprint: run for run in runs}.values()
    return sum(_run_flops(run, num_block_params, adapter_params) for run in runs) + sum(
        count_scoring_flops(
            run.shape, TokenCounts.of(run.data.validation), num_block_params=num_block_params, num_adapter_params=0
        )
        for run in untrained
    )


def _run_flops(run: SizedRun, num_block_params: int, num_adapter_params: int) -> float:
    """Training, validation as often as it is due, and the test split where it is reported."""
    train = run.planned.run.arm.train
    epochs = run.num_steps / math.ceil(len(run.data.train) / train.batch_size)
    splits = {"validation": math.ceil(1 / train.eval_every_frac), "test": int(run.planned.purpose == "report")}
    sizes = {"num_block_params": num_block_params, "num_adapter_params": num_adapter_params}
    scoring = sum(
        times * count_scoring_flops(run.shape, TokenCounts.of(getattr(run.data, split)), **sizes)
        for split, times in splits.items()
    )
    return epochs * count_training_flops(run.shape, TokenCounts.of(run.data.train), **sizes) + scoring
