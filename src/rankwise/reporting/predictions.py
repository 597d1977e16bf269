"""How far the predictions of memory and time were off, over the packs in which a study's finished runs were trained.

A pack may hold runs of other studies: of its time, measured and predicted, the shares of this study's runs count. Runs
that diverged took less than was planned, and runs of older ledgers do not say in which pack they were: neither counts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rankwise.ledger.results import RunRow
from rankwise.reporting.values import PredictionError

Pair = tuple[float, float]
"""What was predicted, and what was measured."""
NEAR_FRAC = 0.1
"""Half width of the band that figures show around the line on which the two are equal."""


@dataclass(frozen=True, kw_only=True)
class PackPrediction:
    """One pack, as far as this study's finished runs were trained in it."""

    pack_id: str
    runs: tuple[RunRow, ...]
    memory_bytes: Pair | None
    """Of its peak; None where one of the two is not known."""
    wall_s: Pair | None
    """Without its probes, which are not predicted."""


def pack_predictions(runs: Iterable[RunRow]) -> tuple[PackPrediction, ...]:
    """In the order in which the packs come up; a run that two arms share is one."""
    packs: dict[str, dict[str, RunRow]] = {}
    for run in runs:
        if run.status == "finished" and run.pack_id is not None:
            packs.setdefault(run.pack_id, {})[run.id] = run
    return tuple(_pack(pack_id, tuple(members.values())) for pack_id, members in packs.items())


def _pack(pack_id: str, members: tuple[RunRow, ...]) -> PackPrediction:
    return PackPrediction(pack_id=pack_id, runs=members, memory_bytes=_memory(members), wall_s=_wall(members))


def _memory(members: Sequence[RunRow]) -> Pair | None:
    predicted = [run.predicted_memory_bytes for run in members if run.predicted_memory_bytes]
    measured = [run.peak_memory_bytes for run in members if run.peak_memory_bytes]
    return (max(predicted), max(measured)) if predicted and measured else None


def _wall(members: Sequence[RunRow]) -> Pair | None:
    known = [
        (run.predicted_wall_s, run.wall_s - (run.probe_wall_s or 0.0))
        for run in members
        if run.predicted_wall_s is not None and run.wall_s is not None
    ]
    predicted_s, measured_s = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
    return (predicted_s, measured_s) if predicted_s > 0 and measured_s > 0 else None


def memory_prediction(runs: Sequence[RunRow]) -> PredictionError | None:
    """Of the peak of each pack; None where no pack has both numbers."""
    return _judge([pack.memory_bytes for pack in pack_predictions(runs) if pack.memory_bytes], max)


def time_prediction(runs: Sequence[RunRow]) -> PredictionError | None:
    """Of the time of each pack without its probes; None where no pack has both numbers."""
    return _judge([pack.wall_s for pack in pack_predictions(runs) if pack.wall_s], sum)


def _judge(pairs: Sequence[Pair], together: Callable[[Iterable[float]], float]) -> PredictionError | None:
    if not pairs:
        return None
    errors = [predicted / measured - 1 for predicted, measured in pairs]
    predicted, measured = (together(column) for column in zip(*pairs, strict=True))
    return PredictionError(
        num_packs=len(pairs),
        median_frac=median(map(abs, errors)),
        largest_frac=max(errors, key=abs),
        study_frac=predicted / measured - 1,
    )
