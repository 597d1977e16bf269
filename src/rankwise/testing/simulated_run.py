"""A run without a model: what a dynamic strategy does over a training whose importances are made up.

L = sites in forward order, R = places of the roomiest site.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rankwise.allocation.allocate import allocate
from rankwise.allocation.budget import resolve_budget
from rankwise.allocation.rank_map import RankMap, Scaling
from rankwise.allocation.rank_view import RankView
from rankwise.allocation.sites import SiteView
from rankwise.allocation.strategies.base import RankMover, Strategy
from rankwise.streams import stream

Importances = Callable[[int, tuple[int, int]], np.ndarray]
"""From the step and (L, R) to an importance for every place."""


def distinct(step: int, shape: tuple[int, int]) -> np.ndarray:
    """Positive, all different, changing from step to step."""
    return stream(0, "importance", step).lognormal(size=shape)


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """Settings of the made-up training."""

    view: SiteView
    rank: int = 4
    min_rank: int = 1
    max_rank: int | None = None
    num_steps: int = 40
    importances: Importances = distinct

    @property
    def budget_params(self) -> int:
        return resolve_budget(self.view.sites, rank=self.rank)

    def limits_L(self, strategy: Strategy) -> np.ndarray:
        """Most components that each site may end with."""
        return np.minimum(self._start(strategy).held_ranks, self.max_rank or np.iinfo(np.int64).max)

    def revisions(self, strategy: Strategy, mover: RankMover) -> Iterator[tuple[RankView, np.ndarray]]:
        """Every view that the mover sees, with what is active after it."""
        start = self._start(strategy)
        places_L = np.array(start.held_ranks)
        exists_LR = np.arange(places_L.max()) < places_L[:, None]
        active_LR = np.arange(places_L.max()) < np.array(start.ranks)[:, None]
        first, last = mover.phases(self.num_steps)
        for step in range(first + 1, last + 1):
            importance_LR = np.where(exists_LR, self.importances(step, exists_LR.shape), 0.0)
            view = RankView(
                sites=self.view.sites,
                step=step,
                num_steps=self.num_steps,
                budget_params=self.budget_params,
                start_params=start.params,
                min_rank=self.min_rank,
                max_rank_L=_frozen(self.limits_L(strategy)),
                places_L=_frozen(places_L),
                active_LR=_frozen(active_LR.copy()),
                importance_LR=_frozen(importance_LR),
            )
            answer_LR = mover.revise(view)
            if answer_LR is not None:
                active_LR = answer_LR
            yield view, active_LR

    def _start(self, strategy: Strategy) -> RankMap:
        return allocate(
            strategy,
            self.view,
            budget_params=self.budget_params,
            scaling=Scaling(),
            min_rank=self.min_rank,
            max_rank=self.max_rank,
        )


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values
