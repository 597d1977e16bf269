"""What is measured for a run, how often, and what the run is charged for it."""

import pytest

from rankwise.allocation import Signal
from rankwise.models.sites import find_sites
from rankwise.probing.measure import measure
from rankwise.records import RunAllocated, RunFinished
from rankwise.training import allocate
from rankwise.training.allocate import Allocator
from rankwise.training.engine import train_pack
from rankwise.training.probe_batches import PROBE_BATCHES, probe_batches
from tests.tiny import STUDY, tiny_base, tiny_data, tiny_runs

MEASURED = ("empirical", "eva", "gora", "fisher", "weight_spectrum", "early_gradient_spectrum")
ARMS = [f"{{strategy: {name}}}" for name in MEASURED]


@pytest.fixture
def passes(monkeypatch) -> list[tuple[frozenset[Signal], int]]:
    """The signals of each call of `measure`, and how many batches it took."""
    seen: list[tuple[frozenset[Signal], int]] = []

    def counting(model, sites, batches, signals, **options):
        taken = list(batches)
        seen.append((frozenset(signals), len(taken)))
        return measure(model, sites, taken, signals, **options)

    monkeypatch.setattr(allocate, "measure", counting)
    return seen


def test_runs_of_one_order_are_measured_in_one_pass(passes):
    base = tiny_base()
    runs = tiny_runs(ARMS)
    together = Allocator(base).allocate_all([(run, tiny_data()) for run in runs])
    assert [signals for signals, _ in passes] == [
        frozenset(Signal) - {Signal.WEIGHT_SPECTRUM},
        {Signal.WEIGHT_SPECTRUM},
    ]
    for run, allocated in zip(runs, together, strict=True):
        alone = Allocator(base).allocate(run, tiny_data())
        assert alone.rank_map == allocated.rank_map
        assert allocated.rank_map.residual_params == 0


def test_nothing_is_measured_twice_and_everybody_pays(passes):
    allocator = Allocator(tiny_base())
    arms = ["{strategy: gora}", "{strategy: shuffled, of: gora}", "{name: steep, strategy: gora, most: 2.0}"]
    found = [allocator.allocate(run, tiny_data()) for run in tiny_runs(arms)]
    assert passes == [(frozenset({Signal.GRADIENT_SENSITIVITY}), 6)]
    assert len({(run.probe_wall_s, run.probe_peak_memory_bytes) for run in found}) == 1
    assert found[0].probe_wall_s > 0
    assert found[0].probe_peak_memory_bytes > 0


def test_a_run_pays_for_its_own_signals_only():
    allocator = Allocator(tiny_base())
    cheap, dear, free = allocator.allocate_all(
        [(run, tiny_data()) for run in tiny_runs(["{strategy: fisher}", ARMS[-1], "{strategy: linear_decay}"])]
    )
    assert 0 < cheap.probe_wall_s < dear.probe_wall_s
    assert (free.probe_wall_s, free.probe_peak_memory_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("arm", "num_passes"),
    [
        ("{name: other, strategy: eva, rho: 4}", 1),
        ("{name: other, strategy: eva, budget: {rank: 3}}", 2),  # more components are measured
        ("{name: other, strategy: eva, targets: attention}", 2),
        ("{name: other, strategy: eva, train: {epochs: 2, batch_size: 3, learning_rates: [1.0e-2]}}", 2),
        ("{name: other, strategy: eva, train: {epochs: 9, batch_size: 2, learning_rates: [1.0e-2]}}", 2),
        ("{name: other, strategy: eva, dropout: 0.1}", 1),
    ],
)
def test_what_a_measurement_depends_on_has_its_own(passes, arm, num_passes):
    Allocator(tiny_base()).allocate_all([(run, tiny_data()) for run in tiny_runs(["{strategy: eva}", arm])])
    assert len(passes) == num_passes


def test_seeds_and_data_are_told_apart_but_weights_are_the_same_for_all(passes):
    allocator = Allocator(tiny_base())
    runs = tiny_runs(["{strategy: fisher}", "{strategy: weight_spectrum}"], seeds=(0, 1))
    allocator.allocate_all([(run, data) for run in runs for data in (tiny_data(), tiny_data(8))])
    of_fisher = [taken for taken in passes if Signal.FISHER in taken[0]]
    assert len(of_fisher) == 4
    assert len(passes) == 5


