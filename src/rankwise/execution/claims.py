"""Keeping a claim alive while its pack trains."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rankwise.errors import LedgerError
from rankwise.ledger import Ledger

HEARTBEAT_EVERY_S = 20.0


@contextmanager
def heartbeats(ledger: Ledger, run_ids: Sequence[str], worker: str) -> Iterator[None]:
    """Tell the ledger from a second thread that `worker` still trains `run_ids`; a pack step may take minutes."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_EVERY_S):
            # A ledger that cannot be reached now is the next write's to report, from the thread that trains.
            with suppress(LedgerError):
                ledger.heartbeat(run_ids, worker)

    thread = threading.Thread(target=beat, name="rankwise-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
