"""Where examples come from: generated, a file, or the hub. All three end as one list of examples."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.data.columns import LoadedExample, build_examples
from rankwise.data.examples import SPLITS
from rankwise.data.files import READERS, read_rows
from rankwise.data.hub import NAMED, download_rows
from rankwise.data.skills import generate_skills
from rankwise.errors import DataError
from rankwise.study.config import DataSettings

SKILLS = "skills"

FILE_OPTIONS = ("columns",)
HUB_OPTIONS = ("columns", "subset", "split", "revision")
SKILLS_OPTIONS = ("families", "difficulty")


def load_examples(settings: DataSettings) -> list[LoadedExample]:
    """Every example of the source, in its order, before anything is left out.

    Raises:
        DataError: the source cannot be read, its columns are not understood, an option is unknown, or it is plain
            text and the template is not `plain`.
    """
    if settings.source == SKILLS:
        return _generate(settings)
    path = Path(settings.source).expanduser()
    if _is_hub_id(settings.source, path):
        _check_options(settings.options, HUB_OPTIONS)
        rows, place = download_rows(settings.source, settings.options), settings.source
    else:
        _check_options(settings.options, FILE_OPTIONS)
        _check_file(path)
        rows, place = read_rows(path), str(path)
    if not rows:
        raise DataError(f"{place}: the data set has no examples. Choose another split or source.")
    examples = build_examples(rows, place, _columns(settings.options))
    if examples[0].is_text and settings.template != "plain":
        raise DataError(
            f"data.template: {place} is plain text, which has no instruction for template {settings.template}. Set "
            "template: plain, or name the columns of instruction and output with options: {columns: ...}."
        )
    return examples


def _generate(settings: DataSettings) -> list[LoadedExample]:
    _check_options(settings.options, SKILLS_OPTIONS)
    generated = generate_skills(
        num_train=settings.train,
        num_validation=settings.validation,
        num_test=settings.test,
        seed=settings.seed,
        **settings.options,
    )
    return [LoadedExample(example, split=split) for split in SPLITS for example in generated[split]]


def _is_hub_id(source: str, path: Path) -> bool:
    """`name` or `owner/name`, unless it is there on disk or looks like a file."""
    if path.exists() or path.suffix.lower() in READERS:
        return False
    return source in NAMED or re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) is not None


def _check_file(path: Path) -> None:
    if path.is_dir():
        usable = sorted(file.name for file in path.iterdir() if file.suffix.lower() in READERS)
        listed = f"Name one of its files: {', '.join(usable[:10])}." if usable else "It holds no file of these kinds."
        raise DataError(f"data.source: {path} is a folder; allowed is a file ({', '.join(READERS)}). {listed}")
    if not path.exists():
        raise DataError(
            f"data.source: there is no file {path}. Allowed are `{SKILLS}` (generated), `alpaca` or another hub id "
            f"such as owner/name, and files ending in {', '.join(READERS)}."
        )


def _check_options(options: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in options:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DataError(
                f"data.options: {name!r} is not an option of this source{hint}. Allowed: {', '.join(allowed)}."
            )
    for name in ("subset", "split", "revision"):
        if name in options and not isinstance(options[name], str):
            raise DataError(f"data.options.{name}: {options[name]!r} is not a text. Allowed is a name on the hub.")


def _columns(options: Mapping[str, Any]) -> dict[str, str] | None:
    columns = options.get("columns")
    if columns is None:
        return None
    if not isinstance(columns, dict) or not columns or not all(isinstance(name, str) for name in columns.values()):
        raise DataError(
            f"data.options.columns: {columns!r} does not name columns. Allowed is part to column, such as "
            "{instruction: question, output: answer}."
        )
    return columns
