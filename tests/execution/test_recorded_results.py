"""The recorded studies are of today's code and files: planned anew, they ask for the very runs that were recorded."""

import json
import shutil
from pathlib import Path

import pytest

from rankwise.execution.workbench import Workbench
from rankwise.models.dtype import default_device, resolve_settings
from rankwise.models.fingerprint import fingerprint_base
from rankwise.study import load_study, report_runs, tuning_runs

ROOT = Path(__file__).parents[2]
RECORDED = sorted(folder for folder in (ROOT / "docs" / "results").iterdir() if (folder / "comparison.json").is_file())


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_recorded_study_plans_the_runs_that_were_recorded(folder, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = load_study(ROOT / "studies" / f"{folder.name}.yaml")
    if study.arms[0].base.model != "nano":
        pytest.skip(f"its base model, {study.arms[0].base.model}, is not in the repository")
    if study.arms[0].data.source == "random_9k.json":
        alpaca = request.getfixturevalue("shared_data") / "instruct" / "alpaca_random_9k.json"
        shutil.copy(alpaca, tmp_path / "random_9k.json")
    if resolve_settings(study.arms[0].base, default_device()).dtype != "float32":
        pytest.skip("dtype: auto is not float32 on this machine, so its runs are others than the recorded ones")
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    bench = Workbench()
    fingerprints = {arm.name: (fingerprint_base(arm.base), bench.data(arm).fingerprint) for arm in study.arms}

    tuned = {run for arm in comparison["arms"] for candidate in arm["tuning"] for run in candidate["run_ids"]}
    assert {planned.run.id for planned in tuning_runs(study, fingerprints)} == tuned
    rates = {arm["name"]: arm["learning_rate"] for arm in comparison["arms"]}
    reported = {run["run_id"] for arm in comparison["arms"] for run in arm["seeds"]}
    assert {planned.run.id for planned in report_runs(study, rates, fingerprints)} == reported
