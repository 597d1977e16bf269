"""The first matrices of a run's adapter, for initialisations that look at weights, activations or gradients.

What is measured depends on the base model and, where examples are needed, on the first batches of the run's own
training order: the same for every arm of one seed, whatever pack or slot a run is in. Time and memory are charged to
each run, also where one measurement served several.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from rankwise.allocation import RankMap, Site
from rankwise.data.prepare import PreparedData
from rankwise.errors import AllocationError
from rankwise.lora.init import INITS
from rankwise.lora.init.rule import InitialAdapter, InitRule, initial_adapter
from rankwise.models.load import LoadedBase
from rankwise.probing.activations import activation_spectra
from rankwise.probing.gradient import mean_gradients
from rankwise.probing.weights import weight_of
from rankwise.profiling.memory import PeakMemory
from rankwise.study.runs import Run
from rankwise.training.probe_batches import probe_batches

MIN_FOLLOWED = 64
SPARE_FRAC = 2
"""Principal components that are followed while activations are measured: this multiple of the largest rank (PEFT's
`rho`), and never fewer than MIN_FOLLOWED. What is cut off after each batch is then far from what is used, and arms of
usual ranks follow equally many and so share their first components."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a run's adapter starts, and what it took to find that."""

    initial: InitialAdapter | None = None
    """None: drawn from the run's seed."""
    wall_s: float = 0.0
    peak_memory_bytes: int = 0


@dataclass
class Initialiser:
    """Starts runs over one base model. The last start is kept: runs that share one follow each other."""

    base: LoadedBase
    _last: tuple[tuple[object, ...], Start] | None = None

    def start(self, run: Run, data: PreparedData, rank_map: RankMap) -> Start:
        """The first matrices of `run` with the ranks and scales of `rank_map`.

        Raises:
            AllocationError: the initialisation cannot fill as many components as a site was given.
            ModelError: it looks at weights that cannot be read.
        """
        rule = INITS[run.arm.init]
        if rule.needs == "nothing":
            return Start()
        examples = (data.fingerprint, run.seed, run.arm.train.batch_size, run.arm.train.epochs)
        key = (run.arm.init, rank_map, *(() if rule.needs == "weights" else examples))
        if self._last is None or self._last[0] != key:
            self._last = key, self._measured_start(rule, run, data, rank_map)
        return self._last[1]

    def _measured_start(self, rule: InitRule, run: Run, data: PreparedData, rank_map: RankMap) -> Start:
        peak, started = PeakMemory(self.base.device), time.perf_counter()
        sites = [site for site, rank in zip(rank_map.sites, rank_map.ranks, strict=True) if rank]
        measured = self._measure(rule, run, data, sites, max(rank_map.ranks))
        unseen = [site.name for site in sites if site.name not in measured]
        if unseen:
            raise AllocationError(
                f"init {run.arm.init}: no token of the examples it is measured on reached {unseen[0]} and "
                f"{len(unseen) - 1} more layers. Leave them out of targets, or use another init."
            )
        initial = initial_adapter(rule, rank_map, run.seed, measured)
        return Start(initial=initial, wall_s=time.perf_counter() - started, peak_memory_bytes=peak.peak_bytes())

    def _measure(
        self, rule: InitRule, run: Run, data: PreparedData, sites: list[Site], largest_rank: int
    ) -> Mapping[str, torch.Tensor]:
        model = self.base.model
        match rule.needs:
            case "activations":
                batches = probe_batches(self.base, run, data)
                spectra = activation_spectra(model, sites, batches, max(MIN_FOLLOWED, SPARE_FRAC * largest_rank))
                return {name: _directions(spectrum.values_K, spectrum.vectors_KD) for name, spectrum in spectra.items()}
            case "gradients":
                return mean_gradients(model, sites, probe_batches(self.base, run, data))
        return _Weights(self.base, sites)


def _directions(values_K: torch.Tensor, vectors_KD: torch.Tensor) -> torch.Tensor:
    """The singular vectors in whose direction anything varies; the rest are arbitrary."""
    return vectors_KD[values_K > values_K[:1] * 1e-5]


class _Weights(Mapping[str, torch.Tensor]):
    """The frozen weights by site name, read one at a time."""

    def __init__(self, base: LoadedBase, sites: list[Site]) -> None:
        self._base = base
        self._sites = {site.name: site for site in sites}

    def __getitem__(self, name: str) -> torch.Tensor:
        return weight_of(self._base.model, self._sites[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)
