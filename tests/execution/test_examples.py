"""The programs in `examples/` run to their end, in a reduced form."""

import importlib.util
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
