"""A study file that is right, for tests to break in one place each."""

import pytest

TEXT = """\
name: small
hypothesis: Uneven ranks pay.
base: {model: nano, dtype: float32}
data:
  source: skills
  train: 20
budget: {rank: 8, min_rank: 2}
train: {epochs: 2, learning_rates: [1e-3, 3e-3]}
arms:
  - uniform
  - {name: wide, strategy: uniform, budget: {params: 5000}, train: {epochs: 1}}
  - strategy: linear_decay
    first: 2
    data: {train: 10}
seeds: 3
"""


@pytest.fixture
def text() -> str:
    return TEXT
