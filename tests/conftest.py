"""Settings of the test run: one thread, deterministic, without a network, and never the user's own ledger."""

import os
import sys
from pathlib import Path

import pytest

# Read by libraries while they are imported, so they are set before any test module is.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",  # without it CUDA refuses deterministic matrix products
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
)

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def deterministic_torch():
    """Applies to tests that use torch, and imports it for no other."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)


@pytest.fixture(autouse=True)
def own_ledger(tmp_path_factory, monkeypatch):
    """A command that is given no ledger writes into a folder of the test run."""
    monkeypatch.setenv("RANKWISE_LEDGER", f"sqlite:///{tmp_path_factory.mktemp('ledger')}/rankwise.db")
    monkeypatch.delenv("RANKWISE_DEBUG", raising=False)


@pytest.fixture(autouse=True)
def no_calibration(tmp_path_factory, monkeypatch):
    """Predicted times rest on made-up speeds, and never on what the user's own cache holds."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    module = sys.modules.get("rankwise.execution.duration")
    if module is not None:
        from rankwise.profiling.calibration import Calibration, PassSpeed

        made_up = PassSpeed(overhead_s=1e-3, flops_per_s=1e9)
        known = Calibration(training=made_up, scoring=made_up, decoding=made_up, params_per_s=1e9)
        monkeypatch.setattr(module, "_kept_calibration", lambda *_: known)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real sample data: RANKWISE_SHARED, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("RANKWISE_SHARED", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no sample data: {folder} is not a folder; name one with RANKWISE_SHARED")
    return folder
