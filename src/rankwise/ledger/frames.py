"""A ledger as pandas data frames, with columns of one type each: for notebooks, and for statistics of one's own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rankwise.ledger.flat import ColumnKind, metric_series, run_cells, run_columns, run_settings
from rankwise.ledger.results import StudyResults

if TYPE_CHECKING:
    import pandas

DTYPES: dict[ColumnKind, str] = {
    "text": "string",
    "int": "Int64",
    "float": "float64",
    "time": "datetime64[us, UTC]",
}
"""pandas' types. Whole numbers and texts can be missing (`pandas.NA`); a missing float is NaN, as pandas has it."""


def runs_frame(studies: Iterable[StudyResults], *, settings: bool = False) -> "pandas.DataFrame":
    """One row for each place that a run has in a study; the columns of `RUN_COLUMNS`, with settings as further ones."""
    import pandas

    rows = [(results, run) for results in studies for run in results.runs]
    columns = run_columns([run for _, run in rows])
    cells = [run_cells(results.name, run, columns) for results, run in rows]
    frame = pandas.DataFrame(
        {name: pandas.Series([row[name] for row in cells], dtype=DTYPES[kind]) for name, kind in columns.items()}
    )
    if not settings:
        return frame
    more = pandas.DataFrame([run_settings(results, run) for results, run in rows], index=frame.index)
    return frame.join(more.drop(columns=["seed", "learning_rate"], errors="ignore"))


def metrics_frame(studies: Iterable[StudyResults]) -> "pandas.DataFrame":
    """One row a run and step, one column a metric of `metric_series`; NaN where it was not measured at that step."""
    import pandas

    series = {run.id: metric_series(run) for results in studies for run in results.runs}
    names = list(dict.fromkeys(name for of_run in series.values() for name in of_run))
    ids: list[str] = []
    steps: list[int] = []
    values: dict[str, list[float]] = {name: [] for name in names}
    for run_id, of_run in series.items():
        by_step = {name: {point.step: point.value for point in points} for name, points in of_run.items()}
        for step in sorted({step for points in by_step.values() for step in points}):
            ids.append(run_id)
            steps.append(step)
            for name in names:
                values[name].append(by_step.get(name, {}).get(step, float("nan")))
    return pandas.DataFrame(
        {
            "id": pandas.Series(ids, dtype="string"),
            "step": pandas.Series(steps, dtype="int64"),
            **{name: pandas.Series(column, dtype="float64") for name, column in values.items()},
        }
    )
