"""What a run ran on: enough to understand a difference, nothing that identifies a person."""

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch

from rankwise.profiling.processor import processor_name

PACKAGES = ("rankwise", "torch", "transformers", "peft", "numpy", "scipy")


def describe_environment(device: torch.device, command: str) -> Mapping[str, str]:
    """Versions, processor, device, threads and the command, as text."""
    found = {
        "command": command,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "device": device_name(device),
    }
    found |= {name: metadata.version(name) for name in PACKAGES}
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def device_name(device: torch.device) -> str:
    """`cpu`, or what a GPU is called."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type


def _commit() -> str | None:
    """The commit of the source tree, where rankwise runs from one."""
    here = Path(__file__).parent
    try:
        asked = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(here), "describe", "--always", "--dirty"],  # noqa: S607 - wherever git is
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
