"""Forgetting: how much worse an adapted model predicts general text than its base does.

The loss on passages that have nothing to do with the task, before (base alone) and after (with the adapter), in nats
per token; their difference is paired by passage. Positive: forgotten. (Biderman et al., "LoRA Learns Less and Forgets
Less", arXiv:2405.09673, measure it by accuracies on benchmarks; a loss needs none and sees smaller changes.)
"""

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from rankwise.evaluation.loss import Scores
from rankwise.evaluation.metrics import LEVEL, Estimate
from rankwise.models.context import context_tokens
from rankwise.statistics.totals import bootstrap_totals_interval
from rankwise.streams import stream

MAX_GENERAL_TOKENS = 1024
"""Longest passage of general text, where the model's context allows as much."""


def general_tokens(model: PreTrainedModel) -> int:
    """Longest passage of general text that is scored: what the model takes whole."""
    return min(MAX_GENERAL_TOKENS, context_tokens(model))


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Losses on general text in nats per token."""

    num_passages: int
    before_nats: float | None
    """Of the base alone; None, as the others, for what is not a finite number."""
    after_nats: float | None
    difference_nats: Estimate
    """After less before, with an interval over passages."""


def forgetting(before: Scores, after: Scores) -> Forgetting:
    """Scores of the same passages, of the base and of the adapted model."""
    both_ES = np.stack([before.loss_nats_E, after.loss_nats_E, before.answer_tokens_E], axis=1).astype(np.float64)
    loss_before, loss_after, num_tokens = both_ES.sum(axis=0)
    difference = Estimate(value=None)
    if np.isfinite(both_ES).all():
        rng = stream(0, "evaluate", "forgetting")
        difference = Estimate(
            value=float((loss_after - loss_before) / num_tokens),
            interval=bootstrap_totals_interval(both_ES, _difference, level=LEVEL, rng=rng),
        )
    return Forgetting(
        num_passages=len(both_ES),
        before_nats=_finite(loss_before / num_tokens),
        after_nats=_finite(loss_after / num_tokens),
        difference_nats=difference,
    )


def _difference(totals: np.ndarray) -> np.ndarray:
    return (totals[..., 1] - totals[..., 0]) / totals[..., 2]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
