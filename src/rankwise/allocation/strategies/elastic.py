"""ElaLoRA: components move from where they matter least to where even the least of them matters most.

Chang et al., "ElaLoRA: Elastic & Learnable Low-Rank Adaptation for Efficient Model Fine-Tuning", arXiv:2504.00254, and
the authors' code (HuandongChang/ElaLoRA, `loralib/elalora.py`). The parameterisation and the importance are AdaLoRA's
(see `adalora`). The run starts at the budget and stays there. In each round every site offers its `per_site` least
important components, all but one at most. Of all that are offered, the `num_moved` least important ones are pruned, and
the sites of the `num_moved` most important ones get a new component each. The number falls to zero:

    num_moved(t) = num_moved · (1 - ((t - first) / (last - first))³), rounded

A new component starts at gate zero with `down` and `up` of length one, orthogonal to the site's others, so the output
of the model does not jump. Defaults are those of the published GLUE scripts: 4 moved, 2 per site, and the medians of
their schedules (17 % and 25 % of the steps before and after, 3 % between rounds).

The published budget is a number of components. Here it is a number of parameters: sites are given components in order
of importance until what was pruned is spent, which is the published rule where all sites are equally wide, and the
numbers per site are then repaired so that the budget is met exactly where a solution is near. The authors leave the
growth of a site unlimited; here the room for it is held in memory, so it has a limit.
"""

import numpy as np
from pydantic import Field

from rankwise.allocation.rank_view import RankView
from rankwise.allocation.rounding import round_to_budget
from rankwise.allocation.strategies.base import DynamicStrategy, Mechanics, Phases


class Elastic(DynamicStrategy):
    """Prunes and grows components at a constant budget while training."""

    num_moved: int = Field(4, ge=1)
    """Components pruned and grown in the first round."""
    per_site: int = Field(2, ge=1)
    """Most components that one site loses or gains in a round."""
    room_factor: float = Field(2.0, ge=1, le=8, allow_inf_nan=False)
    """Most components of a site, as a multiple of those that it starts with; the room is held in memory."""
    initial_frac: float = Field(0.17, ge=0, lt=1)
    """Share of the steps before the first round."""
    final_frac: float = Field(0.25, ge=0, lt=1)
    """Share of the steps that are left when components stop moving."""
    interval_frac: float = Field(0.03, ge=0, lt=1)
    """Share of the steps between two rounds, at least one step."""
    orthogonality: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Weight of the penalty that keeps `down` and `up` near orthonormal."""
    beta_sensitivity: float = Field(0.85, gt=0, lt=1)
    """Averaging factor of the smoothed sensitivity."""
    beta_uncertainty: float = Field(0.85, gt=0, lt=1)
    """Averaging factor of its uncertainty."""

    def mechanics(self) -> Mechanics:
        return Mechanics(
            importance="sensitivity",
            room_factor=self.room_factor,
            gate=0.0,
            beta_sensitivity=self.beta_sensitivity,
            beta_uncertainty=self.beta_uncertainty,
            orthogonality=self.orthogonality,
        )

    def phases(self, num_steps: int) -> Phases:
        return Phases(round(self.initial_frac * num_steps), num_steps - round(self.final_frac * num_steps))

    def revise(self, view: RankView) -> np.ndarray | None:
        first, last = self.phases(view.num_steps)
        interval = max(1, round(self.interval_frac * view.num_steps))
        done = (view.step - first) / (last - first)
        num_moved = round(self.num_moved * (1 - done**3))
        if (view.step - first) % interval or not num_moved:
            return None
        offered = _offered(view, self.per_site)
        pruned_LR = np.zeros_like(view.active_LR)
        for site, component in offered[:num_moved]:
            pruned_LR[site, component] = True
        wanted_L = _grow(view, view.active_LR & ~pruned_LR, [site for site, _ in offered[::-1]])
        return _place(view, pruned_LR, wanted_L)


def _offered(view: RankView, per_site: int) -> list[tuple[int, int]]:
    """Site and component of every site's least important components, the least important of all first."""
    found = []
    for site, active_R in enumerate(view.active_LR):
        components = np.flatnonzero(active_R)
        num = min(per_site, len(components) - max(1, view.min_rank))
        ascending = components[np.argsort(view.importance_LR[site, components], kind="stable")]
        found += [(site, int(component)) for component in ascending[: max(0, num)]]
    return sorted(found, key=lambda place: view.importance_LR[place])


def _grow(view: RankView, kept_LR: np.ndarray, sites: list[int]) -> np.ndarray:
    """Components of each site (L,) after growing `sites` in that order, again and again, until the budget is spent."""
    cost_L, limit_L = view.costs_L, np.minimum(view.places_L, view.max_rank_L)
    rank_L = kept_LR.sum(axis=1)
    while True:
        before = int(rank_L.sum())
        for site in sites:
            if rank_L[site] < limit_L[site] and rank_L @ cost_L + cost_L[site] <= view.budget_params:
                rank_L[site] += 1
        if int(rank_L.sum()) == before:
            break
    if view.budget_params >= int(limit_L @ cost_L):
        return limit_L
    low_L = np.minimum(limit_L, view.min_rank)
    return round_to_budget(rank_L.astype(float), cost_L, view.budget_params, low_L, limit_L)


def _place(view: RankView, pruned_LR: np.ndarray, wanted_L: np.ndarray) -> np.ndarray:
    """Each site at its wanted rank: the most important of those not pruned, then free places, then the pruned again."""
    kept_LR = view.active_LR & ~pruned_LR
    active_LR = np.zeros_like(view.active_LR)
    for site, wanted in enumerate(wanted_L):
        kept_R, pruned_R = kept_LR[site], pruned_LR[site]
        importance_R = np.where(kept_R, view.importance_LR[site], 0.0)
        order_R = np.lexsort((-importance_R, pruned_R, ~kept_R, ~view.exists_LR[site]))
        active_LR[site, order_R[: int(wanted)]] = True
    return active_LR
