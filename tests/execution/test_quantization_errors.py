"""A study with quantized arms: what the report says about its layers, and what is said where the whole does not fit."""

import csv

import pytest

pytest.importorskip("bitsandbytes", reason="needs the extra `quant`")

from rankwise.execution import run_study as module
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions
from rankwise.ledger import open_ledger
from rankwise.models.load import load_skeleton
from rankwise.models.sites import find_sites
from rankwise.reporting.write import write_report
from rankwise.study import parse_study
from rankwise.study.config import BaseSettings

STUDY = """
name: quantized
hypothesis: Quantizing the base raises held-out loss.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 4, validation: 4, test: 4}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [1.0e-3]}}
arms:
  - uniform
  - {{name: int8, strategy: uniform, base: {{quantization: int8}}}}
  - {{name: nf4, strategy: uniform, base: {{quantization: nf4}}}}
  - {{name: nf4 twice, strategy: uniform, base: {{quantization: nf4, compute_dtype: bfloat16}}}}
seeds: 1
"""


def test_errors_are_measured_once_and_reported_by_layer(small_model, tmp_path, monkeypatch):
    study = parse_study(STUDY.format(folder=small_model), origin="quantized.yaml")
    with open_ledger(f"sqlite:///{tmp_path}/rankwise.db") as ledger:
        results = run_study(study, ledger, StudyOptions(out=tmp_path))
        monkeypatch.setattr(module, "measure_errors", None)  # not called again
        run_study(study, ledger, StudyOptions(out=tmp_path))
    assert {row.status for row in results.runs} == {"finished"}
    bases = results.quantization_errors["bases"]
    assert [(base["form"], base["arms"]) for base in bases] == [("int8", ["int8"]), ("nf4", ["nf4", "nf4 twice"])]
    sites = find_sites(load_skeleton(BaseSettings(model=str(small_model))))
    for base in bases:
        assert [site["site"] for site in base["sites"]] == [site.name for site in sites]
        assert all(0 < site["output_error_frac"] < 0.5 for site in base["sites"])
    files = write_report(results, tmp_path)
    text = files.results.read_text()
    section = text.split("## Quantization error")[1].split("\n## ")[0]
    assert "| **int8** | 14 |" in section
    assert "down_proj" in section
    with (tmp_path / "figures" / "quantization_error.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * len(sites)
    assert float(rows[0]["weight_error_frac"]) == bases[0]["sites"][0]["weight_error_frac"]


def test_where_the_whole_base_does_not_fit_that_is_said(small_model):
    from rankwise.execution.quantization_errors import measure_errors
    from rankwise.execution.workbench import Workbench
    from rankwise.reporting.quantization_section import quantization_section

    study = parse_study(STUDY.format(folder=small_model), origin="quantized.yaml")
    bases = list(measure_errors(study, Workbench(), limit_bytes=1000))
    assert [base["form"] for base in bases] == ["int8", "nf4"]
    assert "int8: not measured: the whole base needs" in quantization_section({"bases": bases})
