"""From a question to a recommendation: propose, race, confirm, choose; resumable anywhere, stopped by a time limit."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rankwise.errors import AllocationError, ModelError, RunFailedError
from rankwise.execution.checkpoints import CheckpointFolder
from rankwise.execution.observer import Observer
from rankwise.execution.recommend.candidates import is_uniform, named, variant, with_training
from rankwise.execution.recommend.confirm import Judgement, confirm_study, judge, train_seeds
from rankwise.execution.recommend.effort import Clock, Effort, choose_effort, rechoose_effort
from rankwise.execution.recommend.entrants import Entrants, LeftOut, find_entrants, probe_entrants
from rankwise.execution.recommend.fitting import SizedArm, race_engine, size_arm
from rankwise.execution.recommend.plan_file import read_plan, write_plan
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.race import Rung, Work, run_rung
from rankwise.execution.recommend.rungs import ArmScore, choose_finalists, halve, next_rates
from rankwise.execution.sizing import available_bytes
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger, StudyResults
from rankwise.reporting.comparison import compare_arms
from rankwise.reporting.format import format_count, format_seconds
from rankwise.reporting.values import StudyComparison
from rankwise.study.config import Arm, BudgetSettings


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All that is known when a race ends, by itself or by the time limit."""

    question: Question
    judgement: Judgement
    rungs: tuple[Rung, ...]
    left_out: tuple[LeftOut, ...]
    confirmed: StudyResults | None
    """The confirming study; None where the time limit came before it."""
    budgets: StudyComparison | None
    """Half and double of a given budget against it; None where they were not trained."""
    num_seeds: int
    """Seeds that were to confirm."""
    time_s: float | None
    is_cut_short: bool
    """Whether the time limit came before the end."""
    wall_s: float
    """Of all runs that the answer rests on, from the ledger."""


def answer(
    question: Question,
    ledger: Ledger,
    out: Path,
    bench: Workbench,
    *,
    command: str = "rankwise recommend",
    time_s: float | None = None,
    observer: Observer | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    now: Callable[[], float] = time.monotonic,
) -> Answer:
    """Race, confirm and choose; what the ledger holds already is not trained again.

    Args:
        out: Folder of the plan, checkpoints and confirmed adapters.
        time_s: No training goes on longer than this; the race is sized to it.
        now: Seconds since some moment.

    Raises:
        StudyStopped: `should_stop` answered True; the same call goes on.
        PackError: no arm fits the memory limit, or no race the time limit.
        RunFailedError: no arm could be trained, or the time was over before one was.
        ModelError, DataError, AllocationError, AdapterError: the question cannot be asked of this model, data, budget
            or folder.
    """
    asked = _Asked(question, ledger, out, bench, command, time_s, observer or Observer(), should_stop, now)
    return asked.run()


