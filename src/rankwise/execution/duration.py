"""How long a pack would take: counted operations at a share of the matrix-product speed measured here and now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import torch

from rankwise.data.examples import TokenizedExample
from rankwise.execution.packing import SizedRun
from rankwise.execution.workbench import BaseShape, Workbench
from rankwise.models.prefix_cache import can_share_prefixes
from rankwise.packing.flops import TokenCounts, count_scoring_flops, count_training_flops
from rankwise.packing.memory import padded_params
from rankwise.profiling.speed import measure_matmul_flops
from rankwise.training.order import BatchOrder

EFFICIENCY_FRAC = 0.45
"""Share of the measured matrix-product speed that training and scoring reach together. From the embedded study on two
cores of an AMD EPYC: 14.9 TFLOP counted for its 66 runs at 4.5 s each is 50 GFLOP/s, of about 110 measured. Other
machines and models will differ; RESULTS.md states the times that were measured."""


@dataclass
class DurationPredictor:
    """Predicts seconds per pack; speeds and token counts are taken once. Loading and probing are not counted."""

    bench: Workbench
    _speeds: dict[tuple[str, int, int], float] = field(default_factory=dict)
    _counts: dict[tuple[object, ...], TokenCounts] = field(default_factory=dict)

    def predict_s(self, runs: Sequence[SizedRun]) -> float:
        """Of training and scoring `runs` side by side."""
        base = self.bench.shape(runs[0].planned.run.arm.base)
        flops = self._training_flops(runs, base) + self._scoring_flops(runs, base)
        return flops / (self._flops_per_s(base, runs[0]) * EFFICIENCY_FRAC)

    def _training_flops(self, runs: Sequence[SizedRun], base: BaseShape) -> float:
        """Every run like the first epoch of seed 0: which rows share a batch hardly changes the sum."""
        adapter_params = padded_params([run.rank_map for run in runs])
        shares = can_share_prefixes(base.model) and not any(run.planned.run.arm.dropout for run in runs)
        total = 0.0
        for run in runs:
            train, examples = run.planned.run.arm.train, run.data.train
            key = (run.data.fingerprint, "train", train.batch_size, shares)
            order = BatchOrder(num_examples=len(examples), batch_size=train.batch_size, epochs=1, seed=0)
            if key not in self._counts:
                batches = [[examples[index] for index in order.batch(step)] for step in range(order.num_steps)]
                self._counts[key] = TokenCounts.of(batches, share_prefixes=shares)
            total += (run.num_steps / order.num_steps) * count_training_flops(
                run.shape,
                self._counts[key],
                num_block_params=base.num_block_params,
                num_adapter_params=adapter_params,
            )
        return total

    def _scoring_flops(self, runs: Sequence[SizedRun], base: BaseShape) -> float:
        """Validation as often as it is due, test where it is reported; and once per data set the bare base."""
        adapter_params = padded_params([run.rank_map for run in runs])
        total = 0.0
        for run in runs:
            num_validations = ceil(1 / run.planned.run.arm.train.eval_every_frac)
            total += num_validations * self._split_flops(run, "validation", base, adapter_params)
            if run.planned.purpose == "report":
                total += self._split_flops(run, "test", base, adapter_params)
        by_data = {run.data.fingerprint: run for run in runs}
        return total + sum(self._split_flops(run, "validation", base, 0) for run in by_data.values())

    def _split_flops(self, run: SizedRun, split: str, base: BaseShape, adapter_params: int) -> int:
        shares = can_share_prefixes(base.model)
        key = (run.data.fingerprint, split, shares)
        if key not in self._counts:
            examples: Sequence[TokenizedExample] = getattr(run.data, split)
            self._counts[key] = TokenCounts.of([examples], share_prefixes=shares)
        return count_scoring_flops(
            run.shape, self._counts[key], num_block_params=base.num_block_params, num_adapter_params=adapter_params
        )

    def _flops_per_s(self, base: BaseShape, run: SizedRun) -> float:
        dtype, hidden, mlp = base.settings.dtype, run.shape.hidden_size, run.shape.mlp_size
        if (dtype, hidden, mlp) not in self._speeds:
            self._speeds[dtype, hidden, mlp] = measure_matmul_flops(
                run.micro_tokens, hidden, mlp, dtype=getattr(torch, dtype), device=base.device
            )
        return self._speeds[dtype, hidden, mlp]
