"""How a control names the strategy that it distorts.

In YAML: `of: linear_decay`, or with settings `of: {strategy: linear_decay, first: 2.0}`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from rankwise.allocation.strategies.base import Strategy


def _read(of: Any) -> Strategy:
    # The table lists the controls, so it can be imported only once they exist.
    from rankwise.allocation.strategies import build_strategy

    if isinstance(of, str):
        of = {"strategy": of}
    if isinstance(of, Mapping):
        settings = dict(of)
        if "strategy" not in settings:
            raise ValueError("the mapping needs the key 'strategy' with the name of the one to distort")
        of = build_strategy(str(settings.pop("strategy")), settings)
    if not isinstance(of, Strategy):
        raise ValueError(f"{of!r} is not the name of a strategy, nor a mapping {{strategy: name, setting: value}}")
    if of.is_control:
        raise ValueError("a control of a control says nothing; name a strategy that is not a control itself")
    return of


def _write(of: Strategy) -> dict[str, Any]:
    from rankwise.allocation.strategies import name_of

    return {"strategy": name_of(of), **of.model_dump(mode="json")}


Wrapped = Annotated[Strategy, BeforeValidator(_read), PlainSerializer(_write)]
"""A strategy given by its name or as {strategy: name, setting: value}; dumped with all its settings."""
