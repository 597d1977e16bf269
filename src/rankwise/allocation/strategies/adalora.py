"""AdaLoRA: start 1.5 times too wide and let the least important components go on a cubic schedule.

Zhang et al., "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv:2303.10512. The change of a weight
is held as singular triplets, scale · up · diag(gate) · down, with a penalty that keeps `up` and `down` near orthonormal
(equation 4). After each step the triplets that matter least (equations 7 to 11) have their gate set to zero, so many
that the rest meets the budget of that step:

    b(t) = budget + (start - budget) · (1 - (t - first) / (last - first))³                                 (equation 12)

A triplet without gate keeps training and may come back while the budget falls, with the gate that the last optimizer
step gave it; in the final phase the choice stands. Defaults are those of the published GLUE scripts: 12 % and 50 % of
the steps before and after the schedule (their medians), a penalty of 0.1, both averaging factors 0.85.

The published budget is a number of triplets. Here it is a number of parameters, the same thing where all sites are
equally wide; elsewhere the last revision repairs the threshold so that the budget is spent exactly. Below `min_rank`
(1 by default, 0 in the paper) no site is pruned.
"""

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.selection import keep_most_important
from rankwise.allocation.strategies.base import DynamicStrategy, Mechanics, Phases


class AdaLora(DynamicStrategy):
    """Prunes singular triplets by smoothed sensitivity while training."""

    start_factor: float = Field(1.5, gt=1, le=4, allow_inf_nan=False)
    """Parameters at the first step, as a multiple of the budget."""
    initial_frac: float = Field(0.12, ge=0, lt=1)
    """Share of the steps before the budget begins to fall (t_i of the paper)."""
    final_frac: float = Field(0.5, ge=0, lt=1)
    """Share of the steps that are left when the budget is reached (t_f)."""
    interval_frac: float = Field(0.002, ge=0, lt=1)
    """Share of the steps between two revisions, at least one step (Δ_T)."""
    orthogonality: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Weight of the penalty that keeps `down` and `up` near orthonormal."""
    beta_sensitivity: float = Field(0.85, gt=0, lt=1)
    """Averaging factor of the smoothed sensitivity (β1)."""
    beta_uncertainty: float = Field(0.85, gt=0, lt=1)
    """Averaging factor of its uncertainty (β2)."""

    def mechanics(self) -> Mechanics:
        return Mechanics(
            importance="sensitivity",
            start_factor=self.start_factor,
            gate=0.0,
            beta_sensitivity=self.beta_sensitivity,
            beta_uncertainty=self.beta_uncertainty,
            orthogonality=self.orthogonality,
            keeps_inactive=True,
        )

    def phases(self, num_steps: int) -> Phases:
        return Phases(round(self.initial_frac * num_steps), num_steps - round(self.final_frac * num_steps))

    def revise(self, view: RankView) -> np.ndarray | None:
        first, last = self.phases(view.num_steps)
        interval = max(1, round(self.interval_frac * view.num_steps))
        if view.step < last and view.step % interval:
            return None
        left = (last - view.step) / (last - first)
        surplus = view.start_params - view.budget_params
        return keep_most_important(
            view.importance_LR,
            view.exists_LR,
            view.costs_L,
            view.budget_params + int(max(0, surplus) * left**3),
            view.min_rank,
            view.max_rank_L,
            exact=view.step == last,
        )
