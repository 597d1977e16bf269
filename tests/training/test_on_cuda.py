"""The engine on a CUDA device: packed equals solo within what its number formats allow, and memory by the allocator.

Skipped without a device. The tolerances are what rounding allows, not yet what a device was measured at.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rankwise.execution.sizing import available_bytes
from rankwise.models.load import LoadedBase
from rankwise.profiling.memory import PeakMemory
from rankwise.records import AdapterTrained, Evaluated, Record, RunFinished, StepDone
from rankwise.training.allocated_run import AllocatedRun
from rankwise.training.engine import EngineOptions, train_pack
from tests.families import family
from tests.tiny import allocated, tiny_base, tiny_llama, tiny_runs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda:0")
ARMS = (
    "uniform",
    "{name: wide, strategy: uniform, budget: {rank: 5}}",
    "{strategy: linear_decay, train: {learning_rates: [1.0e-2], batch_size: 3}}",
    "{name: dropped, strategy: uniform, dropout: 0.2}",
    "{name: moving, strategy: adalora, train: {epochs: 6}}",
)
TOLERANCE_NATS = {"float32": 1e-4, "bfloat16": 5e-2}
MODELS = {"llama": tiny_llama, "phi3": lambda: family("phi3"), "gpt2": lambda: family("gpt2")}


def base_on(device: torch.device, name: str = "llama", dtype: str = "float32") -> LoadedBase:
    model = MODELS[name]().to(device=device, dtype=getattr(torch, dtype))
    base = tiny_base(model)
    return replace(base, device=device, settings=base.settings.model_copy(update={"dtype": dtype}))


def train(base: LoadedBase, runs: Sequence[AllocatedRun]) -> list[Record]:
    return list(itertools.chain(*train_pack(base, runs, options=EngineOptions())))


def losses(records: Sequence[Record], run_id: str) -> list[float]:
    return [r.loss_nats for r in records if isinstance(r, StepDone | Evaluated) and r.run_id == run_id]


@pytest.fixture(scope="module")
def runs() -> list[AllocatedRun]:
    return allocated(tiny_base(), tiny_runs(ARMS))


@pytest.mark.parametrize("dtype", TOLERANCE_NATS)
@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_solo(name: str, dtype: str) -> None:
    runs = allocated(tiny_base(MODELS[name]()), tiny_runs(ARMS))
    packed = train(base_on(CUDA, name, dtype), runs)
    for run in runs:
        solo = losses(train(base_on(CUDA, name, dtype), [run]), run.run.id)
        assert len(solo) > 5
        np.testing.assert_allclose(losses(packed, run.run.id), solo, atol=TOLERANCE_NATS[dtype], rtol=0)


def test_the_losses_are_those_of_the_processor(runs: list[AllocatedRun]) -> None:
    there, here = train(base_on(CUDA), runs), train(base_on(torch.device("cpu")), runs)
    for run in runs:
        np.testing.assert_allclose(losses(there, run.run.id), losses(here, run.run.id), atol=1e-3, rtol=0)


def test_adapters_come_back_to_the_host(runs: list[AllocatedRun]) -> None:
    trained = [record for record in train(base_on(CUDA), runs) if isinstance(record, AdapterTrained)]
    assert {record.run_id for record in trained} == {run.run.id for run in runs}
    assert all(np.isfinite(part).all() for record in trained for pair in record.tensors.values() for part in pair)


def test_the_peak_is_the_allocators_and_of_this_stretch_alone() -> None:
    before = torch.empty(64 * 2**20, dtype=torch.uint8, device=CUDA)
    del before
    peak = PeakMemory(CUDA)
    start = torch.cuda.memory_allocated(CUDA)
    assert peak.is_of_stretch
    assert peak.peak_bytes() == start
    held = torch.empty(16 * 2**20, dtype=torch.uint8, device=CUDA)
    del held
    assert peak.peak_bytes() - start == pytest.approx(16 * 2**20, rel=0.01)


def test_a_run_records_a_peak_that_holds_its_base_and_adapter(runs: list[AllocatedRun]) -> None:
    base = base_on(CUDA)
    weights = sum(p.numel() * p.element_size() for p in base.model.parameters())
    (finished,) = (r for r in train(base, runs[:1]) if isinstance(r, RunFinished))
    assert finished.peak_memory_bytes > weights + 3 * 4 * runs[0].rank_map.params
    assert finished.peak_memory_bytes <= torch.cuda.max_memory_allocated(CUDA)


def test_memory_that_the_process_holds_already_counts_as_available() -> None:
    torch.cuda.empty_cache()
    before = available_bytes()
    held = torch.empty(256 * 2**20, dtype=torch.uint8, device=CUDA)
    assert available_bytes() == pytest.approx(before, abs=64 * 2**20)
    del held