def test_batches_are_the_first_of_the_runs_own_order_without_their_padding():
    base, data = tiny_base(), tiny_data(40)
    (run,) = tiny_runs(["{strategy: eva}"])
    batches = list(probe_batches(base, run, data))
    assert len(batches) == PROBE_BATCHES
    for batch in batches:
        assert batch.real_NT.shape == batch.answer_NT.shape == (2, batch.real_NT.sum(dim=1).max())
        assert not (batch.answer_NT & ~batch.real_NT).any()
        assert (batch.answer_NT.sum(dim=1) > 0).all()
    assert len({batch.loss().item() for batch in batches}) == PROBE_BATCHES


def test_the_charge_is_in_the_records():
    base = tiny_base()
    allocated = Allocator(base).allocate_all([(run, tiny_data()) for run in tiny_runs(["{strategy: gora}"])])
    records = [record for step in train_pack(base, allocated) for record in step]
    (told,) = (record for record in records if isinstance(record, RunAllocated))
    (finished,) = (record for record in records if isinstance(record, RunFinished))
    assert told.probe_wall_s == allocated[0].probe_wall_s > 0
    assert told.probe_peak_memory_bytes == allocated[0].probe_peak_memory_bytes > 0
    assert finished.wall_s > told.probe_wall_s


def test_controls_of_every_measured_strategy_spend_the_same_budget():
    base = tiny_base()
    arms = [f"{{name: {c}-{n}, strategy: {c}, of: {n}}}" for n in MEASURED for c in ("shuffled", "inverted")]
    head = STUDY.replace("budget: {rank: 2}", "budget: {rank: 4}")
    runs = tiny_runs([*ARMS, *arms], head=head)
    found = Allocator(base).allocate_all([(run, tiny_data()) for run in runs])
    assert len({run.rank_map.params for run in found}) == 1
    maps = {run.run.arm.name: run.rank_map.ranks for run in found}
    for name in MEASURED:
        assert maps[name] != maps[f"inverted-{name}"], name
        assert maps[name] != maps[f"shuffled-{name}"], name
        assert len(maps[name]) == len(find_sites(base.model))


@pytest.mark.parametrize(
    ("arm", "name"),
    [
        ("{strategy: empirical}", "RMS gradient (nats per unit weight)"),
        ("{strategy: shuffled, of: fisher}", "mean squared gradient (nats² per unit weight²)"),
        ("{strategy: gora}", "mean |weight × gradient| (nats)"),
        ("{strategy: eva}", "input variance explained by component 2 (share)"),
        ("{strategy: weight_spectrum}", "stable rank of the weight (directions)"),
        ("{strategy: early_gradient_spectrum}", "effective rank of the whitened gradient (directions)"),
        ("{strategy: linear_decay}", None),
        ("{strategy: truncate}", None),
    ],
)
def test_what_a_strategy_goes_by_is_recorded_per_site(arm, name):
    base, (run,) = tiny_base(), tiny_runs([arm])
    told = next(train_pack(base, [Allocator(base).allocate(run, tiny_data())]))
    (allocated,) = (record for record in told if isinstance(record, RunAllocated))
    assert allocated.signal == name
    values = [site.signal for site in allocated.sites]
    if name is None:
        assert set(values) == {None}
        return
    assert all(value > 0 for value in values)
    assert len(set(values)) > 1


def test_the_recorded_signal_is_the_measured_one():
    base, data = tiny_base(), tiny_data()
    (run,) = tiny_runs(["{strategy: inverted, of: empirical}"])
    allocated = Allocator(base).allocate(run, data)
    sites = find_sites(base.model, run.arm.targets)
    measured = measure(base.model, sites, probe_batches(base, run, data), [Signal.GRADIENT_RMS])
    told = next(record for record in next(train_pack(base, [allocated])) if isinstance(record, RunAllocated))
    assert [site.site for site in told.sites] == [site.name for site in sites]
    assert [site.signal for site in told.sites] == pytest.approx(list(measured.values[Signal.GRADIENT_RMS]), rel=1e-6)
    ranks = sorted(told.sites, key=lambda site: site.signal)
    assert ranks[0].realised_rank > ranks[-1].realised_rank
