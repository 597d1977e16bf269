"""The list of runs for other programs: CSV, Parquet or JSON, to standard output or as a file, whole or not at all."""

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import typer

from rankwise.cli.console import error_console, finite, printable
from rankwise.files import write_whole
from rankwise.ledger.flat import ColumnKind, run_cells, run_columns
from rankwise.ledger.results import RunRow

ListFormat = Literal["table", "csv", "parquet", "json"]
SUFFIXES: Mapping[str, ListFormat] = {".csv": "csv", ".parquet": "parquet", ".json": "json"}


def choose_format(form: ListFormat | None, as_json: bool, out: Path | None) -> ListFormat:
    """What `--format`, `--json` and the name of `--out` ask for together; a table if nothing.

    Raises BadParameter where they contradict each other, and where bytes would go to a terminal.
    """
    if as_json and form not in (None, "json"):
        raise typer.BadParameter(f"--json and --format {form} are two formats; give one of them.")
    chosen = "json" if as_json else form
    if out is None:
        if chosen == "parquet" and sys.stdout.isatty():
            raise typer.BadParameter("Parquet is no text for a terminal; name a file with --out, or pipe it.")
        return chosen or "table"
    chosen = chosen or SUFFIXES.get(out.suffix.lower())
    if chosen is None or chosen == "table":
        raise typer.BadParameter(
            f"--out {out}: give --format csv, parquet or json, or a name that ends in one of {', '.join(SUFFIXES)}."
        )
    return chosen


def write_runs(rows: Sequence[tuple[str, RunRow]], form: ListFormat, out: Path | None) -> None:
    """Write (study, run) pairs to standard output or, whole or not at all, to the file `out`."""
    content = {"csv": to_csv, "parquet": to_parquet, "json": to_json}[form](rows)
    if out is None:
        _write_to_standard_output(content)
        return
    write_whole(out, content)
    error_console.print(f"{len(rows)} runs: {printable(str(out))}", markup=False, soft_wrap=True)


def _write_to_standard_output(content: bytes) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(printable(content.decode()))  # an error message in the ledger must not steer the terminal
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


def to_json(rows: Sequence[tuple[str, RunRow]]) -> bytes:
    """One document; null for what is missing or not a number."""
    return (json.dumps([_list_entry(study, run) for study, run in rows], indent=2, allow_nan=False) + "\n").encode()


def _list_entry(study: str, run: RunRow) -> dict[str, Any]:
    return {
        "id": run.id,
        "study": study,
        "arm": run.arm,
        "purpose": run.purpose,
        "strategy": run.strategy,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "status": run.status,
        "params": run.spent_params,
        "scores": finite(run.scores),
        "wall_s": run.wall_s,
        "peak_memory_bytes": run.peak_memory_bytes,
    }


def to_csv(rows: Sequence[tuple[str, RunRow]]) -> bytes:
    """UTF-8 with a head line, quoted as RFC 4180 has it: missing is empty, not a number is NaN, times are ISO 8601."""
    columns = run_columns([run for _, run in rows])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for study, run in rows:
        writer.writerow([_csv_cell(value) for value in run_cells(study, run, columns).values()])
    return text.getvalue().encode()


def _csv_cell(value: Any) -> Any:
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case datetime():
            return value.isoformat()
    return value


def to_parquet(rows: Sequence[tuple[str, RunRow]]) -> bytes:
    """The same columns with their types; null is missing, NaN is not a number."""
    import pyarrow
    from pyarrow import parquet

    types: dict[ColumnKind, Any] = {
        "text": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    columns = run_columns([run for _, run in rows])
    cells = [run_cells(study, run, columns) for study, run in rows]
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(cells, schema=schema), buffer)
    return buffer.getvalue()
