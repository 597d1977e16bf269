"""`down` drawn, `up` zero, so that training starts exactly at the base model.

Component j of a site is drawn from the stream (seed, "init", site) as its j-th row, so two arms with the same seed
share every component they both have, whatever their ranks.
"""

import math

import numpy as np

from rankwise.lora.init.rule import Matrices, SiteStart
from rankwise.streams import stream


def kaiming(start: SiteStart) -> Matrices:
    """Uniform in ±1/sqrt(in): PEFT's default, `kaiming_uniform_` with a = sqrt(5) over fan-in (He et al., 2015)."""
    bound = 1 / math.sqrt(start.site.in_features)
    return _with_zero_up(start, _rng(start).random(_shape(start)) * (2 * bound) - bound)


def gaussian(start: SiteStart) -> Matrices:
    """Normal with standard deviation 1 / rank, as PEFT's `init_lora_weights="gaussian"`."""
    return _with_zero_up(start, _rng(start).standard_normal(_shape(start)) / start.rank)


def _rng(start: SiteStart) -> np.random.Generator:
    return stream(start.seed, "init", start.site.name)


def _shape(start: SiteStart) -> tuple[int, int]:
    return start.rank, start.site.in_features


def _with_zero_up(start: SiteStart, down: np.ndarray) -> Matrices:
    return down.astype(np.float32), np.zeros((start.site.out_features, start.rank), dtype=np.float32)
