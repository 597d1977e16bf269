"""MLflow: one experiment a study, one MLflow run a run, linked by the tags `rankwise.run_id` and `rankwise.study`.

The last thing that is written is the tag `rankwise.digest`. A run without it, or with another one, was pushed in part
or has more to tell since: what it has is read back, and only what it lacks is added.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankwise.errors import TrackerError
from rankwise.tracking.entry import Entry, Outcome, first_line

DIGEST = "rankwise.digest"
MAX_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""Most values of each kind that MLflow takes at once."""
MAX_TEXT = 4900
"""Characters of a tag or parameter that every version takes; `run.json` has what is longer."""
STATES = {"finished": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}
QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 wait for four minutes where no server answers
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment variables that MLflow reads; those that are set stay as they are."""


class MlflowTracker:
    """An MLflow server, database or folder.

    `uri` None: the environment's MLFLOW_TRACKING_URI, or MLflow's own default. `project` None: experiments have the
    names of the studies; else all entries go to the experiment of this name.
    """

    def __init__(self, uri: str | None, project: str | None) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import mlflow

        self._entities, self._project = mlflow.entities, project
        with self._readable_errors(uri or "the default place"):
            self._client = mlflow.MlflowClient(tracking_uri=uri)
        self.place = f"MLflow at {self._client.tracking_uri}"
        self._experiments: dict[str, str] = {}
        self._known: dict[tuple[str, str], Any] = {}
        """MLflow's run by study and key, of the experiments looked at so far."""

    def push(self, entry: Entry) -> Outcome:
        with self._readable_errors(entry.name):
            experiment = self._experiment(self._project or entry.study)
            found = self._known.get((entry.study, entry.key))
            if found is not None and found.data.tags.get(DIGEST) == entry.digest:
                return "there"
            remote = found or self._create(experiment, entry)
            self._complete(remote, entry, is_new=found is None)
            return "new" if found is None else "completed"

    def _experiment(self, name: str) -> str:
        """Its id; makes it, and reads once which runs it has."""
        if name not in self._experiments:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                raise TrackerError(
                    f"{self.place}: the experiment {name!r} was deleted there. Restore it in MLflow, or name another "
                    "one with --project."
                )
            self._experiments[name] = experiment.experiment_id if experiment else self._client.create_experiment(name)
            for run in self._runs(self._experiments[name]):
                tags = run.data.tags
                if "rankwise.run_id" in tags:
                    self._known[tags.get("rankwise.study", ""), tags["rankwise.run_id"]] = run
        return self._experiments[name]

    def _runs(self, experiment: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([experiment], max_results=1000, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _create(self, experiment: str, entry: Entry) -> Any:
        tags = {**entry.link, "mlflow.source.name": "rankwise"}
        return self._client.create_run(experiment, start_time=_ms(entry.began_s), tags=tags, run_name=entry.name)

    def _complete(self, remote: Any, entry: Entry, *, is_new: bool) -> None:
        """Everything that is not there yet; the digest last."""
        run_id = remote.info.run_id
        there = {} if is_new else remote.data.params
        parameters = {_key(name): _short(_text(value)) for name, value in entry.parameters.items()}
        params = [self._entities.Param(name, text) for name, text in parameters.items() if name not in there]
        tags = [self._entities.RunTag(_key(name), _short(text)) for name, text in entry.tags.items()]
        self._log(run_id, metrics=list(self._missing_metrics(remote, entry, is_new)), params=params, tags=tags)
        if not is_new:
            self._client.set_tag(run_id, "mlflow.runName", entry.name)
        self._upload(run_id, entry.files)
        self._client.set_terminated(run_id, STATES[entry.status], end_time=_ms(entry.ended_s))
        self._client.set_tag(run_id, DIGEST, entry.digest)

    def _missing_metrics(self, remote: Any, entry: Entry, is_new: bool) -> Iterator[Any]:
        points = {name: [(point.step, point.value) for point in series] for name, series in entry.series.items()}
        points |= {name: [(entry.last_step, value)] for name, value in entry.finals.items()}
        when = _ms(entry.ended_s) or 0  # the ledger does not keep when a step was
        for name, values in points.items():
            known = name in remote.data.metrics and not is_new
            steps = (
                {metric.step for metric in self._client.get_metric_history(remote.info.run_id, name)} if known else ()
            )
            for step, value in values:
                if step not in steps:
                    yield self._entities.Metric(name, value, when, step)

    def _log(self, run_id: str, **values: Sequence[Any]) -> None:
        for kind, items in values.items():
            for first in range(0, len(items), MAX_BATCH[kind]):
                self._client.log_batch(run_id, **{kind: items[first : first + MAX_BATCH[kind]]})

    def _upload(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """MLflow uploads folders: it gets a temporary one. Files of the same name are replaced."""
        with tempfile.TemporaryDirectory(prefix="rankwise-") as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if files:
                self._client.log_artifacts(run_id, folder)

    @contextmanager
    def _readable_errors(self, what: str) -> Iterator[None]:
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
            place = getattr(self, "place", "MLflow")
            cause = first_line(error)
            raise TrackerError(
                f"{place}: {what} was not pushed ({cause}). Check that the server runs and that --uri or "
                "MLFLOW_TRACKING_URI names it. The ledger is as it was, what was pushed before is kept, and the same "
                "command goes on from here."
            ) from error


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(1000 * seconds)


def _key(name: str) -> str:
    """MLflow's names have letters, digits and a few signs."""
    return re.sub(r"[^\w./ :-]", "_", name)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … (cut; run.json has it all)"
