"""From a run to its rank map: measure what its strategy needs, ask the strategy, spend the budget."""

from dataclasses import dataclass, field

import numpy as np

from rankwise.allocation import RankMap, Signal, Site, SiteView, allocate, resolve_budget
from rankwise.data.prepare import PreparedData
from rankwise.models.load import LoadedBase
from rankwise.models.sites import find_sites
from rankwise.probing.measure import measure
from rankwise.study.runs import Run
from rankwise.training.engine import AllocatedRun
from rankwise.training.initialise import Initialiser
from rankwise.training.probe_batches import probe_batches


@dataclass
class Allocator:
    """Allocates runs over one base model, measuring each signal once per (data, order, sites)."""

    base: LoadedBase
    _measured: dict[tuple[object, ...], tuple[np.ndarray, float]] = field(default_factory=dict)
    _initialiser: Initialiser = field(init=False)

    def __post_init__(self) -> None:
        self._initialiser = Initialiser(self.base)

    def allocate(self, run: Run, data: PreparedData) -> AllocatedRun:
        """The run with its rank map; the probe's time is charged to it even where the measurement was shared.

        Raises:
            ModelError: a target matches no layer.
            AllocationError: the budget cannot be spent on these layers, or the strategy broke its contract.
        """
        sites = find_sites(self.base.model, run.arm.targets)
        strategy = run.arm.build_strategy()
        signals, probe_wall_s = {}, 0.0
        for signal in strategy.required_signals():
            signals[signal], wall_s = self._measure(signal, run, data, sites)
            probe_wall_s += wall_s
        rank_map = plan_rank_map(run, sites, self.base.num_params, signals)
        start = self._initialiser.start(run, data, rank_map)
        return AllocatedRun(
            run=run, rank_map=rank_map, data=data, probe_wall_s=probe_wall_s + start.wall_s, initial=start.initial
        )

    def _measure(
        self, signal: Signal, run: Run, data: PreparedData, sites: tuple[Site, ...]
    ) -> tuple[np.ndarray, float]:
        train = run.arm.train
        key = (signal, data.fingerprint, run.seed, train.batch_size, tuple(site.name for site in sites))
        if key not in self._measured:
            found = measure(self.base.model, sites, probe_batches(self.base, run, data), [signal])
            self._measured[key] = (found.values[signal], found.wall_s([signal]))
        return self._measured[key]


def plan_rank_map(run: Run, sites: tuple[Site, ...], base_params: int, signals: dict[Signal, np.ndarray]) -> RankMap:
    """The rank map of `run`: pure, so a plan can print it for every strategy that measures nothing."""
    budget = run.arm.budget
    budget_params = resolve_budget(
        sites, rank=budget.rank, params=budget.params, fraction=budget.fraction, base_params=base_params
    )
    return allocate(
        run.arm.build_strategy(),
        SiteView(sites=sites, signals=signals),
        budget_params=budget_params,
        scaling=run.arm.scaling,
        min_rank=budget.min_rank,
        max_rank=budget.max_rank,
    )
