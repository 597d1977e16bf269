"""Where unfinished packs keep their state."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rankwise.training.checkpoint import pack_id, read_checkpoint


class CheckpointFolder:
    """One file per pack, named by a hash of its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run_ids: Sequence[str]) -> Path:
        return self.folder / f"{pack_id(run_ids)}.checkpoint"

    def packs(self) -> Iterator[list[str]]:
        """Run ids of each pack that has a readable checkpoint, in slot order; a damaged file is removed."""
        for path in sorted(self.folder.glob("*.checkpoint")):
            try:
                saved = read_checkpoint(path)
            except FileNotFoundError:  # another worker has just finished this pack
                continue
            if saved is None:
                path.unlink(missing_ok=True)
                continue
            yield saved.state["run_ids"]

    def clear(self) -> None:
        """Remove what a finished study no longer needs."""
        shutil.rmtree(self.folder, ignore_errors=True)
