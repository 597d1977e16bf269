"""Keep freed host memory in the process instead of handing it back to the kernel after every operation.

glibc serves blocks above 32 MiB by `mmap` and returns them at once, so each large activation is page-faulted in anew
by the operation that fills it. On a packed CPU training step this cost between 1.5x and 9x (docs/log.md). Only glibc
has these switches; elsewhere the call does nothing and says so.
"""

import ctypes

# Parameter numbers of mallopt(3), from <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

TRIM_THRESHOLD_BYTES = 2**31 - 1
"""mallopt takes a C int, so this is the largest threshold there is."""


def keep_freed_memory() -> bool:
    """Ask the C allocator to keep and reuse freed blocks for the rest of the process's life.

    Returns:
        Whether the allocator understood; False on musl, macOS and Windows, where training is correct but slower.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mmap_off = mallopt(M_MMAP_MAX, 0)
    trim_late = mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    return bool(mmap_off and trim_late)
