"""Prepared examples as one JSONL file, and beside it the analysis that says what they are."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankwise.data.examples import SPLITS, Example, SplitName
from rankwise.data.prepare import PreparedData
from rankwise.errors import DataError
from rankwise.study.config import DataSettings


def write_prepared(prepared: PreparedData, settings: DataSettings, model: str, path: Path) -> dict[str, Any]:
    """Write `path`, one example a line with its split, and `path`.analysis.json; return the latter's content.

    The file can be the `source` of a study, which keeps its splits. Both files are written under temporary names and
    renamed, so neither is ever half there.

    Args:
        model: Whose tokenizer counted the tokens.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    lines = "".join(f"{line}\n" for line in _lines(prepared))
    analysis = {
        "file": path.name,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "fingerprint": prepared.fingerprint,
        "model": model,
        "settings": settings.model_dump(mode="json"),
        "summary": prepared.summary.to_dict(),
    }
    contents = {path: lines, analysis_path(path): json.dumps(analysis, indent=2, allow_nan=False) + "\n"}
    try:
        _write_together(contents)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be written ({error.strerror or error}). Nothing was left there; choose "
            "another place with --out, or make room."
        ) from error
    return analysis


def analysis_path(path: Path) -> Path:
    """`alpaca.jsonl` -> `alpaca.jsonl.analysis.json`."""
    return path.with_name(f"{path.name}.analysis.json")


def _lines(prepared: PreparedData) -> Iterator[str]:
    for split in SPLITS:
        for example in prepared.examples[split]:
            yield json.dumps(_fields(example, split), ensure_ascii=False)


def _fields(example: Example, split: SplitName) -> dict[str, str]:
    """What `build_examples` reads back as the same example."""
    family = {"family": example.family} if example.family else {}
    if not example.has_prompt:
        return {"text": example.output, **family, "split": split}
    return {
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
        **family,
        "split": split,
    }


def _write_together(contents: dict[Path, str]) -> None:
    """All files or none of them, apart from a crash between two renames."""
    partials = {path: path.with_name(f"{path.name}.partial") for path in contents}
    try:
        for path, text in contents.items():
            with partials[path].open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
