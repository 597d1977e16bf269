"""From a ledger to a tracker: which entries there are, and pushing them one after the other.

Each entry is complete or will be completed by the next push, so a push may stop anywhere.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import LedgerError
from rankwise.ledger import Ledger, RunRow, StudyResults
from rankwise.tracking.entry import Entry, Outcome, Tracker, report_entry, run_entry

ENDED = ("finished", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What of a ledger to push."""

    study: str | None = None
    """None: every study."""
    run_ids: Collection[str] | None = None
    """None: every run, and the reports; else these runs only."""
    results: Path = Path("results")
    """Folder of the results folders."""
    study_results: Path | None = None
    """The results folder of the one `study`, where it is not `results/NAME`."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What became of one entry."""

    key: str
    study: str
    name: str
    outcome: Outcome


def push(ledger: Ledger, tracker: Tracker, options: PushOptions) -> Iterator[Pushed]:
    """Push every run that has ended, and the report of each study that has one; yields after each.

    Raises:
        LedgerError: there is no such study, or a run that was asked for is in none.
        TrackerError: the tracker cannot be reached, or refuses; what was yielded before is there.
    """
    for entry in entries(ledger, options):
        outcome = tracker.push(entry)
        yield Pushed(key=entry.key, study=entry.study, name=entry.name, outcome=outcome)


def entries(ledger: Ledger, options: PushOptions) -> Iterator[Entry]:
    """Made one at a time: a study's files need not fit the memory at once."""
    names = ledger.study_names() if options.study is None else [options.study]
    missing = set(options.run_ids or ())
    for name in names:
        results = ledger.study_results(name)
        folder = options.study_results or options.results / name
        for run_id, places in _ended(results).items():
            if options.run_ids is None or run_id in options.run_ids:
                missing.discard(run_id)
                yield run_entry(results, places, ledger.environment_of(run_id), folder / "adapters" / run_id)
        if options.run_ids is None and (report := report_entry(results, folder)):
            yield report
    if missing:
        where = f"study {options.study}" if options.study else "any study"
        raise LedgerError(
            f"ledger {ledger.place}: {', '.join(sorted(missing))} has not ended or is not part of {where}, so there is "
            "nothing to push. `rankwise runs show ID` says what became of it."
        )


def _ended(results: StudyResults) -> dict[str, list[RunRow]]:
    """By id: a run that several arms share has as many places."""
    places: defaultdict[str, list[RunRow]] = defaultdict(list)
    for run in results.runs:
        if run.status in ENDED:
            places[run.id].append(run)
    return places
