"""Arms, scores and confirming results that the tests of the recommendation share; nothing is trained."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.execution.recommend.candidates import named
from rankwise.execution.recommend.fitting import SizedArm
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.rungs import ArmScore
from rankwise.ledger.results import RunRow, StudyResults
from rankwise.study.config import Arm, BudgetSettings, TrainSettings


def make_arm(strategy: str = "uniform", rank: int = 8, **settings: Any) -> Arm:
    train = TrainSettings(learning_rates=settings.pop("rates", (1e-3, 2e-3, 4e-3)))
    return named(Arm(name="new", strategy=strategy, budget=BudgetSettings(rank=rank), train=train, **settings))


def make_score(strategy: str = "uniform", loss: float = 1.0, rank: int = 8, **settings: Any) -> ArmScore:
    """Best at the middle of three rates."""
    losses = settings.pop("losses", {1e-3: loss + 0.2, 2e-3: loss, 4e-3: loss + 0.1})
    return ArmScore(arm=make_arm(strategy, rank, **settings), losses=losses)


def make_question(**changes: Any) -> Question:
    settings: dict[str, Any] = {
        "template": make_arm(),
        "is_budget_given": False,
        "are_rates_given": False,
        "strategies": ("linear_decay", "empirical"),
        "memory_bytes": None,
        "num_seeds": None,
    }
    return Question(**{**settings, **changes})


def make_sized(arm: Arm, params: int | None = None, num_sites: int = 42) -> SizedArm:
    return SizedArm(
        arm=arm,
        params=(arm.budget.rank or 0) * 1000 if params is None else params,
        site_names=tuple(f"site{number}" for number in range(num_sites)),
        ranks=None,
        solo_bytes=2**30,
    )


def make_results(losses: Mapping[str, Sequence[float | None]]) -> StudyResults:
    """Test losses of each arm by seed; nan for a run that diverged, None for one that was not begun."""
    runs = [
        RunRow(
            id=f"{arm}-{seed}",
            arm=arm,
            strategy="uniform",
            purpose="report",
            learning_rate=2e-3,
            seed=seed,
            status="pending" if loss is None else "diverged" if math.isnan(loss) else "finished",
            spec={},
            params=None,
            scores={} if loss is None or math.isnan(loss) else {"test_loss": loss, "validation_loss": loss},
            wall_s=1.0,
        )
        for arm, row in losses.items()
        for seed, loss in enumerate(row)
    ]
    return StudyResults(name="confirm", hypothesis="", study={}, runs=tuple(runs), environment={})
