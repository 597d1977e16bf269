"""Named random streams: every consumer of randomness has its own, derived from (seed, names).

A stream never depends on the order of calls, on a slot number or on what else draws, so adding a consumer cannot shift
another and every arm of a study meets the same draws (common random numbers).
"""

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of `names` under `seed`, for example `stream(3, "init", "model.layers.0.self_attn.q_proj")`."""
    text = "\x1f".join([str(seed), *map(str, names)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
