"""Held-out loss of all slots in one pass: nats per answer token, token accuracy and the loss of each example.

E = examples, B = bins of confidence (see `calibration.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from rankwise.data.batches import Row
from rankwise.data.examples import TokenizedExample
from rankwise.evaluation.calibration import NUM_BINS, calibration_error, confidence_gaps
from rankwise.lora.pack import AdapterPack
from rankwise.models.answer_loss import TokenLosses
from rankwise.packing.forward import token_losses
from rankwise.records import Evaluated, Split


@dataclass(frozen=True)
class Scores:
    """Sums over each example's answer tokens."""

    loss_nats_E: np.ndarray
    answer_tokens_E: np.ndarray
    correct_tokens_E: np.ndarray
    confidence_gap_EB: np.ndarray
    """Confidence less correctness of the tokens in each bin."""

    def to_record(self, run_id: str, split: Split, step: int) -> Evaluated:
        num_tokens = int(self.answer_tokens_E.sum())
        return Evaluated(
            run_id=run_id,
            split=split,
            step=step,
            loss_nats=float(self.loss_nats_E.sum() / num_tokens),
            token_accuracy=float(self.correct_tokens_E.sum() / num_tokens),
            num_examples=len(self.loss_nats_E),
            num_answer_tokens=num_tokens,
            calibration_error=float(
                calibration_error(np.append(self.confidence_gap_EB.sum(axis=0), num_tokens).astype(np.float64))
            ),
            example_loss_nats=self.loss_nats_E,
            example_answer_tokens=self.answer_tokens_E,
            example_correct_tokens=self.correct_tokens_E,
        )


@torch.no_grad()
def score_slots(
    model: PreTrainedModel,
    pack: AdapterPack | None,
    examples: dict[int, Sequence[TokenizedExample]],
    *,
    max_tokens: int,
    share_prefixes: bool = True,
) -> dict[int, Scores]:
    """Score each slot on its own examples; `pack` None scores the bare base model (as slot 0, say).

    Rows of all slots are mixed by length, as in training; `max_tokens` bounds one forward pass.
    """
    rows = [
        Row(slot, example, e, example.num_shared_tokens if share_prefixes else 0)
        for slot, found in examples.items()
        for e, example in enumerate(found)
    ]
    sums = {slot: np.zeros((len(found), 3 + NUM_BINS)) for slot, found in examples.items()}
    for batch, losses in token_losses(model, pack, rows, max_tokens=max_tokens):
        for row, per_row in zip(batch.rows, _sum_rows(losses, len(batch.rows)), strict=True):
            sums[row.slot][row.position] = per_row
    return {
        slot: Scores(v[:, 0], v[:, 1].astype(np.int64), v[:, 2].astype(np.int64), v[:, 3:]) for slot, v in sums.items()
    }


def _sum_rows(losses: TokenLosses, num_rows: int) -> np.ndarray:
    """(num_rows, 3 + B) float64: loss, tokens, correct tokens and confidence gaps of each row."""
    row_M = losses.row_M.cpu().numpy()
    loss_M, correct_M = losses.loss_M.double().cpu().numpy(), losses.correct_M.double().cpu().numpy()
    columns = [np.bincount(row_M, weights=c, minlength=num_rows) for c in (loss_M, np.ones(len(row_M)), correct_M)]
    gaps = confidence_gaps(losses.confidence_M.double().cpu().numpy(), correct_M, row_M, num_rows)
    return np.concatenate([np.stack(columns, axis=1), gaps], axis=1)
