"""Weights & Biases: one W&B run a run, in the group of its study; online, or as offline runs for `wandb sync`.

The id of the W&B run follows from study and run, so the service itself keeps a run from being there twice. Its summary
has the digest of what was pushed, written last; an offline run is a folder that is whole or not there.
"""

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rankwise.errors import TrackerError
from rankwise.tracking.entry import Entry, Outcome, first_line
from rankwise.tracking.folders import push_folder

DIGEST = "rankwise_digest"
TIMEOUT_S = 30.0
"""How long the service may take to answer the first time."""


class OfflineWandbTracker:
    """Writes W&B's own files below a folder, one folder a run; nothing is sent until `wandb sync` sends it."""

    def __init__(self, folder: Path, project: str) -> None:
        self.place = f"W&B offline runs in {folder}"
        self._folder, self._project = folder, project

    def push(self, entry: Entry) -> Outcome:
        with _readable_errors(self.place, entry):
            return push_folder(self._folder, entry, lambda folder: self._write(entry, folder))

    def _write(self, entry: Entry, folder: Path) -> None:
        import wandb

        with _begun(entry, self._project, "offline", folder) as run:
            _log(run, entry, first_step=0)
        # `finish` may come back before W&B's own process has written the run; this waits until that process has ended.
        wandb.teardown()


class WandbTracker:
    """Sends to the service that WANDB_BASE_URL or `wandb login` names."""

    def __init__(self, project: str) -> None:
        self._base_url = _require_login()
        self.place = f"W&B at {self._base_url}, project {project}"
        self._project = project

    def push(self, entry: Entry) -> Outcome:
        with _readable_errors(self.place, entry), tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
            with _begun(entry, self._project, "online", Path(folder)) as run:
                is_there = run.resumed and run.summary.get(DIGEST) == entry.digest
                if not is_there:
                    _log(run, entry, first_step=run.step if run.resumed else 0)
            return "there" if is_there else "completed" if run.resumed else "new"


def _require_login() -> str:
    """The service's address. Raises TrackerError without credentials, for which W&B would ask on the terminal."""
    import requests
    import wandb

    base_url = str(wandb.setup().settings.base_url)
    given = os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    if not given and requests.utils.get_netrc_auth(base_url) is None:
        raise TrackerError(
            f"W&B at {base_url}: there are no credentials. Run `wandb login`, or set WANDB_API_KEY; or write offline "
            "runs with --offline and send them later with `wandb sync`."
        )
    return base_url


@contextmanager
def _begun(entry: Entry, project: str, mode: Literal["online", "offline"], folder: Path) -> Iterator[Any]:
    """A W&B run that is ended whatever happens: W&B itself would hold it until this process ends."""
    run = _begin(entry, project, mode, folder)
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=int(entry.status != "finished"))  # other than 0, W&B calls the run failed


def _begin(entry: Entry, project: str, mode: Literal["online", "offline"], folder: Path) -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        init_timeout=TIMEOUT_S,
        silent=True,
        symlink=False,
        x_disable_meta=True,  # they describe this process and machine, which did not train the run
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return wandb.init(
        project=project,
        id=f"{entry.key}-{hashlib.sha256(entry.study.encode()).hexdigest()[:8]}",
        name=entry.name,
        group=entry.study,
        job_type=entry.tags.get("rankwise.purpose", "report"),
        config={**entry.parameters, **entry.link, **entry.tags},
        dir=str(folder),
        mode=mode,
        resume="allow" if mode == "online" else None,
        allow_val_change=True,
        reinit="create_new",
        settings=settings,
    )


def _log(run: Any, entry: Entry, first_step: int) -> None:
    """Metrics step by step (W&B takes steps in their order only), files, then the summary with the digest."""
    import wandb

    by_step: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for name, points in entry.series.items():
        for point in points:
            by_step[point.step][name] = point.value
    for step in sorted(step for step in by_step if step >= first_step):
        run.log(by_step[step], step=step)
    for name, content in entry.files.items():
        path = Path(run.dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        run.save(str(path), base_path=run.dir, policy="now")
        if name.endswith(".png"):
            run.log({name.removesuffix(".png"): wandb.Image(str(path))}, step=max(entry.last_step, first_step))
    run.summary.update({**entry.finals, DIGEST: entry.digest})


@contextmanager
def _readable_errors(place: str, entry: Entry) -> Iterator[None]:
    import wandb

    try:
        yield
    except (wandb.Error, TimeoutError, ConnectionError) as error:
        cause = first_line(error)
        raise TrackerError(
            f"{place}: {entry.name} was not pushed ({cause}). Check the network and `wandb login`, or write offline "
            "runs with --offline. The ledger is as it was, what was pushed is kept, and the same command goes on here."
        ) from error
