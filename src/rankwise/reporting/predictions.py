"""How far the predictions of memory and time were off, over the packs in which a study's finished runs were trained.

A pack may hold runs of other studies: of its time, measured and predicted, the shares of this study's runs count. Runs
that diverged took less than was planned, and runs of older ledgers do not say in which pack they were: neither counts.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from rankwise.ledger.results import RunRow
from rankwise.reporting.values import PredictionError

Pair = tuple[float, float]
"""What was predicted, and what was measured."""


def memory_prediction(runs: Sequence[RunRow]) -> PredictionError | None:
    """Of the peak of each pack; None where no pack has both numbers."""
    pairs: list[Pair] = []
    for members in _packs(runs):
        predicted = [run.predicted_memory_bytes for run in members if run.predicted_memory_bytes]
        measured = [run.peak_memory_bytes for run in members if run.peak_memory_bytes]
        if predicted and measured:
            pairs.append((max(predicted), max(measured)))
    return _judge(pairs, max)


def time_prediction(runs: Sequence[RunRow]) -> PredictionError | None:
    """Of the time of each pack without its probes, which are not predicted; None where no pack has both numbers."""
    pairs: list[Pair] = []
    for members in _packs(runs):
        known = [
            (run.predicted_wall_s, run.wall_s - (run.probe_wall_s or 0.0))
            for run in members
            if run.predicted_wall_s is not None and run.wall_s is not None
        ]
        predicted_s, measured_s = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
        if predicted_s > 0 and measured_s > 0:
            pairs.append((predicted_s, measured_s))
    return _judge(pairs, sum)


def _packs(runs: Iterable[RunRow]) -> list[list[RunRow]]:
    """Finished runs by their pack; a run that two arms share is one."""
    packs: dict[str, dict[str, RunRow]] = {}
    for run in runs:
        if run.status == "finished" and run.pack_id is not None:
            packs.setdefault(run.pack_id, {})[run.id] = run
    return [list(members.values()) for members in packs.values()]


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
