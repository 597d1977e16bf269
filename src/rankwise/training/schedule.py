"""Learning-rate schedules as pure functions of the step; the values of `transformers.get_scheduler`."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def lr_factor(schedule: Schedule, step: int, num_steps: int, warmup_frac: float) -> float:
    """What the learning rate is multiplied with at `step` (from 0) of `num_steps`.

    Linear warm-up over ceil(warmup_frac x num_steps) steps that starts at zero, then half a cosine or a line to zero,
    or a constant.
    """
    num_warmup = math.ceil(warmup_frac * num_steps)
    if step < num_warmup:
        return step / max(1, num_warmup)
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    match schedule:
        case "cosine":
            return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))
        case "linear":
            return max(0.0, 1 - done)
        case "constant":
            return 1.0
