"""The order of simplicity, one rule at a time."""

import random

from rankwise.execution.recommend.candidates import quantized
from rankwise.execution.recommend.simplicity import KINDS, kind_of, simplicity_key
from tests.execution.recommend.arms import make_arm


def test_the_order_of_simplicity_is_the_documented_one():
    uniform, wide = make_arm(), make_arm(rank=16)
    in_order = [
        (uniform, 100, 10, 3),
        (uniform, 100, 10, 4),  # the order of the list
        (uniform, 100, 20, 0),  # more layers
        (wide, 200, 10, 0),  # more parameters
        (quantized(uniform, "nf4"), 100, 10, 0),  # another library
        (make_arm("linear_decay"), 50, 5, 0),  # a shape
        (make_arm("empirical"), 50, 5, 0),  # a measurement
    ]
    keys = [simplicity_key(arm, params=p, num_sites=n, place=place) for arm, p, n, place in in_order]
    shuffled = list(keys)
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled) == keys


def test_kinds_follow_from_what_a_strategy_needs():
    kinds = {name: KINDS[kind_of(make_arm(name))] for name in ("uniform", "mlp_heavy", "empirical", "adalora")}
    assert kinds == {"uniform": "uniform", "mlp_heavy": "shaped", "empirical": "measured", "adalora": "dynamic"}
