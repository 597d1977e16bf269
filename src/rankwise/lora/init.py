"""Initial adapters: `down` drawn, `up` zero, so that training starts exactly at the base model.

Component j of a site is drawn from the stream (seed, "init", site) as its j-th row, so two arms with the same seed
share every component they both have, whatever their ranks.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rankwise.allocation.sites import Site
from rankwise.streams import stream


@dataclass(frozen=True, kw_only=True)
class InitialAdapter:
    """Matrices that a slot starts from, where they are not drawn from its seed alone."""

    tensors: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Per site name `down` (rank, in) and `up` (out, rank), float32."""
    subtracted: bool
    """Whether the initial product is taken off the layer's output for good, by frozen copies of it, so that the first
    forward pass is the base model's although `up` is not zero: PiSSA, OLoRA, LoRA-GA."""


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


def initial_pair(
    init: str, initial: InitialAdapter | None, site: Site, rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The initial `down` (rank, in) and `up` (out, rank) of one site in float32: as given, or drawn and zero."""
    if initial is not None:
        return initial.tensors[site.name]
    return initial_down(init, site, rank, seed), np.zeros((site.out_features, rank), dtype=np.float32)
