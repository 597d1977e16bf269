"""Contracts as tests: what an extension must keep, to be run by whoever writes one. Needs no test framework."""

from rankwise.testing.strategy_contract import STRATEGY_CHECKS, check_strategy, example_view

__all__ = ["STRATEGY_CHECKS", "check_strategy", "example_view"]
