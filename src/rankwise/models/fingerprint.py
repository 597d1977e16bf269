"""What a base model is, as sixteen hexadecimal digits. They are part of every run's id."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch

from rankwise.models.dtype import default_device, resolve_settings
from rankwise.models.source import Part, locate_base, part_files
from rankwise.study.config import FOUR_BIT, BaseSettings

PARTS: tuple[Part, ...] = ("config", "tokenizer", "weights")


def fingerprint_base(settings: BaseSettings, device: torch.device | None = None) -> str:
    """Hash everything about the base that can change a run's result.

    That is the content of its weights, configuration and tokenizer (and of the Python files it ships, where they are
    allowed to run), and what changes its arithmetic: number format, quantization, attention kernel. Where the files
    lie does not matter, so a copy of a hub model has the fingerprint of the original.

    Args:
        settings: The base; what is `auto` is resolved for `device`.
        device: None for the default device.

    Raises:
        ModelError: The model cannot be found or downloaded, or is incomplete.
    """
    resolved = resolve_settings(settings, device or default_device())
    return fingerprint_folder(locate_base(resolved, *PARTS), resolved)


def fingerprint_folder(folder: Path, resolved: BaseSettings) -> str:
    """The fingerprint of a model whose files are in `folder`, under settings without `auto`."""
    paths = [path for part in PARTS for path in part_files(folder, part)]
    if resolved.trust_remote_code:
        paths += sorted(folder.glob("*.py"))
    identity = {
        "files": {path.name: _hash_file(path) for path in paths},
        "dtype": resolved.dtype,
        "quantization": resolved.quantization,
        "attention": resolved.attention,
        **_deviations(resolved),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _deviations(resolved: BaseSettings) -> dict[str, object]:
    """How 4-bit weights are held and multiplied, where that is not as usual."""
    if resolved.quantization not in FOUR_BIT:
        return {}
    found: dict[str, object] = {} if resolved.double_quantization else {"double_quantization": False}
    return found | ({} if resolved.compute_dtype == resolved.dtype else {"compute_dtype": resolved.compute_dtype})


def _hash_file(path: Path) -> str:
    stat = path.stat()
    return _hash_content(path.resolve(), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_content(path: Path, size_bytes: int, mtime_ns: int) -> str:
    """SHA-256 of the file, read once per process and version: size and time are part of the cache's key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
