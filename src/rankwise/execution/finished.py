"""A finished study, recognised in a moment: no torch, no base model and no data is loaded.

Which runs a study needs follows from the fingerprints of its base models and data, and those take seconds: imports, a
tokenizer, every example tokenized. So they are kept beside the results together with the evidence that they rest on:
which files the models and the data are, the code that reads them, and the machine. Where any of it is not what it was,
or where a model or data set comes from the hub and so may have changed there, nothing is taken from here.
"""

import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankwise.data.sources import SKILLS
from rankwise.errors import ModelError, RunFailedError
from rankwise.evidence import digest, identify, identify_code
from rankwise.execution.due_benchmarks import is_due
from rankwise.execution.tuning import choose_learning_rates
from rankwise.files import write_whole
from rankwise.ledger import Ledger
from rankwise.ledger.results import StudyResults
from rankwise.models.source import PART_FILES, local_folder
from rankwise.profiling.processor import processor_name
from rankwise.study.config import Arm, Study
from rankwise.study.plan import Fingerprints, report_runs, tuning_runs

KEPT_FILE = ".fingerprints.json"
DEVICE_VARIABLES = ("CUDA_", "NVIDIA_", "HIP_", "ROCR_", "ONEDNN_", "DNNL_", "ATEN_")
"""Beginnings of environment variables that may change the device and its number format."""


def gather_evidence(study: Study) -> str | None:
    """What the study's fingerprints rest on, hashed; None where a model or data set is not a file of this machine."""
    try:
        files = [path for arm in study.arms for path in _files_of(arm)]
        settings = {
            arm.name: [arm.base.model_dump(mode="json"), arm.data.model_dump(mode="json")] for arm in study.arms
        }
        return digest([settings, identify(files), identify_code(), _machine()])
    except (LookupError, OSError, ModelError):
        return None


def keep_fingerprints(folder: Path, evidence: str, fingerprints: Fingerprints) -> None:
    """Write them into the results folder. A folder that cannot be written costs time at the next start, no more."""
    with suppress(OSError):
        write_whole(folder / KEPT_FILE, json.dumps({"evidence": evidence, "fingerprints": dict(fingerprints)}))


def finished_results(study: Study, ledger: Ledger, folder: Path) -> StudyResults | None:
    """What the ledger holds about the study, without details, if every run it needs has ended and is registered so.

    None where that is not so, or cannot be known without loading models and data.
    """
    fingerprints = _kept_fingerprints(study, folder)
    if fingerprints is None or study.name not in ledger.study_names():
        return None
    results = ledger.study_results(study.name, with_details=False)
    if results.study != study.model_dump(mode="json"):
        return None
    try:
        chosen = choose_learning_rates(study, results)
    except (RunFailedError, KeyError):  # tuning runs are missing, or cannot be chosen from
        return None
    planned = {
        (plan.run.arm.name, plan.purpose, plan.run.id)
        for plan in [*tuning_runs(study, fingerprints), *report_runs(study, chosen, fingerprints)]
    }
    ended = {(run.arm, run.purpose, run.id) for run in results.runs if run.status in ("finished", "diverged")}
    try:
        if is_due(study, results, folder):
            return None
    except OSError:  # a benchmark's file is gone, which is told before training
        return None
    same = planned == ended and len(ended) == len(results.runs) and chosen == dict(results.chosen_learning_rates)
    return results if same else None


def _kept_fingerprints(study: Study, folder: Path) -> Fingerprints | None:
    try:
        kept = json.loads((folder / KEPT_FILE).read_text(encoding="utf-8"))
        if kept["evidence"] != gather_evidence(study):
            return None
        return {arm.name: (str(kept["fingerprints"][arm.name][0]), str(kept["fingerprints"][arm.name][1]))
                for arm in study.arms}  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _files_of(arm: Arm) -> Iterator[Path]:
    """Raises LookupError where the model or the data is on the hub or not there."""
    folder = local_folder(arm.base)
    if folder is None:
        raise LookupError(arm.base.model)
    for pattern in [*(pattern for patterns in PART_FILES.values() for pattern in patterns), "*.py"]:
        yield from folder.glob(pattern)
    if arm.data.source != SKILLS:
        path = Path(arm.data.source).expanduser()
        if not path.is_file():
            raise LookupError(arm.data.source)
        yield path


def _machine() -> list[object]:
    """What `auto` settings are decided by."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(DEVICE_VARIABLES)}
    devices = sorted(path.name for path in Path("/dev").glob("nvidia*"))
    return [platform.node(), platform.machine(), processor_name(), devices, variables]
