"""Gates under an L1 penalty: every component has a factor that shrinks unless its gradient holds it up.

Ding et al., "Sparse Low-rank Adaptation of Pre-trained Language Models" (SoRA), arXiv:2311.11696, and Singh et al.,
"L1RA: Dynamic Rank Assignment in LoRA Fine-Tuning", arXiv:2509.04884. The change of a weight is scale · up ·
diag(gate) · down with gates that start at 1 (L1RA), `down` and `up` as in LoRA. After every optimizer step each gate
goes through the proximal step of the L1 norm (SoRA):

    gate <- sign(gate) · max(|gate| - learning rate · shrinkage, 0)

The published methods end wherever the penalty leads. Here the run starts wider than the budget, and at the end of the
gated phase the largest gates that fill the budget exactly stay; the rest of the run trains them without penalty, as
SoRA's second stage does. The default shrinkage is that of SoRA's script, 3e-4 per step at a learning rate of 8e-4. Only
the size of the gate counts, as published: a component with a small gate and large vectors is cut all the same.
"""

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.selection import keep_most_important
from rankwise.allocation.strategies.base import DynamicStrategy, Mechanics, Phases


class L1(DynamicStrategy):
    """Trains gates under an L1 penalty, then keeps the largest."""

    start_factor: float = Field(1.5, gt=1, le=4, allow_inf_nan=False)
    """Parameters at the first step, as a multiple of the budget."""
    shrinkage: float = Field(0.375, ge=0, allow_inf_nan=False)
    """What a gate loses per step, as a multiple of the step's learning rate."""
    final_frac: float = Field(0.5, ge=0, lt=1)
    """Share of the steps that are left when the largest gates are kept."""

    def mechanics(self) -> Mechanics:
        return Mechanics(importance="gate", start_factor=self.start_factor, gate=1.0, shrinkage=self.shrinkage)

    def phases(self, num_steps: int) -> Phases:
        last = num_steps - round(self.final_frac * num_steps)
        return Phases(last - 1, last)

    def revise(self, view: RankView) -> np.ndarray | None:
        return keep_most_important(
            view.importance_LR,
            view.active_LR,
            view.costs_L,
            view.budget_params,
            view.min_rank,
            view.max_rank_L,
        )
