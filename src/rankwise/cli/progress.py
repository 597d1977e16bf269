"""What a person sees while a study trains: a bar per phase with time left, the range of losses, diverged runs."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rankwise.cli.console import error_console
from rankwise.execution.observer import Observer
from rankwise.records import Benchmarked, Record, RunDiverged, RunFinished, StepDone

PHASES = {
    "tuning": "1/2 tuning learning rates",
    "report": "2/2 reported runs",
    "benchmarks": "benchmarks on the stored adapters",
}
LOG_EVERY_S = 15.0
"""Where there is no terminal to draw a bar on, a line is printed this often."""


class StudyProgress(Observer):
    """Draws on standard error, so that standard output stays clean."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=error_console,
            disable=not error_console.is_terminal,
        )
        self._task: TaskID | None = None
        self._labels: dict[str, str] = {}
        self._losses: dict[str, float] = {}
        self._phase = ""
        self._steps_done = self._steps = 0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> "StudyProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bars.stop()

    def phase(self, name: str, num_runs: int, num_done: int, num_steps: int) -> None:
        self._phase, self._steps, self._steps_done = PHASES.get(name, name), num_steps, 0
        self._started = self._logged = time.monotonic()
        if not num_runs:
            return
        kept = f", {num_done} in the ledger already" if num_done else ""
        error_console.print(f"{self._phase}: {num_runs} runs{kept}")
        if num_steps:
            self._task = self._bars.add_task(self._phase, total=num_steps, detail="loading")

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        self._labels.update(zip(run_ids, labels, strict=True))  # other workers' packs go on
        memory = f", {predicted_bytes / 2**30:.2f} GiB predicted" if predicted_bytes else ""
        error_console.print(f"  {len(run_ids)} runs side by side{memory}")

    def records(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, StepDone):
                self._losses[record.run_id] = record.loss_nats
                self._steps_done += 1
            elif isinstance(record, RunDiverged):
                error_console.print(f"  diverged: {escape(self._name(record.run_id))}: {escape(record.cause)}")
                self._losses.pop(record.run_id, None)
            elif isinstance(record, Benchmarked):
                self._steps_done += 1
            elif isinstance(record, RunFinished):
                self._losses.pop(record.run_id, None)
                self._steps_done += record.steps if record.status == "diverged" else 0
        self._show()

    def note(self, text: str) -> None:
        error_console.print(f"  {escape(text)}")

    def _name(self, run_id: str) -> str:
        return f"{self._labels.get(run_id, '')} ({run_id})"

    def _show(self) -> None:
        losses = sorted(self._losses.values())
        detail = f"loss {losses[0]:.3f} to {losses[-1]:.3f}" if losses else ""
        if self._task is not None:
            self._bars.update(self._task, completed=min(self._steps_done, self._steps), detail=detail)
        now = time.monotonic()
        if not error_console.is_terminal and self._steps_done and now - self._logged > LOG_EVERY_S:
            self._logged = now
            left_s = (now - self._started) * (self._steps - self._steps_done) / self._steps_done
            error_console.print(f"  {self._steps_done}/{self._steps} steps, {left_s:.0f} s left, {detail}")
