"""A run with its ranks, data and start: what allocating hands to training."""

from dataclasses import dataclass

from rankwise.allocation.rank_map import RankMap
from rankwise.allocation.sites import SiteSignal
from rankwise.data.examples import TokenizedExample
from rankwise.data.prepare import PreparedData
from rankwise.lora.init.rule import InitialAdapter
from rankwise.study.runs import Run


@dataclass(frozen=True, kw_only=True)
class AllocatedRun:
    """A run with everything decided that is decided before its first step."""

    run: Run
    rank_map: RankMap
    data: PreparedData
    general: tuple[TokenizedExample, ...] = ()
    """Text that is scored before and after training; empty where forgetting is not asked for."""
    initial: InitialAdapter | None = None
    """Where the adapter starts; None: drawn from the run's seed."""
    probe_wall_s: float = 0.0
    """Time that measuring what its strategy and its initialisation need took, whether or not others needed it too."""
    probe_peak_memory_bytes: int = 0
    """Peak memory meanwhile, of the process or the device; 0 where nothing was measured."""
    signal: SiteSignal | None = None
    """What its strategy went by, in the order of the map's sites; None for strategies that measure nothing."""
    predicted_wall_s: float | None = None
    """What the planner expected of it: its share of its pack's time, the probe left out."""
