"""`rankwise.json`: what a trained adapter is, beside its weights, so that the folder can be understood alone."""

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rankwise import __version__
from rankwise.errors import AdapterError
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.study.config import Arm, BaseSettings, DataSettings

RECORD_NAME = "rankwise.json"


class AdapterRecord(BaseModel, frozen=True):
    """The content of the file. Keys of a later version are ignored."""

    version: str
    """Of rankwise."""
    run_id: str
    study: str
    """Name in the ledger."""
    spec: dict[str, Any]
    """The run's identity: everything that could change its result."""
    base: BaseSettings
    """With the model's name, which the identity leaves out."""
    data: DataSettings
    """With the source's name, which the identity leaves out."""
    budget_params: int
    params: int
    """Stored: twice what was trained where the start is subtracted (`pissa`, `olora`, `loraga`)."""
    ranks: dict[str, int]
    """Stored components of each site, in forward order."""
    scales: dict[str, float]
    scores: dict[str, float | None]
    """As in `RunRow.scores`; None for what is not a finite number."""
    steps: int
    wall_s: float
    peak_memory_bytes: int
    environment: dict[str, str]

    @classmethod
    def of(cls, arm: Arm, run: RunRow, results: StudyResults) -> "AdapterRecord":
        """The record of a finished run."""
        return cls.model_validate(
            {
                "version": __version__,
                "run_id": run.id,
                "study": results.name,
                "spec": run.spec,
                "base": arm.base,
                "data": arm.data,
                "budget_params": run.budget_params,
                "params": run.params if run.stored_params is None else run.stored_params,
                "ranks": {o.site: o.rank for o in run.outcomes} or {s.site: s.realised_rank for s in run.sites},
                "scales": {site.site: site.scale for site in run.sites},
                "scores": {name: value if math.isfinite(value) else None for name, value in run.scores.items()},
                "steps": run.steps,
                "wall_s": run.wall_s,
                "peak_memory_bytes": run.peak_memory_bytes,
                "environment": results.environment,
            }
        )


def write_record(folder: Path, record: AdapterRecord) -> None:
    """Write the file into an adapter folder that nobody uses yet."""
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False)
    (folder / RECORD_NAME).write_text(f"{text}\n", encoding="utf-8")


def read_record(folder: Path) -> AdapterRecord | None:
    """The record of an adapter folder; None for one that rankwise did not train.

    Raises:
        AdapterError: the file is there and is not such a record.
    """
    path = folder / RECORD_NAME
    if not path.is_file():
        return None
    try:
        return AdapterRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AdapterError(
            f"{path} is not what `rankwise train` writes ({' '.join(str(error).split())[:300]}). Remove it to treat "
            "the adapter as one that another tool trained."
        ) from error
