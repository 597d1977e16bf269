"""Studies trained by several processes of this machine.

They agree through the ledger's claims alone, as processes of different people would: each takes a share of the runs
that are left, and the runs of one that died are free for the others. The parent trains nothing. It passes on what the
workers report, so that one display shows all of them, and asks them to stop; a worker whose parent is gone stops by
itself.

Each worker is a fresh interpreter (`spawn`): a forked one would inherit the ledger's connection and torch's threads.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Literal, TypeAlias

import torch

from rankwise.errors import RankwiseError, RunFailedError
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import Member, SuiteResults, benchmark_members, run_suite
from rankwise.execution.sizing import available_bytes
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.workbench import Workbench
from rankwise.ledger import open_ledger
from rankwise.ledger.results import StudyResults
from rankwise.records import Record, RunDiverged, RunFinished, StepDone
from rankwise.study.config import Study

ASK_EVERY_S = 0.2
"""How often the parent looks whether it was asked to stop."""
SHOWN = (StepDone, RunDiverged, RunFinished)
"""Records that are worth sending to a display; adapters and losses of examples stay where they are."""

Outcome: TypeAlias = dict[str, RunFailedError] | Literal["stopped"] | Exception
"""How a worker ended: every run has ended, but for those of the studies that failed in its hands; stopped; an error."""


def run_with_workers(
    study: Study,
    ledger_url: str | None,
    options: StudyOptions,
    *,
    num_workers: int,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResults:
    """Like `run_study`, with `num_workers` processes that share the processor's threads and the memory evenly.

    A worker that dies is told of and not replaced: what killed it, most often memory, would kill the next one, too.

    Raises:
        StudyStopped: `should_stop` answered True; every worker has written its checkpoint and ended.
        RunFailedError: runs failed in the hands of every worker, or no worker is left.
        RankwiseError: whatever else stopped the workers.
    """
    members = [Member(study=study, out=options.out)]
    suite = run_suite_with_workers(
        members, ledger_url, options, num_workers=num_workers, observer=observer, should_stop=should_stop
    )
    for failure in suite.failures.values():
        raise failure
    return suite.results[study.name]


def run_suite_with_workers(
    members: Sequence[Member],
    ledger_url: str | None,
    options: StudyOptions,
    *,
    num_workers: int,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SuiteResults:
    """Like `run_suite`, with `num_workers` processes; a study has failed where it did in the hands of every worker.

    Raises:
        StudyStopped, RankwiseError: as `run_with_workers` does.
    """
    with open_ledger(ledger_url) as ledger:  # first of all, so that tables are made once
        with _started(members, ledger_url, options, num_workers) as workers:
            _watch(workers, observer or Observer(), should_stop)
        ended = [worker.outcome for worker in workers if isinstance(worker.outcome, dict)]
        if not ended:
            raise _what_happened(workers, asked=should_stop())
        failures = {name: error for name, error in ended[0].items() if all(name in other for other in ended)}
        # A worker ends only when every run that it did not fail has ended.
        done = [member for member in members if member.study.name not in failures]
        observer = observer or Observer()
        benchmark_members(done, ledger, bench=Workbench(), observer=observer, should_stop=should_stop)
        names = [member.study.name for member in done]
        return SuiteResults(results={name: ledger.study_results(name) for name in names}, failures=failures)


class _Worker:
    """A process and the parent's end of the pipe to it."""

    def __init__(self, number: int, process: SpawnProcess, channel: "Connection[Any, Any]") -> None:
        self.number = number
        self.process = process
        self.channel = channel
        self.outcome: Outcome | None = None
        """None while it works, and where it died without a word."""

    def close(self) -> None:
        self.channel.close()
        self.process.join()  # the ledger takes a process for alive until someone has asked how it ended


