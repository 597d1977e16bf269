"""The allocator setting, tried in a process of its own because it cannot be undone."""

import os
import platform
import subprocess
import sys

import pytest

from rankwise.models import host_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_glibc_takes_the_setting():
    code = "from rankwise.models.host_memory import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_what_the_environment_says_of_the_allocator_stays():
    settled = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    assert host_memory.without_thread_caches({}) == settled
    assert host_memory.without_thread_caches(settled) == settled
    assert host_memory.without_thread_caches({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"})[
        "GLIBC_TUNABLES"
    ].endswith("=3")
    other = host_memory.without_thread_caches({"GLIBC_TUNABLES": "glibc.malloc.perturb=1", "A": "b"})
    assert other == {"GLIBC_TUNABLES": "glibc.malloc.perturb=1:glibc.malloc.tcache_count=0", "A": "b"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_a_command_that_trains_starts_anew_once_with_the_same_arguments():
    code = (
        "import os, sys; from rankwise.models.host_memory import restart_without_thread_caches as restart; "
        "print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), sys.argv[1:], flush=True); restart()"
    )
    clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", code, "a b"], capture_output=True, text=True, check=True, env=clean)
    first, second = done.stdout.splitlines()
    assert second == first.replace("None", "glibc.malloc.tcache_count=0")
    assert first.endswith("['a b']")


def test_another_allocator_is_no_error(monkeypatch):
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert host_memory.keep_freed_memory() is False
