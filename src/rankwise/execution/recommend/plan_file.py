"""`race.json`: the size of a race, kept so that the same command means the same race, however fast the machine is."""

import json
from pathlib import Path

from rankwise.errors import AdapterError
from rankwise.execution.recommend.effort import Effort
from rankwise.execution.recommend.question import Question

PLAN_NAME = "race.json"


def read_plan(folder: Path, question: Question, time_s: float | None) -> Effort | None:
    """The effort that an earlier session chose for this question and time; None where there is none to go on with.

    Raises:
        AdapterError: the folder holds another question's recommendation, or other files.
    """
    path = folder / PLAN_NAME
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise AdapterError(f"{folder} holds other files than a recommendation's. Give a new folder with --out.")
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        name, saved_time_s, effort = saved["question"], saved["time_s"], Effort(**saved["effort"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{path} cannot be read ({error}). Remove the folder, or give a new one with --out."
        ) from error
    if name != question.name:
        raise AdapterError(
            f"{folder} holds the recommendation for another question ({name}; this one is {question.name}). Give "
            "another folder with --out; nothing was trained."
        )
    return effort if saved_time_s == time_s else None


def write_plan(folder: Path, question: Question, time_s: float | None, effort: Effort) -> None:
    """Keep the choice; shows early whether the folder can be written.

    Raises:
        AdapterError: it cannot.
    """
    document = {"question": question.name, "time_s": time_s, "effort": effort.to_dict(), "asked": question.to_dict()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{PLAN_NAME}.partial"
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / PLAN_NAME)
    except OSError as error:
        raise AdapterError(
            f"The folder {folder} cannot be written: {error.strerror or error}. Nothing was trained; give another "
            "folder with --out."
        ) from error
