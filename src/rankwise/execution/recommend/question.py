"""What someone wants to know who asks for a recommendation."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from rankwise.study.config import Arm

CENTRE_RANK = 8
"""Where no budget is given: the rank around which ranks are raced, and at which uneven allocations are."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A base model, data and what the answer must keep to."""

    template: Arm
    """A uniform arm on all linear layers: base, data, scaling and training of every arm. Its budget is the one given,
    else that of the centre rank; its learning rates are those given, else a guess for models of this width."""
    is_budget_given: bool
    """Whether every arm must store the same number of parameters, or the budget is part of what is asked."""
    are_rates_given: bool
    """Whether the learning rates are all there is, or a range that may be left where its edge is best."""
    strategies: tuple[str, ...]
    """Keys of STRATEGIES that are raced beside uniform."""
    memory_bytes: int | None
    """What the training of one adapter may use later; None: no limit."""
    num_seeds: int | None
    """Seeds that confirm; None: as many as the time allows."""
    level: float = 0.95
    equivalence_nats: float = 0.005

    @property
    def name(self) -> str:
        """`recommend-` and eight digits that stand for the question: the same one goes on with the same studies."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"recommend-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "arm": self.template.model_dump(mode="json"),
            "is_budget_given": self.is_budget_given,
            "are_rates_given": self.are_rates_given,
            "strategies": list(self.strategies),
            "memory_bytes": self.memory_bytes,
            "num_seeds": self.num_seeds,
            "level": self.level,
            "equivalence_nats": self.equivalence_nats,
        }
