"""Which examples each optimizer step of a run sees: a pure function of (seed, step)."""

import math

import numpy as np

from rankwise.streams import stream


class BatchOrder:
    """Epochs permuted by the stream (seed, "order", epoch); the last batch of an epoch holds what is left."""

    def __init__(self, *, num_examples: int, batch_size: int, epochs: float, seed: int) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = math.ceil(num_examples / batch_size)
        self.num_steps = math.ceil(epochs * self.steps_per_epoch)

    def batch(self, step: int) -> np.ndarray:
        """Indices of the examples of `step` (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = stream(self.seed, "order", epoch).permutation(self.num_examples)
        return order[position * self.batch_size : (position + 1) * self.batch_size]
