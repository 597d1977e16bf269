"""Study files to studies, and resolved studies to JSON and back.

A file is refused with everything that is wrong with it at once, one line for each setting:

    studies/x.yaml:14: arms[1].frist is not a setting of linear_decay; did you mean first? Allowed: first, last, ...
"""

import json
from pathlib import Path

from pydantic import ValidationError

from rankwise.errors import StudyError
from rankwise.study.config import Study
from rankwise.study.document import read_document
from rankwise.study.overrides import STUDY_KEYS, expand, replace_in_arms
from rankwise.study.problems import find_problems, shown

MAX_FILE_BYTES = 1 << 20
"""A larger file is not a study."""


def load_study(path: Path, *, model: str | None = None, data: str | None = None) -> Study:
    """Read and validate a study file.

    Args:
        model: Takes the place of `base.model` in every arm: a local folder where the file names a model of the hub.
        data: Takes the place of `data.source` in every arm.

    Raises StudyError where the file cannot be read, and for all settings in it that cannot be used.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: byte {error.start} is not UTF-8; a study file is UTF-8 text.") from None
    except IsADirectoryError:
        raise StudyError(f"{path} is a folder; name the study file in it.") from None
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}. Check the path of the study file.") from None
    return parse_study(text, origin=str(path), model=model, data=data)


def parse_study(text: str, *, origin: str, model: str | None = None, data: str | None = None) -> Study:
    """Validate the text of a study file; `origin` is the name that errors give it.

    Raises StudyError with one line for each problem: origin and line, the setting, its value, what is allowed.
    """
    if len(text.encode(errors="replace")) > MAX_FILE_BYTES:
        raise StudyError(f"{origin} is larger than {MAX_FILE_BYTES} bytes, the limit of a study file.")
    document = read_document(text, origin=origin)
    if not isinstance(document.value, dict):
        found = "is empty" if document.value is None else f"holds {shown(document.value)}"
        raise StudyError(f"{origin} {found}; a study file is a mapping with the keys {', '.join(STUDY_KEYS)}.")
    full, study, errors = expand(document.value), None, []
    if model is not None:
        replace_in_arms(full, "base", {"model": model, "revision": None})
    if data is not None:
        replace_in_arms(full, "data", {"source": data})
    try:
        study = Study.model_validate_json(json.dumps(full), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems = find_problems(document, full, errors)
    if problems:
        raise StudyError("\n".join(problems))
    assert study is not None, errors
    return study


def resolved_json(study: Study) -> str:
    """The study with every setting spelled out, as canonical JSON: what `study.resolved.json` holds."""
    return json.dumps(study.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def load_resolved(text: str) -> Study:
    """The inverse of `resolved_json`. Raises StudyError on anything else."""
    try:
        return Study.model_validate_json(text)
    except ValidationError as error:
        raise StudyError(f"not a resolved study: {error}") from None
