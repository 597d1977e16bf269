"""How the outside world watches a study run; the command line draws progress bars from it, tests ignore it."""

from collections.abc import Sequence

from rankwise.records import Record


class Observer:
    """Does nothing; override what you want to see."""

    def phase(self, name: str, num_runs: int, num_done: int, num_steps: int) -> None:
        """A phase (tuning, reporting) begins with `num_runs` runs, `num_done` of them in the ledger already.

        `num_steps` counts the optimizer steps still to be made by all of its runs.
        """

    def pack(self, run_ids: Sequence[str], labels: Sequence[str], num_steps: int, predicted_bytes: int) -> None:
        """A pack starts, or goes on from its checkpoint."""

    def records(self, records: Sequence[Record]) -> None:
        """These were just stored in the ledger."""

    def note(self, text: str) -> None:
        """Something a person should know."""
