"""Which of two arms is simpler: the order in which arms are preferred that no measurement tells apart.

In this order, the first difference decides:

1. how the budget is spread: uniform, then a fixed shape, then ranks measured before training, then ranks that move
   during or after it. Each step needs more code, more time and more choices from whoever trains it again.
2. how the base is held: as it is, then quantized, which needs another library.
3. fewer parameters.
4. fewer adapted layers.
5. the order of the race's list.
"""

from rankwise.allocation import STRATEGIES
from rankwise.execution.recommend.candidates import is_uniform
from rankwise.study.config import Arm

KINDS = ("uniform", "shaped", "measured", "dynamic")


def kind_of(arm: Arm) -> int:
    """Index into KINDS."""
    if is_uniform(arm):
        return 0
    strategy = arm.build_strategy()
    if strategy.mover() is not None:
        return 3
    return 2 if strategy.required_signals() else 1


def simplicity_key(arm: Arm, *, params: int, num_sites: int, place: int) -> tuple[int, ...]:
    """Sorts the simplest first.

    Args:
        params: stored adapter parameters of the arm.
        num_sites: layers that it adapts.
        place: where it stands in the list of the race.
    """
    assert arm.strategy in STRATEGIES
    return kind_of(arm), int(arm.base.quantization != "none"), params, num_sites, place
