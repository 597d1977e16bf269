"""The rules of dynamic strategies against slow, obvious versions of what their authors published."""

from dataclasses import replace

import numpy as np
import pytest

from rankwise.allocation import Site, SiteView, build_strategy
from rankwise.allocation.rank_view import RankView
from rankwise.allocation.strategies.base import Phases, check_steps
from rankwise.errors import AllocationError
from rankwise.testing import example_view
from rankwise.testing.simulated_run import SimulatedRun

EQUAL = SiteView(
    sites=tuple(
        Site(name=f"model.layers.{i}.q_proj", kind="attention", layer=i, in_features=16, out_features=16)
        for i in range(6)
    )
)
"""Sites of one cost: a budget in parameters is a number of components, as published."""


def published_elastic(view: RankView, num_moved: int, per_site: int, first: int, last: int) -> list[list[float]]:
    """ElaLoRA's round on lists of importances, one list a site: pruned entries leave, grown ones come as 0."""
    sites = [list(view.importance_LR[i][view.active_LR[i]]) for i in range(len(view.sites))]
    moved = round(num_moved + (0 - num_moved) * ((view.step - first) / (last - first)) ** 3)
    offered = []
    for i, importances in enumerate(sites):
        offered += [(value, i) for value in sorted(importances)[: min(per_site, len(importances) - 1)]]
    if not moved:
        return sites
    smallest, largest = sorted(offered)[:moved], sorted(offered)[::-1][:moved]
    for value, i in smallest:
        sites[i].remove(value)
    for _, i in largest:
        sites[i].append(0.0)
    return sites


@pytest.mark.parametrize(("num_moved", "per_site"), [(2, 1), (4, 2), (6, 3)])
def test_elastic_moves_what_the_published_rule_moves(num_moved: int, per_site: int) -> None:
    settings = {"num_moved": num_moved, "per_site": per_site, "room_factor": 8, "interval_frac": 0, "initial_frac": 0.1}
    elastic = build_strategy("elastic", settings)
    num_rounds = 0
    for view, after_LR in SimulatedRun(view=EQUAL).revisions(elastic, elastic.mover()):
        expected = published_elastic(view, num_moved, per_site, *elastic.phases(view.num_steps))
        for site, importances in enumerate(expected):
            kept_R = after_LR[site] & view.active_LR[site]
            grown_R = after_LR[site] & ~view.active_LR[site]
            found = [*view.importance_LR[site][kept_R], *[0.0] * int(grown_R.sum())]
            assert sorted(found) == sorted(importances), f"site {site} at step {view.step}"
        num_rounds += (after_LR != view.active_LR).any()
    assert num_rounds > 10


def test_adalora_keeps_the_top_of_each_steps_budget() -> None:
    """Equation 12 and a sort, at every step of the schedule."""
    adalora = build_strategy("adalora", {"start_factor": 2.0, "initial_frac": 0.1, "final_frac": 0.4})
    run = SimulatedRun(view=EQUAL, rank=4, min_rank=0)
    counts = []
    for view, after_LR in run.revisions(adalora, adalora.mover()):
        left = 1 - (view.step - 4) / (24 - 4)
        allowed = int(24 + (48 - 24) * left**3)
        expected = sorted(view.importance_LR[view.exists_LR])[::-1][:allowed]
        assert sorted(view.importance_LR[after_LR])[::-1] == expected
        counts.append(int(after_LR.sum()))
    assert counts == sorted(counts, reverse=True)
    assert (len(counts), counts[-1]) == (20, 24)


def test_l1_and_truncate_keep_the_largest_once() -> None:
    for name in ("l1", "truncate"):
        strategy = build_strategy(name, {})
        ((view, after_LR),) = SimulatedRun(view=EQUAL, min_rank=0).revisions(strategy, strategy.mover())
        expected = sorted(view.importance_LR[view.active_LR])[::-1][:24]
        assert sorted(view.importance_LR[after_LR])[::-1] == expected
        assert view.step == strategy.phases(view.num_steps).last


