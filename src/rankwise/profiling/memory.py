"""Peak memory of a stretch of work: of the process on the host, of the allocator on CUDA."""

import ctypes
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches from construction on.

    On Linux the kernel's high-water mark of the resident set is reset first, after freed blocks have been handed back,
    so that an earlier peak of the same process does not count. Elsewhere the mark is that of the whole process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # before the first tensor there is no allocator that could be asked
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _return_freed_memory()
            _reset_high_water_mark()

    @property
    def is_of_stretch(self) -> bool:
        """Whether an earlier peak of the same process is left out."""
        return self.device.type == "cuda" or _CLEAR_REFS.exists()

    def peak_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _high_water_mark_bytes()


def resident_bytes() -> int:
    """Memory that this process occupies now."""
    for line in _STATUS.read_text().splitlines() if _STATUS.exists() else ():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return _high_water_mark_bytes()


def _return_freed_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _reset_high_water_mark() -> None:
    try:
        _CLEAR_REFS.write_text("5")  # proc(5): reset VmHWM to the current resident set
    except OSError:
        return


def _high_water_mark_bytes() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
