"""Whether the report on disk is still the one that would be written: then nothing is compared and nothing drawn.

Beside a report lies what it was made from, hashed (the study, its runs, the command, and the code), and the hash of
each of its files. This module imports neither matplotlib nor scipy.
"""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rankwise.evidence import digest, identify_code
from rankwise.files import write_whole
from rankwise.ledger.results import RunRow, StudyResults

KEPT_FILE = ".report.json"


def kept_verdict(results: StudyResults, out: Path, *, command: str | None) -> str | None:
    """The answer in words of the report in `out`, if that is what `write_report` would write again; else None.

    `results` may come without details: a run's curves and losses do not change unless it is trained again, and then
    its scores and its time do.
    """
    try:
        kept = json.loads((out / KEPT_FILE).read_text(encoding="utf-8"))
        made_from, files, verdict = kept["made_from"], kept["files"], kept["verdict"]
        if made_from == _made_from(results, command) and files == _hash_files(out, files) and isinstance(verdict, str):
            return verdict
    except (OSError, ValueError, LookupError, TypeError):
        pass  # another version's, damaged, or a file of the report is gone
    return None


def keep_report(results: StudyResults, out: Path, files: Iterable[str], *, command: str | None, verdict: str) -> None:
    """Remember what the report in `out` was made from. Where that cannot be written, it is made anew next time."""
    with suppress(OSError):
        kept = {"made_from": _made_from(results, command), "files": _hash_files(out, files), "verdict": verdict}
        write_whole(out / KEPT_FILE, json.dumps(kept, indent=1))


def _made_from(results: StudyResults, command: str | None) -> str:
    documents = (
        results.environment,
        results.chosen_learning_rates,
        results.data_summary,
        results.quantization_errors,
    )
    study = [results.study, *map(dict, documents)]
    return digest([study, command, identify_code(), [_identify_run(run) for run in results.runs]])


def _identify_run(run: RunRow) -> list[object]:
    return [run.id, run.arm, run.purpose, run.status, run.error, dict(run.scores), run.wall_s, run.probe_wall_s]


def _hash_files(out: Path, names: Iterable[str]) -> dict[str, str]:
    """Raises OSError where one is missing."""
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
