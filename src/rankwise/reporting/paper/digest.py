"""What a PDF was made from: a digest of the paper's sources, which the PDF carries in its metadata.

So a PDF says by itself whether it is older than the text and figures that it should show. `digest.tex` brings the
digest into the PDF, and is the one source that is not in it.
"""

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

KEY = "RankwiseSources"
"""The entry of the PDF's information dictionary."""
FILE = "digest.tex"


def digest_of(sources: Mapping[str, bytes]) -> str:
    """SHA-256 over file names and contents, in the order of the names."""
    found = hashlib.sha256()
    for name, content in sorted(sources.items()):
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def render_digest(digest: str) -> str:
    """digest.tex."""
    return f"% Of all other sources of this paper.\n\\hypersetup{{pdfinfo={{{KEY}={{{digest}}}}}}}\n"


def digest_in_tex(folder: Path) -> str | None:
    """That of the sources in `folder`, as they were written; None where there are none."""
    path = folder / FILE
    match = re.search(r"=\{([0-9a-f]{64})\}", path.read_text(encoding="utf-8")) if path.is_file() else None
    return match[1] if match else None


def digest_in_pdf(path: Path) -> str | None:
    """That of the sources which the PDF was made from; None where there is no PDF, or it does not say."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    for part in (content, *_inflated(content)):
        if match := re.search(rb"/" + KEY.encode() + rb"\s*\(([^()]*)\)", part):
            return _text(match[1])
    return None


def _inflated(pdf: bytes) -> Iterator[bytes]:
    """The compressed streams: some programs put the information dictionary into one."""
    for match in re.finditer(rb"stream\r?\n", pdf):
        with suppress(zlib.error):
            yield zlib.decompressobj().decompress(pdf[match.end() :])


def _text(literal: bytes) -> str:
    """A literal string of a PDF: octal escapes, and UTF-16 after a byte-order mark."""
    content = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), literal)
    return content.decode("utf-16" if content.startswith(b"\xfe\xff") else "latin-1")
