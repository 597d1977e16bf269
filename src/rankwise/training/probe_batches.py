"""The batches that a run's probes look at: the first of its own training order.

The same examples that the run trains on first, so a probe sees nothing that training would not, and two arms with the
same seed, data and batch size are measured on the same batches.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch

from rankwise.data.batches import MicroBatch, Row, micro_batches
from rankwise.data.prepare import PreparedData
from rankwise.models.answer_loss import answer_token_losses
from rankwise.models.gradient_checkpointing import checkpointed_blocks
from rankwise.models.load import LoadedBase
from rankwise.probing.batch import ProbeBatch
from rankwise.study.runs import Run
from rankwise.training.order import BatchOrder

PROBE_BATCHES = 8
"""Batches that a signal is averaged over: what FIM-LoRA (arXiv:2605.16800) and Early Gradient Spectra use."""


def probe_batches(base: LoadedBase, run: Run, data: PreparedData) -> Iterator[ProbeBatch]:
    """At most PROBE_BATCHES batches on the bare base model, each of the run's own batch size."""
    order = _order(run, data)
    for step in range(num_probe_batches(run, data)):
        rows = [Row(0, data.train[index]) for index in order.batch(step)]
        longest = max(row.num_tokens for row in rows)
        (batch,) = micro_batches(rows, longest * len(rows), base.device)
        lengths_N = torch.tensor([row.num_tokens for row in batch.rows], device=base.device)
        yield ProbeBatch(
            loss=partial(_mean_loss, base, batch, run.arm.train.gradient_checkpointing),
            real_NT=torch.arange(longest, device=base.device) < lengths_N[:, None],
            answer_NT=batch.answer_NT,
        )


def num_probe_batches(run: Run, data: PreparedData) -> int:
    """PROBE_BATCHES, or all of a shorter training."""
    return min(PROBE_BATCHES, _order(run, data).num_steps)


def _order(run: Run, data: PreparedData) -> BatchOrder:
    train = run.arm.train
    return BatchOrder(num_examples=len(data.train), batch_size=train.batch_size, epochs=train.epochs, seed=run.seed)


def _mean_loss(base: LoadedBase, batch: MicroBatch, gradient_checkpointing: bool) -> torch.Tensor:
    with checkpointed_blocks(base.model) if gradient_checkpointing else nullcontext():
        return answer_token_losses(base.model, batch.input_ids_NT, batch.answer_NT).loss_M.mean()