@contextmanager
def _started(
    members: Sequence[Member], ledger_url: str | None, options: StudyOptions, num_workers: int
) -> Iterator[Sequence[_Worker]]:
    """Workers at work; none is left behind, whatever happens."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # where `start` has to do it, it lets interrupts through again
    workers: list[_Worker] = []
    try:
        for number in range(1, num_workers + 1):
            channel, theirs = context.Pipe()
            process = context.Process(
                target=_work,
                args=(theirs, members, ledger_url, options, num_workers),
                name=f"rankwise-worker-{number}",
                daemon=True,
            )
            with _without_interrupts():
                process.start()
            theirs.close()
            workers.append(_Worker(number, process, channel))
        yield workers
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()  # only after an error or a second Ctrl-C; checkpoints are whole at any moment
            worker.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started here never sees Ctrl-C, which a terminal sends to all: its parent asks it to stop instead."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(workers: Sequence[_Worker], observer: Observer, should_stop: Callable[[], bool]) -> None:
    """Pass on what the workers report until all have ended."""
    phases: set[str] = set()
    asked = False
    working: dict[object, _Worker] = {worker.channel: worker for worker in workers}
    while working:
        if should_stop() and not asked:
            asked = True
            for worker in working.values():
                with suppress(OSError):  # it has just ended
                    worker.channel.send("stop")
        for channel in wait([worker.channel for worker in working.values()], timeout=ASK_EVERY_S):
            worker = working[channel]
            try:
                kind, *details = worker.channel.recv()
            except (EOFError, OSError):
                del working[channel]
                worker.close()
                if worker.outcome is None:
                    observer.note(_describe_death(worker, len(working)))
                continue
            if kind == "outcome":
                worker.outcome = details[0]
            elif kind != "phase":
                getattr(observer, kind)(*details)
            elif details[0] not in phases:  # each worker comes to it, and the first one counted all that is to do
                phases.add(details[0])
                observer.phase(*details)


def _describe_death(worker: _Worker, num_left: int) -> str:
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    then = f"{num_left} go on with its runs" if num_left else "none is left"
    return f"worker {worker.number} died ({how}); {then}"


def _what_happened(workers: Sequence[_Worker], *, asked: bool) -> Exception:
    """Why the study is not finished: an error before a wish to stop, and a wish to stop before deaths."""
    errors = [worker.outcome for worker in workers if isinstance(worker.outcome, Exception)]
    if errors:
        return errors[0]
    if asked or any(worker.outcome == "stopped" for worker in workers):
        return StudyStopped()
    return RunFailedError(
        f"all {len(workers)} workers died before the study was finished. Most often the system killed them because "
        "memory ran out: give fewer with --workers, or less with --memory. The same command goes on from here."
    )


class _Reports(Observer):
    """A worker's observer: sends everything to the parent."""

    def __init__(self, channel: "Connection[Any, Any]") -> None:
        self._channel = channel

    def phase(self, name: str, num_runs: int, num_done: int, num_steps: int) -> None:
        self._send("phase", name, num_runs, num_done, num_steps)

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        self._send("pack", list(run_ids), list(labels), num_steps, predicted_bytes)

    def records(self, records: Sequence[Record]) -> None:
        shown = [record for record in records if isinstance(record, SHOWN)]
        if shown:
            self._send("records", shown)

    def note(self, text: str) -> None:
        self._send("note", text)

    def _send(self, *message: Any) -> None:
        with suppress(OSError):  # nobody listens any more; `should_stop` notices that, too
            self._channel.send(message)


def _work(
    channel: "Connection[Any, Any]",
    members: Sequence[Member],
    ledger_url: str | None,
    options: StudyOptions,
    num_workers: int,
) -> None:
    """What a worker process does from its first line to its last."""
    reports, stopping = _Reports(channel), False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    def should_stop() -> bool:
        return stopping or channel.poll()  # anything that comes is the wish to stop, the end of the pipe included

    signal.signal(signal.SIGTERM, stop)
    torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))
    memory_bytes = (options.memory_bytes or available_bytes()) // num_workers
    own = replace(options, memory_bytes=memory_bytes, num_workers=num_workers)
    outcome: Outcome
    try:
        with open_ledger(ledger_url) as ledger:
            outcome = dict(run_suite(members, ledger, own, observer=reports, should_stop=should_stop).failures)
    except StudyStopped:
        outcome = "stopped"
    except RankwiseError as error:
        outcome = error
    except Exception as error:
        reports.note(traceback.format_exc())
        outcome = RunFailedError(f"a worker failed: {type(error).__name__}: {error}. Finished runs are kept.")
    with suppress(OSError):
        channel.send(("outcome", outcome))
