"""How much is raced and confirmed, and how long that takes: the race is sized to the time there is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from rankwise.errors import PackError
from rankwise.execution.duration import DurationPredictor
from rankwise.execution.packing import cut_packs
from rankwise.execution.recommend.candidates import with_training
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.rungs import ETA, rung_epochs
from rankwise.execution.sizing import available_bytes, size_runs
from rankwise.execution.study_options import StudyOptions
from rankwise.execution.workbench import Workbench
from rankwise.reporting.format import format_seconds
from rankwise.statistics.power import smallest_decidable_n
from rankwise.study.config import Arm
from rankwise.study.plan import PlannedRun
from rankwise.study.runs import Purpose, Run


@dataclass(frozen=True, kw_only=True)
class Effort:
    """The size of a race and of its confirmation."""

    num_arms: int
    """Arms of the first rung."""
    num_race_seeds: int
    """Tuning seeds of every rung after the first, which has one."""
    num_finalists: int
    num_seeds: int
    """Fresh seeds on which the finalists are confirmed."""
    asks_budgets: bool
    """Whether half and double of a given budget are trained as well."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


ALL_ARMS = 100
"""More than there are."""
DEFAULT = Effort(num_arms=ALL_ARMS, num_race_seeds=1, num_finalists=4, num_seeds=8, asks_budgets=True)
EFFORTS = (
    replace(DEFAULT, num_seeds=16, num_race_seeds=2),
    replace(DEFAULT, num_seeds=12, num_race_seeds=2),
    DEFAULT,
    replace(DEFAULT, asks_budgets=False),
    replace(DEFAULT, asks_budgets=False, num_finalists=3, num_seeds=7),
    replace(DEFAULT, asks_budgets=False, num_finalists=3, num_seeds=7, num_arms=8),
    replace(DEFAULT, asks_budgets=False, num_finalists=2, num_seeds=6, num_arms=8),
    replace(DEFAULT, asks_budgets=False, num_finalists=2, num_seeds=6, num_arms=4),
)
"""From the most to the least. Seeds never fall below what the comparisons of the finalists need to show anything at
level 0.95: 6 seeds for one comparison, 7 for the three of three finalists, 8 for the six of four."""


class Clock:
    """Predicts seconds, corrected by what the first rung really took."""

    def __init__(self, question: Question, bench: Workbench, options: StudyOptions) -> None:
        self.question = question
        self.bench = bench
        self.options = options
        self.correction = 1.0
        self._predictor = DurationPredictor(bench)
        self._known: dict[tuple[int, float, Purpose], float] = {}

    def predict_s(self, num_runs: int, epochs: float, purpose: Purpose) -> float:
        """Of training and scoring so many runs of the template arm, in packs as they would be cut."""
        key = (num_runs, epochs, purpose)
        if num_runs and key not in self._known:
            arm = with_training(self.question.template, epochs=epochs)
            runs = [_stand_in(arm, seed, purpose) for seed in range(num_runs)]
            packs = cut_packs(
                size_runs(runs, self.bench, self.options.engine),
                limit_bytes=self.options.memory_bytes or available_bytes(),
                max_slots=self.options.max_slots,
            )
            self._known[key] = sum(self._predictor.predict_s(pack.items) for pack in packs)
        return self._known.get(key, 0.0) * self.correction

    def correct(self, measured_s: float, effort: Effort, num_proposed: int) -> None:
        """Learn from what the first rung took; this machine's speed drops out, so a repeated race decides alike."""
        self.correction *= measured_s / self.first_rung_s(effort, num_proposed)

    def first_rung_s(self, effort: Effort, num_proposed: int) -> float:
        epochs = self.lengths(effort, num_proposed)[0]
        return self.predict_s(self._first_runs(effort, num_proposed), epochs, "tuning")

    def rest_s(self, effort: Effort, num_proposed: int) -> float:
        """Of everything after the first rung."""
        lengths = self.lengths(effort, num_proposed)
        num_left, total = min(effort.num_arms, num_proposed), 0.0
        for epochs in lengths[1:]:
            num_left = ceil(num_left / ETA) + 1  # both groups round up
            total += self.predict_s(num_left * min(3, len(self.rates)) * effort.num_race_seeds, epochs, "tuning")
        if effort.asks_budgets and self.question.is_budget_given:
            total += self.predict_s(2 * len(self.rates) * effort.num_race_seeds, lengths[-1], "tuning")
            total += self.predict_s(2 * effort.num_seeds, lengths[-1], "report")
        return total + self.predict_s(effort.num_finalists * effort.num_seeds, lengths[-1], "report")

    def total_s(self, effort: Effort, num_proposed: int) -> float:
        return self.first_rung_s(effort, num_proposed) + self.rest_s(effort, num_proposed)

    @property
    def rates(self) -> Sequence[float]:
        return self.question.template.train.learning_rates

    def lengths(self, effort: Effort, num_proposed: int) -> tuple[float, ...]:
        train = self.question.template.train
        num_examples = len(self.bench.data(self.question.template).train)
        return rung_epochs(
            train.epochs,
            steps_per_epoch=ceil(num_examples / train.batch_size),
            num_arms=min(effort.num_arms, num_proposed),
            num_finalists=effort.num_finalists,
        )

    def _first_runs(self, effort: Effort, num_proposed: int) -> int:
        return min(effort.num_arms, num_proposed) * len(self.rates)


