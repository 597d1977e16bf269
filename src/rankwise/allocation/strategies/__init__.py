"""Every allocation strategy under the name that study files use."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rankwise.allocation.strategies.adalora import AdaLora
from rankwise.allocation.strategies.base import Strategy
from rankwise.allocation.strategies.by_kind import AttentionHeavy, MlpHeavy
from rankwise.allocation.strategies.early_gradient_spectrum import EarlyGradientSpectrum
from rankwise.allocation.strategies.elastic import Elastic
from rankwise.allocation.strategies.empirical import Empirical
from rankwise.allocation.strategies.eva import Eva
from rankwise.allocation.strategies.fisher import Fisher
from rankwise.allocation.strategies.gora import Gora
from rankwise.allocation.strategies.inverted import Inverted
from rankwise.allocation.strategies.l1 import L1
from rankwise.allocation.strategies.linear import LinearDecay, LinearGrowth
from rankwise.allocation.strategies.random import Random
from rankwise.allocation.strategies.shuffled import Shuffled
from rankwise.allocation.strategies.truncate import Truncate
from rankwise.allocation.strategies.uniform import Uniform
from rankwise.allocation.strategies.weight_spectrum import WeightSpectrum
from rankwise.errors import AllocationError

__all__ = ["STRATEGIES", "Strategy", "build_strategy", "name_of"]

STRATEGIES: dict[str, type[Strategy]] = {
    "uniform": Uniform,
    "linear_decay": LinearDecay,
    "linear_growth": LinearGrowth,
    "attention_heavy": AttentionHeavy,
    "mlp_heavy": MlpHeavy,
    "empirical": Empirical,
    "eva": Eva,
    "gora": Gora,
    "fisher": Fisher,
    "weight_spectrum": WeightSpectrum,
    "early_gradient_spectrum": EarlyGradientSpectrum,
    "adalora": AdaLora,
    "elastic": Elastic,
    "l1": L1,
    "truncate": Truncate,
    "random": Random,
    "shuffled": Shuffled,
    "inverted": Inverted,
}


def build_strategy(name: str, settings: Mapping[str, Any]) -> Strategy:
    """The strategy `name` with `settings`; what is not set has its published value.

    Raises:
        AllocationError: there is no such strategy or setting, or the value is not allowed. Names the nearest valid one.
    """
    if name not in STRATEGIES:
        raise AllocationError(
            f"There is no strategy {name!r}{_nearest(name, STRATEGIES)}. Strategies: {', '.join(STRATEGIES)}."
        )
    kind = STRATEGIES[name]
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        told = "; ".join(_explain(name, kind, detail) for detail in error.errors())
        raise AllocationError(f"{told}. Settings of {name}: {', '.join(kind.model_fields) or 'none'}.") from None


def name_of(strategy: Strategy) -> str:
    """The key of `strategy` in STRATEGIES.

    Raises:
        AllocationError: it is not in the table.
    """
    for name, kind in STRATEGIES.items():
        if type(strategy) is kind:
            return name
    raise AllocationError(f"{type(strategy).__name__} is not in STRATEGIES; add an entry for it.")


def _explain(name: str, kind: type[Strategy], detail: Any) -> str:
    """One pydantic error in our words."""
    setting = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{name}: {setting!r} is not a setting{_nearest(setting, kind.model_fields)}"
    reason = detail["msg"].removeprefix("Value error, ").rstrip(".")
    reason = reason[0].lower() + reason[1:]
    return f"{name}: {setting} = {detail['input']!r} is not allowed: {reason}" if setting else f"{name}: {reason}"


def _nearest(given: str, valid: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(given, valid, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
