"""One run from its settings to one adapter folder, by the same way that a study goes."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rankwise.errors import AdapterError, RankwiseError, RunFailedError
from rankwise.execution.adapter_record import AdapterRecord, read_record, write_record
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import Ledger, RunRow, StudyResults, open_ledger
from rankwise.lora.peft_folder import CONFIG_NAME, check_replaceable, replace_folder
from rankwise.study.config import Study


def train_one(
    study: Study,
    ledger: Ledger,
    folder: Path,
    *,
    command: str = "rankwise train",
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> AdapterRecord:
    """Train the only run of `study`; its adapter with `rankwise.json` ends up in `folder`, whole or not at all.

    Until then checkpoints and the adapter lie in `FOLDER.training`, which is removed in the end. A folder that holds
    this run's adapter already is left as it is.

    Raises:
        AdapterError: the folder holds something else, or cannot be written.
        RunFailedError: the run diverged or failed; there is no adapter.
        StudyStopped: `should_stop` answered True; the same call goes on.
    """
    target = folder.absolute()
    work = target.with_name(f"{target.name}.training")
    _check_target(target, study)
    _make(work)

    def run(opened: Ledger) -> StudyResults:
        options = StudyOptions(out=work, command=command)
        return run_study(study, opened, options, observer=observer, should_stop=should_stop)

    try:
        results = run(ledger)
    except RankwiseError:
        with suppress(OSError):  # refused before anything was written; a folder that holds something stays
            work.rmdir()
        raise
    if _is_without_adapter(results.runs[0], work, target):
        # Another command trained this run and kept its adapter elsewhere. The ledger has its scores for good, so the
        # weights are made again beside a ledger of their own.
        with open_ledger(str(work / "again.db")) as own:
            results = run(own)
    (trained,) = results.runs
    if trained.status == "finished":
        _place(study, trained, results, work, target)
    shutil.rmtree(work, ignore_errors=True)
    if trained.status != "finished":
        raise RunFailedError(_diverged(trained))
    record = read_record(target)
    assert record is not None
    return record


def _check_target(target: Path, study: Study) -> None:
    check_replaceable(target)
    if (target / CONFIG_NAME).is_file():
        record = read_record(target)
        if record is None or record.study != study.name:
            raise AdapterError(
                f"{target} holds the adapter of another run. Remove it, or give another folder with --out; nothing was "
                "trained."
            )


def _make(work: Path) -> None:
    """Show early whether the place can be written."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AdapterError(
            f"The folder {work.parent} cannot be written: {error.strerror or error}. Nothing was trained; give another "
            "folder with --out."
        ) from error


def _is_without_adapter(run: RunRow, work: Path, target: Path) -> bool:
    return run.status == "finished" and not _adapter(work, run).is_dir() and not _holds(target, run)


def _adapter(work: Path, run: RunRow) -> Path:
    return work / "adapters" / run.id


def _holds(target: Path, run: RunRow) -> bool:
    record = read_record(target)
    return record is not None and record.run_id == run.id


def _place(study: Study, run: RunRow, results: StudyResults, work: Path, target: Path) -> None:
    """Move a new adapter into place, together with its record."""
    made = _adapter(work, run)
    if not made.is_dir():
        return
    try:
        write_record(made, AdapterRecord.of(study.arms[0], run, results))
        replace_folder(made, target)
    except OSError as error:
        raise AdapterError(
            f"The adapter could not be moved to {target}: {error.strerror or error}. It lies in {made}; make room and "
            "give the same command again."
        ) from error


def _diverged(run: RunRow) -> str:
    return (
        f"run {run.id} diverged and was ended: {run.error}. No adapter was written. Give a learning rate below "
        f"{run.learning_rate:g} with --learning-rate; `rankwise runs show {run.id}` shows the course of the loss."
    )
