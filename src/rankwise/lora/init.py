"""Initial adapters: `down` drawn, `up` zero, so that training starts exactly at the base model.

Component j of a site is drawn from the stream (seed, "init", site) as its j-th row, so two arms with the same seed
share every component they both have, whatever their ranks.
"""

import math
from collections.abc import Callable

import numpy as np

from rankwise.allocation.sites import Site
from rankwise.streams import stream


def kaiming(rng: np.random.Generator, rank: int, in_features: int) -> np.ndarray:
    """Uniform in ±1/sqrt(in): PEFT's default, `kaiming_uniform_` with a = sqrt(5) over fan-in (He et al., 2015)."""
    bound = 1 / math.sqrt(in_features)
    return rng.random((rank, in_features)) * (2 * bound) - bound


def gaussian(rng: np.random.Generator, rank: int, in_features: int) -> np.ndarray:
    """Normal with standard deviation 1 / rank, as PEFT's `init_lora_weights="gaussian"`."""
    return rng.standard_normal((rank, in_features)) / rank


INITS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {"kaiming": kaiming, "gaussian": gaussian}


def initial_down(init: str, site: Site, rank: int, seed: int) -> np.ndarray:
    """The initial `down` (rank, in) of one site in float32."""
    drawn = INITS[init](stream(seed, "init", site.name), rank, site.in_features)
    return drawn.astype(np.float32)