def concentrated(step: int, shape: tuple[int, int]) -> np.ndarray:
    """Importance grows with the number of the site, so that ranks follow it."""
    return (1.0 + np.arange(shape[0])[:, None]) * 100 + np.arange(shape[1])[::-1]


def final_ranks(name: str, **settings: object) -> list[int]:
    strategy = build_strategy(name, settings)
    run = SimulatedRun(view=EQUAL, importances=concentrated)
    *_, (_, last_LR) = run.revisions(strategy, strategy.mover())
    return last_LR.sum(axis=1).tolist()


@pytest.mark.parametrize("name", ["adalora", "truncate"])
def test_controls_move_the_same_ranks_to_other_sites(name: str) -> None:
    ranks = final_ranks(name)
    assert ranks == sorted(ranks)
    assert ranks[0] < ranks[-1]
    assert final_ranks("inverted", of=name) == ranks[::-1]
    shuffled = [final_ranks("shuffled", of=name, draw=draw) for draw in range(3)]
    assert all(sorted(found) == sorted(ranks) for found in shuffled)
    assert len({tuple(found) for found in (ranks, *shuffled)}) > 2


def test_a_control_keeps_the_order_within_a_site_and_the_rules_schedule() -> None:
    adalora, control = build_strategy("adalora", {}), build_strategy("inverted", {"of": "adalora"})
    mover = control.mover()
    assert mover.mechanics() == adalora.mechanics()
    assert mover.phases(50) == adalora.phases(50)
    run = SimulatedRun(view=example_view(2))
    for view, after_LR in run.revisions(control, mover):
        for importance_R, kept_R in zip(view.importance_LR, after_LR & view.exists_LR, strict=True):
            assert not kept_R.any() or set(np.argsort(-importance_R)[: kept_R.sum()]) == set(np.flatnonzero(kept_R))


def test_a_site_may_not_leave_its_bounds_under_a_control() -> None:
    control = build_strategy("inverted", {"of": "elastic"})
    run = SimulatedRun(view=example_view(3), rank=4, min_rank=2, max_rank=5)
    *_, (_, last_LR) = run.revisions(control, control.mover())
    assert set(last_LR.sum(axis=1)) <= {2, 3, 4, 5}


def test_elastic_does_nothing_between_rounds_and_after_the_last() -> None:
    elastic = build_strategy("elastic", {"interval_frac": 0.25, "initial_frac": 0.1})
    acted = [
        view.step
        for view, after_LR in SimulatedRun(view=EQUAL).revisions(elastic, elastic.mover())
        if (after_LR != view.active_LR).any()
    ]
    assert acted == [14, 24]
    view, _ = next(SimulatedRun(view=EQUAL).revisions(elastic, elastic.mover()))
    assert elastic.revise(replace(view, step=30)) is None


@pytest.mark.parametrize("name", ["adalora", "elastic", "l1", "truncate"])
def test_a_run_too_short_for_its_schedule_is_told_how_long_it_must_be(name: str) -> None:
    mover = build_strategy(name, {}).mover()
    needed = next(steps for steps in range(1, 100) if _is_enough(mover, steps))
    for steps in range(needed, needed + 30):
        check_steps(mover, name, steps)
    if needed > 1:
        with pytest.raises(AllocationError, match=f"{name}: a run of 1 optimizer steps is too short.*{needed} steps"):
            check_steps(mover, name, 1)
    else:
        assert name == "truncate"


def _is_enough(mover, steps: int) -> bool:
    try:
        check_steps(mover, "it", steps)
    except AllocationError:
        return False
    return True


def test_shares_that_leave_no_step_are_told_as_such() -> None:
    mover = build_strategy("adalora", {"initial_frac": 0.6, "final_frac": 0.6}).mover()
    assert mover.phases(100) == Phases(60, 40)
    with pytest.raises(AllocationError, match="no number of steps"):
        check_steps(mover, "adalora", 100)
