"""A folder of files that are put in place together: all of them or none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rankwise.errors import ReportError


@contextmanager
def staged(out: Path, what: str, advice: str) -> Iterator[Path]:
    """A folder beside the final files, on the same disk, that is gone afterwards whatever happens.

    Raises:
        ReportError: `what` (`report`) cannot be written into `out`; `advice` says what to do.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{what}-", dir=out) as staging:
            yield Path(staging)
    except OSError as error:
        raise ReportError(f"{out}: the {what} cannot be written ({error.strerror or error}). {advice}") from error
