"""Keep freed host memory in the process instead of handing it back to the kernel after every operation.

glibc serves blocks above 32 MiB by `mmap` and returns them at once, so each large activation is page-faulted in anew
by the operation that fills it. On a packed CPU training step this cost between 1.5x and 9x (docs/log.md). Only glibc
has these switches; elsewhere the call does nothing and says so.

Kept blocks must not be torn, or those of the next pass do not fit into them. glibc tears them itself: each tensor's
block is aligned to 64 bytes by cutting a splinter off its front, the splinter goes to a cache of small blocks, and
whatever small thing is put there next keeps the large block's halves apart. On rows of 512 tokens of a narrow model
that took 1,088 to 1,344 MiB where 850 were needed without such caches (docs/log.md). One of the two caches can be
switched off at any time, the other only as the process starts.
"""

import ctypes
import os
import sys
from collections.abc import Mapping

# Parameter numbers of mallopt(3), from <malloc.h>.
M_MXFAST = 1
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4

TRIM_THRESHOLD_BYTES = 2**31 - 1
"""mallopt takes a C int, so this is the largest threshold there is."""
TUNABLES = "GLIBC_TUNABLES"
THREAD_CACHE = "glibc.malloc.tcache_count"


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
    fast_bins_off = mallopt(M_MXFAST, 0)
    return bool(mmap_off and trim_late and fast_bins_off)


def without_thread_caches(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with what tells glibc to keep no cache of small blocks per thread; what it already says stays."""
    given = environment.get(TUNABLES, "")
    if THREAD_CACHE in given:
        return dict(environment)
    return {**environment, TUNABLES: ":".join(filter(None, (given, f"{THREAD_CACHE}=0")))}


def restart_without_thread_caches() -> None:
    """Start this process anew, the same command under the same process id, unless the environment is settled.

    Only right at the start of a command: whatever the process holds is gone. Does nothing where the C library is not
    glibc.
    """
    environment = without_thread_caches(os.environ)
    if environment != dict(os.environ) and _has_glibc():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False
