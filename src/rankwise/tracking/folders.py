"""Entries as folders of their own, for trackers that keep files: whole or not there, found again by what they hold.

A folder is written under another name, beside the place where all of them are, and renamed. Its `pushed.json` says what
it was made from; a folder without one is not ours and is never touched.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from rankwise.errors import TrackerError
from rankwise.tracking.entry import Entry, Outcome

MARK = "pushed.json"


def push_folder(root: Path, entry: Entry, write: Callable[[Path], None]) -> Outcome:
    """Let `write` fill a new folder for the entry under `root`, unless one with the same content is there.

    Raises TrackerError where the folder cannot be written; what was there before is then as it was.
    """
    try:
        return _push_folder(root, entry, write)
    except OSError as error:
        raise TrackerError(
            f"{root}: {entry.name} cannot be written ({error.strerror or error}). Name a folder that can be written "
            "with --out, or make room; the same command goes on from here, and the ledger is as it was."
        ) from error


def _push_folder(root: Path, entry: Entry, write: Callable[[Path], None]) -> Outcome:
    parent = root / file_name(entry.study)
    earlier = _find(parent, entry)
    if earlier is not None and _mark(earlier).get("digest") == entry.digest:
        return "there"
    # Outside `root`, because a tracker that is running would show what is still being written.
    partial = root.parent / f".{root.name}.partial-{entry.key}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write(partial)
        (partial / MARK).write_text(
            json.dumps({**entry.link, "digest": entry.digest}, indent=2) + "\n", encoding="utf-8"
        )
        parent.mkdir(parents=True, exist_ok=True)
        if earlier is not None:
            shutil.rmtree(earlier)
        partial.rename(parent / f"{file_name(entry.name)} {entry.key}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return "new" if earlier is None else "completed"


def _find(parent: Path, entry: Entry) -> Path | None:
    """By its key, because the name of an arm may have changed."""
    folders = parent.iterdir() if parent.is_dir() else ()
    named = (folder for folder in folders if folder.name.endswith(f" {entry.key}"))
    return next((folder for folder in named if _mark(folder).get("rankwise.run_id") == entry.key), None)


def _mark(folder: Path) -> dict[str, str]:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def file_name(text: str) -> str:
    """The text as one part of a path that every system takes and no glob or parent folder hides in."""
    return re.sub(r"[^\w .,=+()-]", "_", text).strip(" .")[:100] or "_"