class _Asked:
    def __init__(
        self,
        question: Question,
        ledger: Ledger,
        out: Path,
        bench: Workbench,
        command: str,
        time_s: float | None,
        observer: Observer,
        should_stop: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self.question = question
        self.out = out
        self.bench = bench
        self.time_s = time_s
        self.should_stop = should_stop
        self.now = now
        self.started = now()
        options = StudyOptions(out=out, command=command)
        if question.memory_bytes is not None:
            limit_bytes = min(question.memory_bytes, available_bytes())
            options = replace(options, memory_bytes=limit_bytes, engine=race_engine(question.template, bench))
        self.work = Work(
            question=question,
            ledger=ledger,
            options=options,
            bench=bench,
            observer=observer,
            should_stop=lambda: should_stop() or self.is_late(),
        )
        self.clock = Clock(question, bench, options)
        self.entrants = Entrants(sized=(), left_out=())
        self.rungs: list[Rung] = []
        self.is_cut_short = False

    def is_late(self) -> bool:
        return self.time_s is not None and self.now() - self.started > self.time_s

    def run(self) -> Answer:
        effort = self._prepare()
        lengths = self.clock.lengths(effort, len(self.entrants.sized))
        effort, scores = self._race(effort, lengths)
        if self.is_cut_short:
            return self._answer(effort, scores)
        finalists = choose_finalists(scores, effort.num_finalists)
        study = confirm_study(self.question, finalists, effort.num_seeds)
        label = f"confirming {format_count(len(finalists), 'finalist')}"
        confirmed, was_stopped = self._checked(*train_seeds(self.work, study, label))
        budgets = None if was_stopped or not effort.asks_budgets else self._budgets(effort, finalists)
        if not self.is_cut_short:
            CheckpointFolder(self.out / "checkpoints").clear()
        return self._answer(effort, finalists, confirmed, budgets)

    def _checked(self, results: StudyResults, was_stopped: bool) -> tuple[StudyResults, bool]:
        """A stop that a person asked for ends everything; one of the time limit does not."""
        if was_stopped and self.should_stop():
            raise StudyStopped
        self.is_cut_short = self.is_cut_short or was_stopped
        return results, was_stopped

    # Who, and how much

    def _prepare(self) -> Effort:
        """Decide who races and how long; keep the decision, and measure what strategies need."""
        self.entrants = find_entrants(self.question, self.bench, self.work.options.engine)
        num = len(self.entrants.sized)
        effort = read_plan(self.out, self.question, self.time_s)
        if effort is None:
            effort = choose_effort(self.clock, num, self.time_s)
            write_plan(self.out, self.question, self.time_s, effort)
        dropped = [(arm.name, "too little time") for arm in self.entrants.arms[effort.num_arms :]]
        self.entrants = Entrants(
            sized=self.entrants.sized[: effort.num_arms], left_out=(*self.entrants.left_out, *dropped)
        )
        shortest = self.clock.lengths(effort, len(self.entrants.sized))[0]
        self.entrants = probe_entrants(self.entrants, shortest, self.bench, self.work.options.engine)
        self.work.observer.note(
            f"{len(self.entrants.sized)} arms x {len(self.clock.rates)} learning rates, then up to "
            f"{effort.num_finalists} finalists on {effort.num_seeds} seeds: about "
            f"{format_seconds(self.clock.total_s(effort, num))} predicted"
        )
        return effort

    # The race

    def _race(self, effort: Effort, lengths: Sequence[float]) -> tuple[Effort, list[ArmScore]]:
        """The effort that the first rung leaves, and the scores of the last rung that says anything."""
        arms = self.entrants.arms
        scores: list[ArmScore] = []
        for number, epochs in enumerate(lengths):
            label = f"rung {number + 1} of {len(lengths)}: {format_count(len(arms), 'arm')}, {epochs:.3g} epochs"
            num_seeds = effort.num_race_seeds if number else 1
            rung = run_rung(self.work, number + 1, label, arms, epochs=epochs, num_seeds=num_seeds)
            if self.should_stop() and not rung.is_complete:
                raise StudyStopped
            self.rungs.append(rung)
            scores = self._usable(rung, scores)
            if not scores:
                raise RunFailedError(self._nothing_learnt(rung))
            if not rung.is_complete:
                self.is_cut_short = True
                break
            if number == 0 and len(lengths) > 1:
                effort = self._resize(effort, rung, num_arms=len(arms))
            if number + 1 < len(lengths):
                arms = self._next_arms(scores, is_first=number == 0)
        return effort, scores

    def _usable(self, rung: Rung, before: Sequence[ArmScore] = ()) -> list[ArmScore]:
        """The scores to go on with: those of the rung before where this one was cut short without a uniform arm."""
        usable = [score for score in rung.scores if score.is_usable]
        says_enough = rung.is_complete or any(is_uniform(score.arm) for score in usable)
        return usable if usable and says_enough else list(before) or usable

    def _nothing_learnt(self, rung: Rung) -> str:
        errors = [f"{score.arm.name} {score.error}" for score in rung.scores]
        if errors:
            return (
                f"no arm could be trained; the first of {len(errors)}: {errors[0]}. Give smaller learning rates with "
                "--learning-rate, or another model or data."
            )
        return (
            f"the time limit of {format_seconds(self.time_s)} was over before the first arm was trained. What was "
            "begun is kept; give the same command again with a longer --time."
        )

    def _resize(self, effort: Effort, rung: Rung, *, num_arms: int) -> Effort:
        """Correct the clock by what the first rung took and, under a time limit, the effort with it."""
        self.clock.correct(rung.wall_s, effort, num_arms)
        if self.time_s is None:
            return effort
        resized = rechoose_effort(self.clock, effort, num_arms, self.time_s - rung.wall_s)
        if resized != effort:
            self.work.observer.note(
                f"the first rung took {format_seconds(rung.wall_s)}; now {resized.num_finalists} finalists on "
                f"{resized.num_seeds} seeds, {format_seconds(self.clock.rest_s(resized, num_arms))} more predicted"
            )
        return resized

    def _next_arms(self, scores: Sequence[ArmScore], *, is_first: bool) -> list[Arm]:
        """The survivors with the learning rates that they go on with.

        After the first rung, uneven survivors move to the targets and the budget of the best uniform arm: the two
        questions that the first rung asked apart are one from there on. Another budget wants other learning rates, so
        who moves gets those of that uniform arm.
        """
        may_leave = not self.question.are_rates_given
        kept = [
            with_training(score.arm, learning_rates=next_rates(score, may_leave=may_leave)) for score in halve(scores)
        ]
        uniform = [score for score in scores if is_uniform(score.arm)]
        if not (is_first and uniform):
            return kept
        best = min(uniform, key=lambda score: score.loss)
        rates = next_rates(best, may_leave=may_leave)
        moved = [arm if is_uniform(arm) else self._moved(arm, best.arm, rates) for arm in kept]
        return list({arm.name: arm for arm in moved}.values())

    def _moved(self, arm: Arm, best: Arm, rates: tuple[float, ...]) -> Arm:
        """The uneven arm at the base, targets and budget of `best`; on its own targets where those make it uniform."""
        for targets, budget in ((best.targets, best.budget), (arm.targets, arm.budget)):
            moved = named(variant(arm, base=best.base, targets=targets, budget=budget))
            if moved.name != arm.name:
                moved = with_training(moved, learning_rates=rates)
            try:
                sized = size_arm(moved, self.bench, self.work.options.engine)
            except (ModelError, AllocationError):
                continue
            if sized.ranks is None or sized.ranks != size_arm(best, self.bench, self.work.options.engine).ranks:
                self._enter(sized)
                return moved
        return arm

    def _enter(self, sized: SizedArm) -> None:
        if sized.arm.name not in {entry.arm.name for entry in self.entrants.sized}:
            self.entrants = replace(self.entrants, sized=(*self.entrants.sized, sized))

    # Beside the main question

    def _budgets(self, effort: Effort, finalists: Sequence[ArmScore]) -> StudyComparison | None:
        """A given budget against half and double of it, each with a uniform rank and its own learning rate."""
        uniform = [score for score in finalists if is_uniform(score.arm)]
        if not (self.question.is_budget_given and uniform):
            return None
        centre = uniform[0]
        others = [arm for factor in (0.5, 2.0) if (arm := self._scaled(centre.arm, factor)) is not None]
        if not others:
            return None
        number, epochs = len(self.rungs) + 1, centre.arm.train.epochs
        rung = run_rung(
            self.work,
            number,
            "half and double the budget: learning rates",
            others,
            epochs=epochs,
            num_seeds=effort.num_race_seeds,
        )
        self._checked(self.work.ledger.study_results(rung.study), not rung.is_complete)
        usable = self._usable(rung)
        if not (rung.is_complete and usable):
            return None
        study = confirm_study(self.question, [centre, *usable], effort.num_seeds, suffix="budgets")
        results, was_stopped = self._checked(*train_seeds(self.work, study, "half and double the budget"))
        return None if was_stopped else compare_arms(results)

    def _scaled(self, arm: Arm, factor: float) -> Arm | None:
        """The uniform arm at another budget; None where it cannot be had."""
        budget = {key: max(1, int(value * factor)) for key in ("rank", "params") if (value := getattr(arm.budget, key))}
        limits = {"min_rank": arm.budget.min_rank, "max_rank": arm.budget.max_rank}
        rates = self.question.template.train.learning_rates
        scaled = named(with_training(variant(arm, budget=BudgetSettings(**limits, **budget)), learning_rates=rates))
        try:
            sized = size_arm(scaled, self.bench, self.work.options.engine)
        except (ModelError, AllocationError):
            return None
        if sized.arm.budget == arm.budget or sized.solo_bytes > (self.question.memory_bytes or sized.solo_bytes):
            return None
        return scaled

    def _answer(
        self,
        effort: Effort,
        scores: Sequence[ArmScore],
        confirmed: StudyResults | None = None,
        budgets: StudyComparison | None = None,
    ) -> Answer:
        failed = [
            (score.arm.name, score.error or "") for rung in self.rungs for score in rung.scores if not score.is_usable
        ]
        trained = sum(run.wall_s or 0.0 for run in confirmed.runs) if confirmed else 0.0
        return Answer(
            question=self.question,
            judgement=judge(self.question, scores, self.entrants.sized, confirmed),
            rungs=tuple(self.rungs),
            left_out=(*self.entrants.left_out, *failed),
            confirmed=confirmed,
            budgets=budgets,
            num_seeds=effort.num_seeds,
            time_s=self.time_s,
            is_cut_short=self.is_cut_short,
            wall_s=sum(rung.wall_s for rung in self.rungs) + trained,
        )
