"""The programs in `examples/` run to their end, in a reduced form."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from rankwise.allocation import STRATEGIES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path, monkeypatch, small_model, capsys):
    """Runs an example in a reduced form, in a folder of its own, and gives what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / name)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "example", module)
        spec.loader.exec_module(module)
        module.main(["--model", str(small_model), "--train", "8", "--seeds", "2", "--out", "out", *arguments])
        return capsys.readouterr().out

    yield run
    STRATEGIES.pop("ends", None)


def test_own_data_ends_in_a_verdict_a_report_and_adapters(example, tmp_path):
    printed = example("own_data.py", "--epochs", "1")
    assert "undecided" in printed
    assert re.search(r"linear_decay +\d+\.0 +\d\.\d+", printed)
    assert (tmp_path / "out" / "RESULTS.md").is_file()
    assert len(list((tmp_path / "out" / "adapters").glob("*/adapter_config.json"))) == 6


def test_a_custom_strategy_spends_the_same_parameters(example):
    lines = example("custom_strategy.py").splitlines()
    assert [line.split()[0] for line in lines] == ["uniform", "ends", "shuffled"]
    assert len({re.search(r"([\d,]+) parameters", line)[1] for line in lines}) == 1
    assert lines[0].endswith("baseline")


def test_the_recorded_results_are_what_they_are(example_main, capsys, tmp_path):
    recorded = ROOT / "docs" / "results" / "embedded"
    assert example_main("check_recorded.py")([str(recorded), str(recorded)]) == 0
    printed = capsys.readouterr().out
    assert "72 of 72 recorded ones are there" in printed
    assert "72 of 72 equal to the last bit, largest difference 0.0e+00 nats" in printed

    comparison = json.loads((recorded / "comparison.json").read_text())
    comparison["arms"][2]["difference"]["outcome"] = "better"
    comparison["arms"][2]["seeds"][0]["test_loss"] += 1e-3
    (tmp_path / "comparison.json").write_text(json.dumps(comparison))
    assert example_main("check_recorded.py")([str(tmp_path), str(recorded)]) == 1
    printed = capsys.readouterr().out
    assert "71 of 72 equal to the last bit, largest difference 1.0e-03 nats" in printed
    assert "linear_decay: better instead of worse" in printed


@pytest.fixture
def example_main():
    def load(name):
        spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


NOTEBOOK = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE_CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CODE_CELLS] == list(range(1, len(CODE_CELLS) + 1))
    outputs = [output for cell in CODE_CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}, "no warnings, no paths of a machine"


def test_the_notebook_runs(tmp_path, monkeypatch, small_model, capsys):
    """Its code cells one after the other, on the small model; a last expression is an output and is left out."""
    monkeypatch.chdir(tmp_path)
    nano = 'str(resources.files("rankwise") / "assets" / "nano")'
    reductions = {
        "model: nano": f"model: {small_model}",
        "train: 32, validation: 16, test: 48": "train: 8, validation: 4, test: 4",
        "seeds: 4": "seeds: 2",
        nano: repr(str(small_model)),
    }
    source = "\n".join("".join(cell["source"]) for cell in CODE_CELLS)
    for written, reduced in reductions.items():
        assert written in source
        source = source.replace(written, reduced)
    exec(compile(source, "quickstart.ipynb", "exec"), {})
    printed = capsys.readouterr().out
    assert "6 runs, {'finished'}" in printed
    assert "undecided" in printed
    assert (tmp_path / "results" / "notebook" / "report.html").is_file()
