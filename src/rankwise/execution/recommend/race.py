"""One rung of a race: arms x learning rates x seeds, scored on validation data. The test split is not touched.

A rung is a study in the ledger, named after the question and its number, so it is resumed, shared and looked at like
any other. Its runs are tuning runs: that is what they do, and what keeps their test scores unmeasured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.errors import RunFailedError
from rankwise.execution.observer import Observer
from rankwise.execution.recommend.candidates import with_training
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.rungs import ArmScore
from rankwise.execution.run_study import train_phases
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger, RunRow, StudyResults
from rankwise.study.config import Arm, CompareSettings, Study
from rankwise.study.plan import PlannedRun, tuning_runs

FIRST_RACE_SEED = 1000
"""Seeds of the race; those that confirm are counted from 0, so that the two never meet."""
ENDED = ("finished", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every stage needs to train."""

    question: Question
    ledger: Ledger
    options: StudyOptions
    bench: Workbench
    observer: Observer
    should_stop: Callable[[], bool]

    def train(self, study: Study, phases: Sequence[tuple[str, Sequence[PlannedRun]]]) -> tuple[StudyResults, bool]:
        """What the ledger then holds of `study`, and whether training was stopped before its end.

        Failed runs are in the results with their errors; they are no reason to give up the others.
        """
        try:
            results = train_phases(
                study,
                phases,
                self.ledger,
                self.options,
                bench=self.bench,
                observer=self.observer,
                should_stop=self.should_stop,
            )
        except StudyStopped:
            return self.ledger.study_results(study.name), True
        except RunFailedError:
            return self.ledger.study_results(study.name), False
        return results, False


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What a rung found."""

    study: str
    """Its name in the ledger."""
    epochs: float
    seeds: tuple[int, ...]
    scores: tuple[ArmScore, ...]
    """Of the arms whose runs have all ended; of every arm unless the race was stopped here."""
    is_complete: bool
    wall_s: float
    """Of its runs, each its share of its pack's."""


def run_rung(work: Work, number: int, label: str, arms: Sequence[Arm], *, epochs: float, num_seeds: int) -> Rung:
    """Train `arms` over `epochs` with the learning rates that each of them holds."""
    study = rung_study(work.question, number, arms, epochs=epochs, num_seeds=num_seeds)
    planned = tuning_runs(study, work.bench.fingerprints(study), rank_all=True)
    results, _ = work.train(study, [(label, planned)])
    scores = score_arms(arms, results, study.tuning_seeds)
    return Rung(
        study=study.name,
        epochs=epochs,
        seeds=study.tuning_seeds,
        scores=scores,
        is_complete=len(scores) == len(arms),
        wall_s=sum(run.wall_s or 0.0 for run in results.runs),
    )


def rung_study(question: Question, number: int, arms: Sequence[Arm], *, epochs: float, num_seeds: int) -> Study:
    """The study that a rung is in the ledger; its reported seeds are never trained."""
    return Study(
        name=f"{question.name}-rung-{number}",
        hypothesis=f"Rung {number} of a race: which arms are worth a longer training? Chosen on validation loss alone.",
        arms=tuple(with_training(arm, epochs=epochs, eval_every_frac=1.0) for arm in arms),
        seeds=(0,),
        tuning_seeds=tuple(range(FIRST_RACE_SEED, FIRST_RACE_SEED + num_seeds)),
        compare=CompareSettings(
            baseline=arms[0].name, level=question.level, equivalence_nats=question.equivalence_nats
        ),
    )


def score_arms(arms: Sequence[Arm], results: StudyResults, seeds: Sequence[int]) -> tuple[ArmScore, ...]:
    """Those of `arms` of which every run has ended."""
    by_place = {(run.arm, run.learning_rate, run.seed): run for run in results.runs if run.purpose == "tuning"}
    scores = (_score(arm, by_place, seeds) for arm in arms)
    return tuple(score for score in scores if score is not None)


def _score(arm: Arm, by_place: Mapping[tuple[str, float, int], RunRow], seeds: Sequence[int]) -> ArmScore | None:
    rates = arm.train.learning_rates
    runs = {rate: [by_place[arm.name, rate, seed] for seed in seeds] for rate in rates}
    every = [run for row in runs.values() for run in row]
    if any(run.status not in ENDED for run in every):
        return None
    return ArmScore(
        arm=arm,
        losses={rate: float(np.mean([_validation_loss(run) for run in row])) for rate, row in runs.items()},
        error=next((f"{run.status}: {run.error}" for run in every if run.status != "finished"), None),
    )


def _validation_loss(run: RunRow) -> float:
    loss = run.scores.get("validation_loss", np.inf) if run.status == "finished" else np.inf
    return loss if np.isfinite(loss) else np.inf