def _stand_in(arm: Arm, seed: int, purpose: Purpose) -> PlannedRun:
    run = Run(
        arm=arm,
        learning_rate=arm.train.learning_rates[0],
        seed=seed,
        base_fingerprint="",
        data_fingerprint="",
        scores_test=purpose == "report",
    )
    return PlannedRun(run=run, purpose=purpose)


def efforts_of(question: Question) -> list[Effort]:
    """EFFORTS with the seeds that were asked for, if any."""
    return list(dict.fromkeys(_with_seeds(effort, question) for effort in EFFORTS))


def _with_seeds(effort: Effort, question: Question) -> Effort:
    """With the seeds that were asked for and as many finalists as these can tell apart, two or more."""
    if question.num_seeds is None:
        return effort
    num = effort.num_finalists
    while num > 2 and smallest_decidable_n(num * (num - 1) // 2, question.level) > question.num_seeds:
        num -= 1
    return replace(effort, num_seeds=question.num_seeds, num_finalists=num)


def choose_effort(clock: Clock, num_proposed: int, time_s: float | None) -> Effort:
    """The largest effort that is predicted to fit; without a limit the default one.

    Raises:
        PackError: not even the smallest fits.
    """
    if time_s is None:
        return _with_seeds(DEFAULT, clock.question)
    efforts = efforts_of(clock.question)
    for effort in efforts:
        if clock.total_s(effort, num_proposed) <= time_s:
            return effort
    needed_s = clock.total_s(efforts[-1], num_proposed)
    raise PackError(
        f"--time: {format_seconds(time_s)} is too short. The smallest race that can confirm anything ("
        f"{efforts[-1].num_arms} arms, {efforts[-1].num_finalists} finalists on {efforts[-1].num_seeds} seeds) is "
        f"predicted to take {format_seconds(needed_s)} here. Allow that much, or lower --train-examples, "
        "--test or --epochs. Nothing was trained."
    )


def rechoose_effort(clock: Clock, effort: Effort, num_proposed: int, left_s: float) -> Effort:
    """After the first rung: the largest effort with that rung whose rest fits into what is left, else the smallest."""
    possible = [other for other in efforts_of(clock.question) if _same_rung(other, effort, clock, num_proposed)]
    return next((other for other in possible if clock.rest_s(other, num_proposed) <= left_s), possible[-1])


def _same_rung(other: Effort, effort: Effort, clock: Clock, num_proposed: int) -> bool:
    return min(other.num_arms, num_proposed) == min(effort.num_arms, num_proposed) and (
        clock.lengths(other, num_proposed)[0] == clock.lengths(effort, num_proposed)[0]
    )
