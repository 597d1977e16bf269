"""Checkpoints of a pack: one file, written under a temporary name, flushed, checksummed, renamed.

The file is the SHA-256 of the rest (64 hexadecimal digits and a newline) followed by a safetensors document.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

_HEADER_BYTES = 65


def pack_id(run_ids: Sequence[str]) -> str:
    """A name for the pack of these runs, in slot order: 16 hexadecimal digits."""
    return hashlib.sha256(" ".join(run_ids).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors and plain JSON values."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace `path` in one step: a reader sees the old file or the new one, whole."""
    payload = save(checkpoint.tensors, metadata={"state": json.dumps(checkpoint.state)})
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is none or it is damaged (the pack then starts again)."""
    if not path.exists():
        return None
    content = path.read_bytes()
    checksum, payload = content[: _HEADER_BYTES - 1], content[_HEADER_BYTES:]
    if hashlib.sha256(payload).hexdigest().encode() != checksum:
        return None
    header_size = int.from_bytes(payload[:8], "little")
    metadata = json.loads(payload[8 : 8 + header_size])["__metadata__"]
    return Checkpoint(load(payload), json.loads(metadata["state"]))
