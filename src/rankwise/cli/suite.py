"""Several study files given to one command: read together, refused together, summed up together."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from rankwise.cli.console import cell, console, error_console, print_json
from rankwise.cli.study import STOPPED, command_line, stop_on_signal
from rankwise.errors import RunFailedError, StudyError

if TYPE_CHECKING:
    from rankwise.execution.study_options import StudyOptions
    from rankwise.execution.study_plan import StudyPlan
    from rankwise.ledger.results import StudyResults
    from rankwise.study import Study

SUITE_FOLDER = ".suite"
"""Beside the results of the studies: checkpoints of the packs that they share. No study can be called so."""


def load_studies(files: Sequence[Path], *, model: str | None = None, data: str | None = None) -> "list[Study]":
    """All studies, each with `model` and `data` in place of the file's own where they are given.

    Raises:
        StudyError: of all files that cannot be used at once; or two studies have one name, so that one's results would
            overwrite the other's.
    """
    from rankwise.study import load_study

    studies: list[Study] = []
    problems: list[str] = []
    for file in files:
        try:
            studies.append(load_study(file, model=model, data=data))
        except StudyError as error:
            problems.append(str(error))
    if problems:
        raise StudyError("\n".join(problems))
    _refuse_equal_names(files, [study.name for study in studies])
    return studies


def _refuse_equal_names(files: Sequence[Path], names: Sequence[str]) -> None:
    for name, number in Counter(names).items():
        if number > 1:
            named = " and ".join(str(file) for file, own in zip(files, names, strict=True) if own == name)
            raise StudyError(
                f"{named} are both called {name}, so one's results would take the place of the other's. Give one of "
                "them another `name`, or run them apart."
            )


class SuiteRun:
    """One study or several on their way to their reports."""

    def __init__(self, studies: "Sequence[Study]", folders: Mapping[str, Path], ledger_url: str | None) -> None:
        """Studies that are finished have their reports, written again only where they must be."""
        self._studies = studies
        self._folders = folders
        self._ledger_url = ledger_url
        self._results: dict[str, StudyResults] = {}
        self._verdicts: dict[str, str] = {}
        self._failures: Mapping[str, RunFailedError] = {}
        for study in studies:
            self._take_finished(study)

    @property
    def unfinished(self) -> "list[Study]":
        """Studies with something to train, or of which that cannot be known without loading models and data."""
        return [study for study in self._studies if study.name not in self._results]

    def _take_finished(self, study: "Study") -> None:
        from rankwise.execution.finished import finished_results
        from rankwise.ledger import open_ledger
        from rankwise.reporting.kept import kept_verdict

        folder = self._folders[study.name]
        with open_ledger(self._ledger_url) as ledger:
            results = finished_results(study, ledger, folder)
            if results is None:
                return
            error_console.print(f"study {study.name}: all {len(results.runs)} runs are in the ledger already")
            verdict = kept_verdict(results, folder, command=command_line())
            self._results[study.name] = results
            self._verdicts[study.name] = verdict or self._report(ledger.study_results(study.name))

    def train(self, options: "StudyOptions", num_workers: int) -> None:
        """Train what is missing and report it; `options.out` holds the checkpoints."""
        from rankwise.cli.progress import StudyProgress
        from rankwise.execution.run_study import Member, run_suite
        from rankwise.execution.study_options import StudyStopped
        from rankwise.execution.workers import run_suite_with_workers
        from rankwise.ledger import open_ledger

        members = [Member(study=study, out=self._folders[study.name]) for study in self.unfinished]
        shared = f", {num_workers} workers" if num_workers > 1 else ""
        for member in members:
            arms = len(member.study.arms)
            error_console.print(f"study {member.study.name}: {arms} arms, results in {member.out}{shared}")
        try:
            with StudyProgress() as progress, stop_on_signal() as stop:
                if num_workers > 1:
                    found = run_suite_with_workers(
                        members,
                        self._ledger_url,
                        options,
                        num_workers=num_workers,
                        observer=progress,
                        should_stop=stop.is_set,
                    )
                else:
                    with open_ledger(self._ledger_url) as ledger:
                        found = run_suite(members, ledger, options, observer=progress, should_stop=stop.is_set)
        except StudyStopped:
            error_console.print("stopped; everything so far is kept, and the same command goes on from here.")
            raise typer.Exit(STOPPED) from None
        self._failures = found.failures
        for name, results in found.results.items():
            self._results[name], self._verdicts[name] = results, self._report(results)

    def _report(self, results: "StudyResults") -> str:
        from rankwise.reporting.write import write_report

        return write_report(results, self._folders[results.name], command=command_line()).verdict

    def print(self, as_json: bool) -> None:
        """The verdicts; of several studies then a table of them, and at the end what failed.

        Raises:
            RunFailedError: of the first study that is not complete.
        """
        if as_json:
            self._print_json()
        else:
            self._print_words()
        for failure in self._failures.values():
            raise failure

    def _print_json(self) -> None:
        documents = [
            (self._folders[name] / "comparison.json").read_text(encoding="utf-8")
            for name in self._folders
            if name in self._results
        ]
        if len(self._folders) == 1:
            console.file.write("".join(documents))
        else:
            print_json({"studies": [json.loads(document) for document in documents]})

    def _print_words(self) -> None:
        is_suite = len(self._folders) > 1
        for name in self._folders:
            if name in self._verdicts:
                title = f"{name}\n" if is_suite else ""
                console.print(f"\n{title}{self._verdicts[name]}\n", markup=False)
        if is_suite:
            console.print(suite_table(self._results, self._folders, list(self._failures)))
            console.print(f"\n{runs_in_words(self._results)}", markup=False)
        elif self._results:
            folder = next(iter(self._folders.values()))
            console.print(f"report: {folder / 'RESULTS.md'}", markup=False)
            console.print(f"page:   {folder / 'report.html'}", markup=False)


def sharing_in_words(plans: "Sequence[StudyPlan]") -> str:
    """How many runs the studies have together, and how many of them are the same."""
    total = sum(len(plan.runs) for plan in plans)
    known = Counter(run.id for plan in plans for run in plan.runs if run.id is not None)
    shared = sum(number - 1 for number in known.values())
    unknown = sum(run.id is None for plan in plans for run in plan.runs)
    text = f"{len(plans)} studies: {total} runs, {total - shared} of them different; each of these is trained once."
    if unknown:
        text += f" {unknown} depend on a learning rate that is still to be chosen, so more may turn out to be the same."
    return text


def suite_table(results: "Mapping[str, StudyResults]", folders: Mapping[str, Path], failed: Sequence[str]) -> Table:
    """What came of each study: its runs, the verdicts of its comparisons, and where the report is."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("study", overflow="fold")
    for name in ("arms", "runs"):
        table.add_column(name, justify="right")
    table.add_column("against its baseline")
    table.add_column("report", overflow="fold")
    for name, folder in folders.items():
        if name in results:
            found = results[name]
            arms, runs = cell(len(found.arm_names)), cell(len({run.id for run in found.runs}))
            table.add_row(cell(name), arms, runs, cell(_outcomes(folder)), cell(folder / "RESULTS.md"))
        else:
            why = "a run failed" if name in failed else None
            table.add_row(cell(name), cell(None), cell(None), cell(why, "yellow"), cell(None))
    return table


def runs_in_words(results: "Mapping[str, StudyResults]") -> str:
    """`3 studies, 250 runs; 24 of them serve more than one.`"""
    places = Counter(run_id for found in results.values() for run_id in {run.id for run in found.runs})
    shared = sum(number > 1 for number in places.values())
    return f"{len(results)} studies, {len(places)} runs; {shared} of them serve more than one."


def _outcomes(folder: Path) -> str:
    """`1 better, 3 undecided`, from the report."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    found = Counter(arm["difference"]["outcome"] for arm in comparison["arms"] if arm["difference"])
    return ", ".join(f"{number} {outcome}" for outcome, number in found.items()) or "nothing to compare"
