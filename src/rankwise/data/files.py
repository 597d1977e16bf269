"""Rows of a .json, .jsonl, .csv, .parquet or .txt file, each with its place in the file."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rankwise.data.rows import Row
from rankwise.errors import DataError, first_line


def read_rows(path: Path) -> list[Row]:
    """Every row of the file, in order.

    Raises:
        DataError: the file is missing, unreadable, of another kind, not well-formed, or has no row.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: files end in {', '.join(READERS)}. Convert it to one of these, or rename it.")
    try:
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8 ({error.reason}). Save the file in UTF-8 and try again."
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its rights."
        ) from error
    if not rows:
        raise DataError(f"{path}: the file has no examples. Give a file with at least one row.")
    return rows


def _read_json(path: Path) -> Iterator[Row]:
    document = _parse_json(path.read_text(encoding="utf-8-sig"), str(path))
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        document = document["data"]
    if not isinstance(document, list):
        raise DataError(
            f'{path}: found {_kind(document)}; allowed is a list of objects, or {{"data": [...]}} around one. One '
            "object a line needs the ending .jsonl."
        )
    for number, value in enumerate(document, start=1):
        yield _object_row(value, f"row {number}", path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _object_row(_parse_json(line, f"{path}: line {number}"), f"line {number}", path)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for number, fields in enumerate(reader, start=1):
                if None in fields or None in fields.values():
                    raise DataError(
                        f"{path}: row {number} (ending in line {reader.line_num}) does not have the "
                        f"{len(reader.fieldnames or ())} fields of the header. Quote fields that contain commas or "
                        "line breaks."
                    )
                yield Row(f"row {number}", fields)
        except csv.Error as error:
            line = reader.reader.line_num
            raise DataError(
                f"{path}: line {line} is not well-formed CSV ({error}). Use commas, and double quotes around fields "
                "that contain commas, quotes or line breaks."
            ) from error


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: is not a readable Parquet file ({first_line(error)}). Write it again.") from error
    for number, fields in enumerate(table.to_pylist(), start=1):
        yield Row(f"row {number}", fields)


def _read_txt(path: Path) -> Iterator[Row]:
    """Paragraphs: runs of lines between blank ones."""
    text = path.read_text(encoding="utf-8-sig")
    paragraphs = (part.strip() for part in re.split(r"\n[^\S\n]*\n", text))
    for number, paragraph in enumerate(filter(None, paragraphs), start=1):
        yield Row(f"paragraph {number}", {"text": paragraph})


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_txt,
}
"""By ending; anything else is refused."""


def _object_row(value: Any, place: str, path: Path) -> Row:
    if isinstance(value, str):  # a list of texts
        return Row(place, {"text": value})
    if not isinstance(value, dict):
        raise DataError(f"{path}: {place} is {_kind(value)}; allowed is an object with named fields, or a text.")
    return Row(place, value)


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f", line {error.lineno}" if error.lineno > 1 else ""
        raise DataError(
            f"{place}{where}, column {error.colno}: is not JSON ({error.msg}). Correct it there and try again."
        ) from error
    except RecursionError as error:
        raise DataError(f"{place}: is nested too deeply to be a data set. Give a list of flat objects.") from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
