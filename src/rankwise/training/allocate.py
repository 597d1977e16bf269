"""From a run to its rank map: measure what its strategy needs, ask the strategy, spend the budget.

Signals that runs need of the same examples, in the same order, at the same sites, are measured in one pass where the
runs are allocated together, and never twice. Each run is charged what its own signals took, shared or not: the time of
the passes and of its signals, and the peak memory while they were measured.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rankwise.allocation import RankMap, Signal, Site, SiteView, allocate, resolve_budget
from rankwise.allocation.sites import SiteSignal
from rankwise.allocation.strategies.eva import LARGEST_RHO
from rankwise.data.examples import TokenizedExample
from rankwise.data.general import GENERAL, load_general
from rankwise.data.prepare import PreparedData
from rankwise.evaluation.forgetting import general_tokens
from rankwise.models.load import LoadedBase
from rankwise.models.sites import find_sites
from rankwise.probing.measure import Measurement, measure
from rankwise.profiling.memory import PeakMemory
from rankwise.study.runs import Run
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.initialise import Initialiser
from rankwise.training.probe_batches import num_probe_batches, probe_batches


@dataclass(frozen=True)
class _Place:
    """What a measurement depends on besides the base model."""

    site_names: tuple[str, ...]
    examples: tuple[object, ...] = ()
    """Which ones and in what order; empty for signals that look at none."""
    num_components: int = 0
    """Columns of an explained variance; 0 for all other signals."""


@dataclass(frozen=True, eq=False)
class _Probe:
    measurement: Measurement
    peak_memory_bytes: int


@dataclass(frozen=True, eq=False)
class _Request:
    """A run before its ranks are known."""

    run: Run
    data: PreparedData
    sites: tuple[Site, ...]
    places: dict[Signal, _Place]


@dataclass
class Allocator:
    """Allocates runs over one base model."""

    base: LoadedBase
    _probes: dict[tuple[Signal, _Place], _Probe] = field(default_factory=dict)
    _general: tuple[TokenizedExample, ...] = ()
    """General text, once a run has asked for it."""
    _initialiser: Initialiser = field(init=False)

    def __post_init__(self) -> None:
        self._initialiser = Initialiser(self.base)

    def allocate(self, run: Run, data: PreparedData) -> AllocatedRun:
        """One run with its rank map; see `allocate_all`."""
        (allocated,) = self.allocate_all([(run, data)])
        return allocated

    def allocate_all(self, runs: Iterable[tuple[Run, PreparedData]]) -> list[AllocatedRun]:
        """The runs with their rank maps, and what their probes took.

        Raises:
            ModelError: a target matches no layer, or a strategy looks at weights that cannot be read.
            AllocationError: the budget cannot be spent on these layers, or the strategy broke its contract.
        """
        requests = [self._request(run, data) for run, data in runs]
        for request in requests:
            self._measure(request, requests)
        return [self._finish(request) for request in requests]

    def _request(self, run: Run, data: PreparedData) -> _Request:
        sites = find_sites(self.base.model, run.arm.targets)
        names = tuple(site.name for site in sites)
        batches = num_probe_batches(run, data)
        examples = (data.fingerprint, run.seed, run.arm.train.batch_size, batches)
        budget_params = _budget_params(run, sites, self.base.num_params)
        num_components = math.ceil(LARGEST_RHO * budget_params / sum(site.cost for site in sites))
        places = {
            signal: _Place(
                names,
                examples if signal.needs_data else (),
                num_components if signal is Signal.ACTIVATION_VARIANCE else 0,
            )
            for signal in run.arm.build_strategy().required_signals()
        }
        return _Request(run, data, sites, places)

    def _measure(self, request: _Request, together: Sequence[_Request]) -> None:
        """What `request` misses, in one pass with what the others miss of the same examples and sites."""
        missing = {item for item in request.places.items() if item not in self._probes}
        if not missing:
            return
        taken = dict(missing)
        reached = {(place.site_names, place.examples) for place in taken.values()}
        for other in together:
            for signal, place in other.places.items():
                if (place.site_names, place.examples) in reached and (signal, place) not in self._probes:
                    taken.setdefault(signal, place)  # of two widths of one spectrum the second has its own pass
        peak = PeakMemory(self.base.device)
        measurement = measure(
            self.base.model,
            request.sites,
            probe_batches(self.base, request.run, request.data),
            taken,
            num_components=max(place.num_components for place in taken.values()),
        )
        probe = _Probe(measurement, peak.peak_bytes())
        self._probes |= dict.fromkeys(taken.items(), probe)

    def _finish(self, request: _Request) -> AllocatedRun:
        probes = {signal: self._probes[signal, place] for signal, place in request.places.items()}
        values = {signal: probe.measurement.values[signal] for signal, probe in probes.items()}
        distinct = {id(probe): probe for probe in probes.values()}.values()
        rank_map = plan_rank_map(request.run, request.sites, self.base.num_params, values)
        start = self._initialiser.start(request.run, request.data, rank_map)
        walls_s = [
            probe.measurement.wall_s(signal for signal, of in probes.items() if of is probe) for probe in distinct
        ]
        peaks_bytes = [probe.peak_memory_bytes for probe in distinct]
        return AllocatedRun(
            run=request.run,
            rank_map=rank_map,
            data=request.data,
            general=self._general_text() if request.run.arm.evaluate.forgetting else (),
            initial=start.initial,
            probe_wall_s=sum(walls_s, start.wall_s),
            probe_peak_memory_bytes=max([*peaks_bytes, start.peak_memory_bytes]),
            signal=self._site_signal(request, values),
        )

    def _site_signal(self, request: _Request, values: Mapping[Signal, np.ndarray]) -> SiteSignal | None:
        """What the run's strategy went by; None where it measured nothing."""
        budget_params = _budget_params(request.run, request.sites, self.base.num_params)
        view = SiteView(sites=request.sites, signals=values, budget_params=budget_params)
        return request.run.arm.build_strategy().site_signal(view) if values else None

    def _general_text(self) -> tuple[TokenizedExample, ...]:
        if not self._general:
            max_tokens = general_tokens(self.base.model)
            self._general = load_general(GENERAL, self.base.tokenizer, max_tokens=max_tokens).passages
        return self._general


def plan_rank_map(run: Run, sites: tuple[Site, ...], base_params: int, signals: Mapping[Signal, np.ndarray]) -> RankMap:
    """The rank map of `run`: pure, so a plan can print it for every strategy that measures nothing."""
    budget = run.arm.budget
    return allocate(
        run.arm.build_strategy(),
        SiteView(sites=sites, signals=signals),
        budget_params=_budget_params(run, sites, base_params),
        scaling=run.arm.scaling,
        min_rank=budget.min_rank,
        max_rank=budget.max_rank,
    )


def _budget_params(run: Run, sites: tuple[Site, ...], base_params: int) -> int:
    budget = run.arm.budget
    return resolve_budget(
        sites, rank=budget.rank, params=budget.params, fraction=budget.fraction, base_params=base_params
    )
