"""A ledger with a run in every state, a report of it, and an adapter's configuration beside it."""

import pytest
from PIL import Image

from rankwise.ledger import open_ledger
from rankwise.testing.sample_ledger import write_sample
from rankwise.tracking import PushOptions, push


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(str(tmp_path / "ledger.db")) as opened:
        write_sample(opened)
        yield opened


@pytest.fixture
def results(ledger):
    return ledger.study_results("sample")


@pytest.fixture
def options(tmp_path, results):
    """Of a push with a report and one adapter."""
    folder = tmp_path / "results" / "sample"
    adapter = folder / "adapters" / results.reported("uniform")[0].id
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 4}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights stay here")
    (folder / "figures").mkdir()
    (folder / "RESULTS.md").write_text("# Sample\n\n**undecided**")
    Image.new("RGB", (2, 1)).save(folder / "figures" / "tuning.png")
    return PushOptions(results=tmp_path / "results")


@pytest.fixture
def outcomes(ledger, options):
    """Pushes to a tracker, and counts what became of the entries."""

    def run(tracker, chosen=options):
        pushed = list(push(ledger, tracker, chosen))
        return {outcome: sum(entry.outcome == outcome for entry in pushed) for outcome in {e.outcome for e in pushed}}

    return run
