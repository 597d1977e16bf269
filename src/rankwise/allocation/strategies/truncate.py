"""Train wide, then keep the globally largest singular values that fit the budget.

PARA, arXiv:2604.27796: the adapters of all sites are decomposed after training, and one threshold on the singular
values of scale · up · down decides what stays. By the Eckart-Young theorem the rest of each site is the best
approximation of its rank. One wide run holds the whole curve of budgets: `rankwise.lora.truncation` cuts a trained
adapter to any of them without training again. What the wide run costs in memory and time is this strategy's price, and
is reported.
"""

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.selection import keep_most_important
from rankwise.allocation.strategies.base import DynamicStrategy, Mechanics, Phases


class Truncate(DynamicStrategy):
    """Plain LoRA at a multiple of the budget, cut to the budget after the last step."""

    wide_factor: float = Field(2.0, gt=1, le=64, allow_inf_nan=False)
    """Parameters while training, as a multiple of the budget."""

    def mechanics(self) -> Mechanics:
        return Mechanics(importance="singular_value", start_factor=self.wide_factor)

    def phases(self, num_steps: int) -> Phases:
        return Phases(num_steps - 1, num_steps)

    def revise(self, view: RankView) -> np.ndarray | None:
        return keep_most_important(
            view.importance_LR,
            view.exists_LR,
            view.costs_L,
            view.budget_params,
            view.min_rank,
            view.max_rank_L,
        )
