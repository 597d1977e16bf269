"""Every strategy of the table keeps the contract, and the contract notices what breaks it."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from rankwise.allocation import STRATEGIES, Signal, SiteView, Strategy, build_strategy
from rankwise.allocation.sites import SiteSignal
from rankwise.testing import STRATEGY_CHECKS, check_strategy, strategy_contract

PAGE = Path(__file__).parents[2] / "docs" / "add-a-strategy.md"
SETTINGS = [
    *((name, {}) for name in STRATEGIES),
    ("linear_decay", {"first": 3, "last": 0}),
    ("linear_growth", {"first": 0, "last": 1}),
    ("empirical", {"power": 0.5}),
    ("eva", {"rho": 1.0}),
    ("gora", {"least": 0, "most": 1.5}),
    ("fisher", {"most": 1}),
    ("weight_spectrum", {"measure": "effective_rank"}),
    ("early_gradient_spectrum", {"most": 2.0}),
    *(
        (control, {"of": name})
        for name in ("eva", "gora", "fisher", "weight_spectrum", "early_gradient_spectrum")
        for control in ("shuffled", "inverted")
    ),
    ("random", {"draw": 7, "contrast": 50.0}),
    ("shuffled", {"of": {"strategy": "linear_decay", "last": 0.1}, "draw": 2}),
    ("inverted", {"of": "attention_heavy"}),
    ("adalora", {"start_factor": 3, "initial_frac": 0, "final_frac": 0, "interval_frac": 0.1}),
    ("elastic", {"num_moved": 40, "per_site": 5, "room_factor": 1.5}),
    ("truncate", {"wide_factor": 1.1}),
    *(("shuffled", {"of": name, "draw": 3}) for name in ("adalora", "elastic", "l1", "truncate")),
    *(("inverted", {"of": name}) for name in ("adalora", "elastic", "l1", "truncate")),
]


@pytest.mark.parametrize("check", STRATEGY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=[f"{name}-{given}" for name, given in SETTINGS])
def test_contract(name, settings, check):
    check(build_strategy(name, settings))


class Honest(Strategy):
    """Keeps the contract; the others below break it in one place each."""

    def ideal_ranks(self, sites: SiteView) -> np.ndarray:
        return np.ones(len(sites.sites))


class Undocumented(Honest):
    __doc__ = None


class Short(Honest):
    """One preference too few."""

    def ideal_ranks(self, sites):
        return np.ones(len(sites.sites) - 1)


class Negative(Honest):
    """A preference below zero."""

    def ideal_ranks(self, sites):
        return -np.ones(len(sites.sites))


class Silent(Honest):
    """Zero for all when the signals are."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.GRADIENT_RMS})

    def ideal_ranks(self, sites):
        return np.array(sites.signals[Signal.GRADIENT_RMS])


class Divides(Silent):
    """Not a number where the signals are zero."""

    def ideal_ranks(self, sites):
        gradient = sites.signals[Signal.GRADIENT_RMS]
        with np.errstate(invalid="ignore"):
            return gradient / gradient.sum()


class Fickle(Honest):
    """Another answer at each call."""

    calls: ClassVar[list[int]] = []

    def ideal_ranks(self, sites):
        self.calls.append(1)
        return np.ones(len(sites.sites)) * np.arange(1, len(sites.sites) + 1) ** (1 / len(self.calls))


class Writes(Silent):
    """Sorts its view in place."""

    def ideal_ranks(self, sites):
        sites.signals[Signal.GRADIENT_RMS].sort()
        return np.ones(len(sites.sites))


class GivesAway(Silent):
    """Answers with the view's own array."""

    def ideal_ranks(self, sites):
        return sites.signals[Signal.GRADIENT_RMS]


class Positional(Honest):
    """The first of the list gets most."""

    def ideal_ranks(self, sites):
        return np.arange(len(sites.sites), 0, -1.0)


class Undeclared(Silent):
    """Reads what it does not need."""

    needs: ClassVar[frozenset[Signal]] = frozenset()


class Unshaped(Silent):
    """Shows one number for all sites."""

    def site_signal(self, sites):
        return SiteSignal(name="all", values_L=sites.signals[Signal.GRADIENT_RMS].mean())


class Loose(Honest, extra="ignore"):
    """Takes any setting."""


class Thawed(Honest, frozen=False):
    """Can be changed."""


class Forgets(Honest):
    """A setting that does not survive being written."""

    order: tuple[int, ...] | list[int] = ()


BROKEN = [
    (Undocumented, "says_what_it_is", "docstring"),
    (Short, "gives_preferences", "shape"),
    (Negative, "gives_preferences", "negative"),
    (Silent, "gives_preferences", "zero for all"),
    (Divides, "gives_preferences", "not finite"),
    (Fickle, "answers_the_same_each_time", "two answers"),
    (GivesAway, "leaves_its_view_untouched", "view"),
    (Positional, "follows_a_reordering", "another order"),
    (Undeclared, "asks_for_what_it_reads", "gradient_rms"),
    (Unshaped, "shows_what_it_goes_by", "shape"),
    (Loose, "refuses_unknown_settings", "no_such_setting"),
    (Thawed, "cannot_be_changed", "frozen"),
]


def test_a_strategy_that_keeps_the_contract_passes():
    check_strategy(Honest())


@pytest.mark.parametrize(("kind", "check", "word"), BROKEN, ids=[kind.__name__ for kind, *_ in BROKEN])
def test_a_broken_strategy_is_caught_by_name(kind, check, word):
    with pytest.raises(AssertionError, match=f"{kind.__name__}.*{word}"):
        getattr(strategy_contract, check)(kind())


def test_writing_into_the_view_fails_at_once():
    with pytest.raises(ValueError, match="read-only"):
        strategy_contract.leaves_its_view_untouched(Writes())


def test_a_setting_that_text_cannot_carry_is_caught():
    with pytest.raises(AssertionError, match=r"Forgets.*round trip"):
        strategy_contract.round_trips_through_text(Forgets(order=(1, 2)))


def test_the_strategy_of_the_page_keeps_the_contract():
    source = re.search(r"```python\n(\"\"\".*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    page = ModuleType("by_width")
    sys.modules["by_width"] = page
    try:
        exec(compile(source, "by_width", "exec"), page.__dict__)
        check_strategy(page.ByWidth(power=1.0))
    finally:
        del sys.modules["by_width"]
