"""What a tracker is given: one entry a run, and one for the report of a study. Plain values; no tracker is imported."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from rankwise.evidence import digest
from rankwise.ledger.flat import Series, metric_series, run_settings
from rankwise.ledger.results import RunRow, RunStatus, StudyResults

Outcome = Literal["new", "completed", "there"]
"""It was not there; it was there in part, or as it was before; nothing was to be done."""

REPORT = "report"
"""Key of the entry that carries a study's report."""
REPORT_FILES = ("RESULTS.md", "report.html", "comparison.json", "study.resolved.json", "figures/*")
ADAPTER_FILES = ("adapter_config.json", "rankwise.json")
"""What of a run's adapter is small: what it is, without its weights."""
COSTS = ("wall_s", "probe_wall_s", "peak_memory_bytes", "probe_peak_memory_bytes", "tokens", "padding_tokens")
MAY_CHANGE = ("arm.name", "arm.train.learning_rates")
"""Settings that a study may change without changing its runs; a tracker's parameters are written once."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run, or one study's report, as every tracker takes it."""

    key: str
    """Id of the run, or `report`: with the study, what tells it from all others in a tracker."""
    study: str
    name: str
    """For people."""
    status: RunStatus = "finished"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Settings by dotted name: JSON values, without objects."""
    tags: Mapping[str, str] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    finals: Mapping[str, float] = field(default_factory=dict)
    """What has one value: final scores, parameters, cost."""
    last_step: int = 0
    """The step to which `finals` belong."""
    began_s: float | None = None
    """In seconds since 1970."""
    ended_s: float | None = None
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By relative path."""

    @cached_property
    def digest(self) -> str:
        """Hash of all that is pushed: what is in a tracker under the same digest is the same."""
        series = {name: [[point.step, point.value] for point in points] for name, points in self.series.items()}
        files = {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}
        values = [dict(self.parameters), dict(self.tags), series, dict(self.finals), files]
        return digest([self.name, self.status, *values])

    @property
    def link(self) -> dict[str, str]:
        """Tags that lead from the tracker's entry to the ledger's, and back."""
        return {"rankwise.run_id": self.key, "rankwise.study": self.study}


class Tracker(Protocol):
    """Where entries go. `push` may be repeated: it adds what is missing and nothing twice."""

    place: str
    """For people: what it is and where."""

    def push(self, entry: Entry) -> Outcome:
        """Raises TrackerError where the tracker cannot be reached or refuses it."""


def run_entry(results: StudyResults, places: Sequence[RunRow], environment: Mapping[str, str], adapter: Path) -> Entry:
    """A run of a study that has ended, with all its places in it.

    `adapter` is the folder of its adapter; where there is none, nothing of it is sent along.
    """
    run = places[0]
    arms = ", ".join(dict.fromkeys(place.arm for place in places))
    tags = {
        "rankwise.arm": arms,
        "rankwise.purpose": run.purpose,
        "rankwise.strategy": run.strategy,
        "rankwise.status": run.status,
        **({"rankwise.error": run.error} if run.error else {}),
        **{f"environment.{name}": value for name, value in environment.items()},
    }
    series = metric_series(run)
    finals = {name: value for name, value in run.scores.items() if name not in series}
    counted = {"params": run.spent_params, **{name: getattr(run, name) for name in COSTS}}
    return Entry(
        key=run.id,
        study=results.name,
        name=f"{arms} seed {run.seed} rate {run.learning_rate:g}" + " tuning" * (run.purpose == "tuning"),
        status=run.status,
        parameters=_parameters(results, run),
        tags=tags,
        series=series,
        finals={**finals, **{name: float(value) for name, value in counted.items() if value is not None}},
        last_step=run.steps or 0,
        began_s=run.claimed_at,
        ended_s=run.finished_at,
        files={**_run_documents(run, environment), **_adapter_files(adapter)},
    )


def report_entry(results: StudyResults, folder: Path) -> Entry | None:
    """The report in a study's results folder; None where there is none."""
    files = _read_files(folder, REPORT_FILES)
    if not files:
        return None
    return Entry(
        key=REPORT,
        study=results.name,
        name=f"report of {results.name}",
        tags={"rankwise.hypothesis": results.hypothesis},
        files=files,
    )


def _parameters(results: StudyResults, run: RunRow) -> dict[str, str]:
    """All settings but those that a later version of the study may change under the same run."""
    return {name: value for name, value in run_settings(results, run).items() if name not in MAY_CHANGE}


def first_line(error: Exception) -> str:
    """What a tracker's error says, without the lines that are for its own developers."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(" .:")


def _run_documents(run: RunRow, environment: Mapping[str, str]) -> dict[str, bytes]:
    """The exact specification, and what each site was planned to get and got."""
    spec = {"spec": run.spec, "environment": dict(environment)}
    files = {"run.json": _json(spec)}
    if run.sites:
        outcomes = {outcome.site: vars(outcome) for outcome in run.outcomes}
        sites = [{**vars(site), "stored": outcomes.get(site.site)} for site in run.sites]
        files["sites.json"] = _json(sites)
    return files


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _adapter_files(folder: Path) -> dict[str, bytes]:
    return {f"adapter/{name}": content for name, content in _read_files(folder, ADAPTER_FILES).items()}


def _read_files(folder: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """By relative path; none where there is no such folder."""
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
