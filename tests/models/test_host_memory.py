"""The allocator setting, tried in a process of its own because it cannot be undone."""

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


def test_another_allocator_is_no_error(monkeypatch):
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert host_memory.keep_freed_memory() is False
