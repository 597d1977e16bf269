"""From a run to its rank map: measure what its strategy needs, ask the strategy, spend the budget."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from rankwise.allocation import RankMap, Signal, Site, SiteView, allocate, resolve_budget
from rankwise.data.batches import Row, micro_batches
from rankwise.data.prepare import PreparedData
from rankwise.models.answer_loss import answer_token_losses
from rankwise.models.load import LoadedBase
from rankwise.models.sites import find_sites
from rankwise.probing.gradient import gradient_rms
from rankwise.study.runs import Run
from rankwise.training.engine import AllocatedRun
from rankwise.training.order import BatchOrder

PROBE_BATCHES = 8
"""Batches that a signal is averaged over: the first of the run's own training order, as FIM-LoRA uses (2605.16800)."""


@dataclass
class Allocator:
    """Allocates runs over one base model, measuring each signal once per (data, order, sites)."""

    base: LoadedBase
    _measured: dict[tuple[object, ...], tuple[np.ndarray, float]] = field(default_factory=dict)

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
        return AllocatedRun(run=run, rank_map=rank_map, data=data, probe_wall_s=probe_wall_s)

    def _measure(
        self, signal: Signal, run: Run, data: PreparedData, sites: tuple[Site, ...]
    ) -> tuple[np.ndarray, float]:
        train = run.arm.train
        key = (signal, data.fingerprint, run.seed, train.batch_size, tuple(site.name for site in sites))
        if key not in self._measured:
            started = time.perf_counter()
            order = BatchOrder(
                num_examples=len(data.train), batch_size=train.batch_size, epochs=train.epochs, seed=run.seed
            )
            values = gradient_rms(self.base.model, sites, self._losses(order, data))
            self._measured[key] = (values, time.perf_counter() - started)
        return self._measured[key]

    def _losses(self, order: BatchOrder, data: PreparedData) -> Iterator[Callable[[], torch.Tensor]]:
        for step in range(min(PROBE_BATCHES, order.num_steps)):
            rows = [Row(0, data.train[index]) for index in order.batch(step)]
            yield partial(self._mean_loss, rows)

    def _mean_loss(self, rows: list[Row]) -> torch.Tensor:
        longest = max(row.num_tokens for row in rows)
        (batch,) = micro_batches(rows, longest * len(rows), self.base.device)
        return answer_token_losses(self.base.model, batch.input_ids_NT, batch.answer_NT).loss_M.mean()


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
