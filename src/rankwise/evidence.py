"""Whether files are still the ones that something was computed from, without reading them.

As git's index does it: size, times and inode of a file stand for its content. `st_ctime_ns` cannot be set by programs,
so a file that was written again with its old modification time is noticed, too.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("matplotlib", "numpy", "scipy", "tokenizers", "torch", "transformers")
"""What fingerprints and reports are computed with, besides this package."""


def digest(document: Any) -> str:
    """SHA-256 of a JSON document, as hexadecimal digits."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identify(paths: Iterable[Path]) -> list[tuple[str, int, int, int, int]]:
    """Per file its real path, size in bytes, times in ns and inode. Raises OSError where one cannot be looked at."""
    found = []
    for path in sorted({path.resolve() for path in paths}):
        stat = path.stat()
        found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return found


def identify_code() -> list[Any]:
    """Every file of this package, and the versions of the libraries that its results rest on."""
    package = Path(__file__).parent
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return [identify(files), [metadata.version(name) for name in LIBRARIES]]
