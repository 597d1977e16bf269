"""Resident memory of this process over time, sampled by a thread in the background.

The kernel's high-water mark (profiling/memory.py) is exact where there is one, but knows no phases and cannot be reset
everywhere; samples tell when memory was taken. Reported is whichever saw more.
"""

import threading
from types import TracebackType

import psutil

PERIOD_S = 0.005
"""Between two samples, each of which takes about 20 microseconds."""


class ResidentSampler:
    """Samples while it is open; `peak_bytes` is the most that was seen, at least what there is on entry and exit."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.peak_bytes = 0
        self.num_samples = 0
        self._process = psutil.Process()
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resident-sampler", daemon=True)

    def __enter__(self) -> "ResidentSampler":
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._sample()

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, int(self._process.memory_info().rss))
        self.num_samples += 1
