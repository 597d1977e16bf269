"""Who takes part in the race: of all arms that could be raced, those that this model, memory and machine can have."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.errors import AllocationError, DataError, ModelError
from rankwise.execution.recommend.candidates import QUANTIZATIONS, propose_arms, quantized, with_training
from rankwise.execution.recommend.fitting import SizedArm, keep_fitting, size_arm
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.race import FIRST_RACE_SEED
from rankwise.execution.workbench import Workbench
from rankwise.study.config import Arm
from rankwise.study.runs import Run
from rankwise.training.engine import EngineOptions

LeftOut = tuple[str, str]
"""Name of an arm, and why it is not raced."""


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """The arms of a race, the most informative first, and who had to stay out."""

    sized: tuple[SizedArm, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def arms(self) -> list[Arm]:
        return [entry.arm for entry in self.sized]


def find_entrants(question: Question, bench: Workbench, engine: EngineOptions) -> Entrants:
    """Propose, size, and keep what fits and differs.

    Raises:
        PackError: nothing fits the memory limit.
        ModelError, DataError, AllocationError: not even the uniform arm can be had on this model, data and budget.
    """
    proposed, left_out = propose_arms(question, bench)
    sized = []
    for arm in proposed:
        try:
            sized.append(size_arm(arm, bench, engine))
        except (ModelError, AllocationError) as error:
            if arm is proposed[0]:
                raise
            left_out.append((arm.name, str(error)))
    forms = QUANTIZATIONS if importlib.util.find_spec("bitsandbytes") else ()
    kept, too_large = keep_fitting(sized, question.memory_bytes, bench, engine, forms)
    different, alike = _drop_alike(kept)
    if different[0].arm.base.quantization == "none":
        different += [size_arm(quantized(different[0].arm, form), bench, engine) for form in forms]
    return Entrants(sized=tuple(different), left_out=(*left_out, *too_large, *alike))


def _drop_alike(sized: Sequence[SizedArm]) -> tuple[list[SizedArm], list[LeftOut]]:
    """Of arms with the same ranks on the same layers and base, the first."""
    first: dict[tuple[object, ...], str] = {}
    kept: list[SizedArm] = []
    dropped = []
    for entry in sized:
        key = (entry.ranks or entry.arm.name, entry.site_names, entry.arm.base.quantization)
        if key in first:
            dropped.append((entry.arm.name, f"its ranks here are those of {first[key]}"))
        else:
            first[key] = entry.arm.name
            kept.append(entry)
    return kept, dropped


def probe_entrants(entrants: Entrants, epochs: float, bench: Workbench, engine: EngineOptions) -> Entrants:
    """Those that can be trained for `epochs`, the first rung, and be measured: one that cannot would harm all others.

    The first rung uses the same measurements again.
    """
    kept, left_out = [], list(entrants.left_out)
    for entry in entrants.sized:
        try:
            size_arm(with_training(entry.arm, epochs=epochs), bench, engine)
            if entry.arm.build_strategy().required_signals():
                bench.allocator(entry.arm.base).allocate(_first_run(entry.arm), bench.data(entry.arm))
        except (ModelError, AllocationError, DataError) as error:
            left_out.append((entry.arm.name, str(error)))
        else:
            kept.append(entry)
    return Entrants(sized=tuple(kept), left_out=tuple(left_out))


def _first_run(arm: Arm) -> Run:
    return Run(
        arm=arm,
        learning_rate=arm.train.learning_rates[0],
        seed=FIRST_RACE_SEED,
        base_fingerprint="",
        data_fingerprint="",
    )
