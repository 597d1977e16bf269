"""What a profile measures, held against the tensors themselves and against its own prediction."""

import subprocess
import threading
from types import SimpleNamespace

import pytest
import torch

from rankwise.errors import AllocationError, DataError, ModelError, PackError
from rankwise.execution.profile import run as module
from rankwise.execution.profile.measure import measure_rank
from rankwise.execution.profile.predict import RankPredictor
from rankwise.execution.profile.ranks import uniform_map
from rankwise.execution.profile.run import run_profile
from rankwise.execution.profile.values import TERMS, ProfileSettings
from rankwise.execution.workbench import Workbench
from rankwise.models.load import load_base
from rankwise.models.sites import find_sites
from rankwise.packing.live_tensors import LiveTensors
from rankwise.profiling.resident import ResidentSampler
from rankwise.study.config import BaseSettings


@pytest.fixture(scope="module")
def settings(small_model):
    return ProfileSettings(
        base=BaseSettings(model=str(small_model), dtype="float32"), tokens=24, batch_size=2, new_tokens=3, repeats=1
    )


@pytest.fixture(scope="module")
def measured(settings):
    return {rank: measure_rank(settings, rank) for rank in (0, 2)}


def test_what_can_be_counted_exactly_is_what_was_predicted(settings, measured):
    predictor = RankPredictor(settings, Workbench())
    for rank, found in measured.items():
        predicted = predictor.predict(rank).terms()
        for name in ("adapters", "gradients", "logits") if rank else ("adapters", "gradients", "optimizer"):
            assert found.terms[name] == pytest.approx(predicted[name], rel=0.02, abs=600), name
        assert found.terms["weights"] == pytest.approx(predicted["weights"], rel=0.02)
        assert found.terms["activations"] == pytest.approx(predicted["activations"], rel=0.05)
        assert set(found.terms) == set(predicted) == set(TERMS)


def test_the_causes_add_up_to_the_peak(measured):
    for found in measured.values():
        assert sum(found.terms.values()) >= found.peak_bytes > 100 * 2**20


def test_rank_zero_is_the_base_alone_and_only_forward(measured):
    base, adapted = measured[0], measured[2]
    assert (base.backward_s, base.optimizer_s, base.params) == (None, None, 0)
    assert adapted.backward_s > 0
    assert adapted.optimizer_s > 0
    assert adapted.step_s == adapted.forward_s + adapted.backward_s + adapted.optimizer_s
    assert list(base.generation) == ["base"]
    assert set(adapted.generation) == {"separate", "baked", "merged"}
    for speed in (*base.generation.values(), *adapted.generation.values()):
        assert min(speed.first_token_s, speed.token_s, speed.tokens_per_s) > 0


def test_a_rank_stops_at_what_a_layer_can_use(small_model):
    sites = find_sites(load_base(BaseSettings(model=str(small_model), dtype="float32")).model)
    found = uniform_map(sites, 20)
    assert found.ranks == tuple(min(20, site.in_features, site.out_features) for site in sites)
    assert found.params == found.budget_params


@pytest.mark.parametrize(
    ("change", "ranks", "error", "words"),
    [
        ({}, [40], AllocationError, "--rank 40 is not possible .* 16 components at most"),
        ({"tokens": 4000}, [2], DataError, "--tokens 4000 .* context of .*, 128 tokens"),
        ({"base": BaseSettings(model="/no/such/folder")}, [2], ModelError, "no folder /no/such/folder"),
    ],
)
def test_impossible_profiles_are_refused_before_anything_runs(settings, monkeypatch, change, ranks, error, words):
    monkeypatch.setattr(module.subprocess, "run", None)
    with pytest.raises(error, match=words):
        run_profile(settings.model_copy(update=change), ranks)


def test_a_rank_that_cannot_fit_is_refused_with_what_would(settings, monkeypatch):
    monkeypatch.setattr(module.subprocess, "run", None)
    monkeypatch.setattr(module, "available_bytes", lambda: 10**8)
    with pytest.raises(PackError, match=r"--rank 2 .* needs .* by prediction, and 0.09 GiB may be filled\. Give fewer"):
        run_profile(settings, [2])


def test_a_process_that_is_killed_is_told_with_its_signal(settings, monkeypatch):
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -9, "", ""))
    with pytest.raises(PackError, match="measured rank 2 was ended by signal 9"):
        run_profile(settings, [2])


def test_live_tensors_are_counted_by_storage_and_freed_with_their_last_view():
    known = torch.ones(1000, requires_grad=True)
    with LiveTensors([known], lambda tensor: tensor.shape[-1:] == (50,)) as live:
        doubled = known * 2
        view = doubled.view(20, 50)[:10]
        assert (live.live_bytes, live.wide_bytes) == (4000, 0)
        wide = view + 1
        assert (live.live_bytes, live.wide_bytes) == (6000, 2000)
        del doubled
        assert live.live_bytes == 6000
        del view, wide
        assert (live.live_bytes, live.wide_bytes) == (0, 0)
    assert (live.peak_bytes, live.wide_peak_bytes) == (6000, 2000)


def test_the_sampler_sees_what_is_there_only_for_a_while(monkeypatch):
    sizes = iter([100, 200, 900, 300])
    seen = threading.Event()

    class FakeProcess:
        def memory_info(self):
            size = next(sizes, 150)
            if size == 150:
                seen.set()
            return SimpleNamespace(rss=size)

    monkeypatch.setattr("rankwise.profiling.resident.psutil.Process", FakeProcess)
    with ResidentSampler(period_s=0.001) as sampler:
        assert seen.wait(30)
    assert sampler.peak_bytes == 900
    assert sampler.num_samples > 4
