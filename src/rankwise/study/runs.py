"""A run: one arm x learning rate x seed, and the content hash that is its identity."""

import hashlib
import json
from typing import Any, Final, Literal

from pydantic import PositiveFloat

from rankwise.study.config import Arm, Seed, Settings

NUMERICS_VERSION = 1
"""Raised by hand when a change makes the same specification train to another result; part of every run id."""

NOT_IDENTITY: Final[dict[str, Any]] = {
    "name": True,
    "base": {"model", "revision"},
    "data": {"source"},
    "train": {"learning_rates"},
}
"""Settings of an arm that its runs' ids leave out. In doubt a setting stays in: to train again costs less than to
take another run's result."""

NEUTRAL: Final[dict[str, dict[str, Any]]] = {
    "base": {"double_quantization": True, "compute_dtype": "auto"},
    "train": {"lora_plus_ratio": 1.0, "lr_factors": None, "gradient_checkpointing": False},
    "evaluate": {"generate": False, "forgetting": False},
}
"""Settings of a section that came after the first ledgers: left out where they do nothing, so older runs keep their
ids."""

Purpose = Literal["tuning", "report"]


class Run(Settings):
    """Everything that can change a run's result, and nothing else but labels."""

    arm: Arm
    learning_rate: PositiveFloat
    seed: Seed
    base_fingerprint: str
    """Hash of the base model's weights, configuration and tokenizer, and of its code where it ships some."""
    data_fingerprint: str
    """Hash of the examples of all splits, in order."""
    scores_test: bool = True
    """Whether the test split is scored at the end; runs that choose a learning rate never see it. Part of the identity,
    so that a run which tuned one study is not taken for a reported one of another."""

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the canonical specification."""
        text = json.dumps(self.spec(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def spec(self) -> dict[str, Any]:
        """The identity as a JSON document: what is hashed, stored and shown.

        Left out is only what cannot change the result, so a run that two studies share is trained once: names (of the
        arm, of the study), the other candidates for the learning rate, and where the base model and the examples came
        from, because their fingerprints say what they are; and later settings that do nothing (`NEUTRAL`).
        """
        arm = self.arm.model_dump(mode="json", exclude=NOT_IDENTITY)
        for section, neutral in NEUTRAL.items():
            arm[section] = {
                key: value for key, value in arm[section].items() if key not in neutral or value != neutral[key]
            }
        if not arm["evaluate"] or not self.scores_test:  # what is measured at the end of reported runs only
            del arm["evaluate"]
        return {
            "numerics": NUMERICS_VERSION,
            "arm": arm,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "base_fingerprint": self.base_fingerprint,
            "data_fingerprint": self.data_fingerprint,
            "scores_test": self.scores_test,
        }
