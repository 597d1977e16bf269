"""The finalists on fresh paired seeds and on the test split, which nothing has seen before; and the choice among them.

All pairs of finalists are compared and their p-values adjusted together (Holm), because which of them is the best is
seen on the same scores. So the best may be looked for after the fact: the family keeps its error rate whichever it is.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankwise.execution.recommend.candidates import is_uniform, with_training
from rankwise.execution.recommend.fitting import SizedArm
from rankwise.execution.recommend.question import Question
from rankwise.execution.recommend.race import Work
from rankwise.execution.recommend.rungs import ArmScore
from rankwise.execution.recommend.simplicity import simplicity_key
from rankwise.ledger import RunRow, StudyResults
from rankwise.reporting.collect import is_scored
from rankwise.reporting.estimates import describe_difference, mean_estimate, paired_comparison
from rankwise.reporting.values import Difference, Estimate
from rankwise.statistics.multiplicity import holm
from rankwise.streams import stream
from rankwise.study.config import Arm, CompareSettings, Study
from rankwise.study.plan import PlannedRun, report_runs


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """An arm of the last round with all that is known about it."""

    arm: Arm
    """With the learning rate that the race chose as its only one."""
    params: int
    num_sites: int
    solo_bytes: int
    """Predicted peak of training it alone."""
    validation_loss: float
    """In the last rung."""
    test_loss: Estimate | None
    """Over the seeds that all eligible finalists share; None before any."""
    is_rate_at_edge: bool
    """Whether its learning rate is the smallest or largest of those that the last rung tried."""
    num_ended_badly: int
    """Confirming runs that diverged or failed."""
    run_ids: tuple[str, ...]
    """Runs that the test loss is over."""

    @property
    def learning_rate(self) -> float:
        return self.arm.train.learning_rates[0]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One pair of finalists; `arm` is the one with the higher mean loss."""

    arm: str
    other: str
    difference: Difference
    """Test loss of `arm` minus that of `other`."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the confirming runs say."""

    finalists: tuple[Finalist, ...]
    """The simplest first."""
    comparisons: tuple[Comparison, ...]
    """Of all pairs of eligible finalists."""
    best: str | None
    """The lowest mean test loss; None where nothing was confirmed."""
    recommended: str
    """The simplest that is not significantly worse than the best."""
    seeds: tuple[int, ...]
    """On which all eligible finalists were scored."""

    def finalist(self, name: str) -> Finalist:
        return next(finalist for finalist in self.finalists if finalist.arm.name == name)

    def against_best(self, name: str) -> Difference | None:
        """The arm minus the best; None for the best itself and for an arm that was not compared."""
        found = (c.difference for c in self.comparisons if c.arm == name and c.other == self.best)
        return next(found, None)


def confirm_study(question: Question, finalists: Sequence[ArmScore], num_seeds: int, suffix: str = "confirm") -> Study:
    """The study that the confirmation is in the ledger; its baseline is the first uniform arm."""
    arms = tuple(confirming_arm(score) for score in finalists)
    baseline = next((arm for arm in arms if is_uniform(arm)), arms[0])
    return Study(
        name=f"{question.name}-{suffix}",
        hypothesis="The simplest of the finalists is as good as the best of them.",
        arms=arms,
        seeds=tuple(range(num_seeds)),
        compare=CompareSettings(
            baseline=baseline.name, level=question.level, equivalence_nats=question.equivalence_nats
        ),
    )


def confirming_arm(score: ArmScore) -> Arm:
    """The arm at the learning rate that the race chose, so that nothing is left to choose."""
    return with_training(score.arm, learning_rates=(score.rate,), eval_every_frac=0.5)


def train_seeds(work: Work, study: Study, label: str) -> tuple[StudyResults, bool]:
    """Train all arms seed by seed, as many seeds at a time as fit one pack.

    So whenever training is stopped, the finalists have nearly the same seeds. Returns as `Work.train`.
    """
    planned = report_runs(study, {}, work.bench.fingerprints(study))
    size = max(1, work.options.max_slots // len(study.arms))
    blocks = [study.seeds[start : start + size] for start in range(0, len(study.seeds), size)]
    phases = [(f"{label}, seeds {block[0]} to {block[-1]}", _on_seeds(planned, block)) for block in blocks]
    return work.train(study, phases)


def _on_seeds(planned: Sequence[PlannedRun], seeds: Sequence[int]) -> list[PlannedRun]:
    return [plan for plan in planned if plan.run.seed in seeds]


def judge(
    question: Question, scores: Sequence[ArmScore], sized: Sequence[SizedArm], results: StudyResults | None
) -> Judgement:
    """Choose among the finalists.

    An arm of which a confirming run diverged or failed is not eligible, unless all are like that. Where no seed was
    confirmed for all eligible finalists, the best uniform arm of the race is recommended: an uneven allocation needs
    evidence that the validation loss of a race, by which the winner of many is picked, is not.
    """
    runs = {score.arm.name: results.reported(score.arm.name) if results else () for score in scores}
    eligible = [name for name in runs if not _num_bad(runs[name])] or list(runs)
    seeds = _common_seeds([runs[name] for name in eligible])
    scored = {name: [run for run in runs[name] if run.seed in seeds] for name in eligible}
    places = {entry.arm.name: place for place, entry in enumerate(sized)}
    finalists = [
        _describe(question, score, sized[places[score.arm.name]], runs[score.arm.name], scored.get(score.arm.name, []))
        for score in scores
    ]
    finalists.sort(
        key=lambda f: simplicity_key(f.arm, params=f.params, num_sites=f.num_sites, place=places[f.arm.name])
    )
    if not seeds:
        return Judgement(
            finalists=tuple(finalists), comparisons=(), best=None, recommended=_unconfirmed(finalists), seeds=()
        )
    ranked = sorted(eligible, key=lambda name: np.mean([run.scores["test_loss"] for run in scored[name]]))
    comparisons = _compare_pairs(question, ranked, scored)
    worse = {c.arm for c in comparisons if c.other == ranked[0] and c.difference.outcome == "worse"}
    recommended = next(f.arm.name for f in finalists if f.arm.name in eligible and f.arm.name not in worse)
    return Judgement(
        finalists=tuple(finalists), comparisons=comparisons, best=ranked[0], recommended=recommended, seeds=seeds
    )


def _unconfirmed(finalists: Sequence[Finalist]) -> str:
    uniform = [finalist for finalist in finalists if is_uniform(finalist.arm)]
    return min(uniform or finalists, key=lambda finalist: finalist.validation_loss).arm.name


def _num_bad(runs: Sequence[RunRow]) -> int:
    return sum(run.status in ("diverged", "failed") for run in runs)


def _common_seeds(runs_of: Sequence[Sequence[RunRow]]) -> tuple[int, ...]:
    found = [{run.seed for run in runs if is_scored(run)} for runs in runs_of]
    return tuple(sorted(set.intersection(*found)))


def _describe(
    question: Question, score: ArmScore, sized: SizedArm, runs: Sequence[RunRow], scored: Sequence[RunRow]
) -> Finalist:
    name = score.arm.name
    losses = [run.scores["test_loss"] for run in scored]
    rng = stream(0, "recommend", name)
    return Finalist(
        arm=confirming_arm(score),
        params=next((run.params for run in runs if run.params is not None), sized.params),
        num_sites=sized.num_sites,
        solo_bytes=sized.solo_bytes,
        validation_loss=score.loss,
        test_loss=mean_estimate(losses, level=question.level, rng=rng) if losses else None,
        is_rate_at_edge=score.is_at_edge,
        num_ended_badly=_num_bad(runs),
        run_ids=tuple(run.id for run in scored),
    )


def _compare_pairs(
    question: Question, ranked: Sequence[str], scored: dict[str, list[RunRow]]
) -> tuple[Comparison, ...]:
    """Every pair, the one with the higher mean loss against the other."""
    pairs = [(worse, better) for better, worse in itertools.combinations(ranked, 2)]
    if not pairs:
        return ()
    found = []
    for worse, better in pairs:
        compared = paired_comparison(
            scored[worse],
            scored[better],
            level=question.level,
            equivalence_nats=question.equivalence_nats,
            rng=stream(0, "recommend", worse, better),
        )
        assert compared is not None
        found.append(compared)
    adjusted = holm([compared.p_value for compared in found], level=question.level).adjusted_p_M
    return tuple(
        Comparison(
            arm=worse,
            other=better,
            difference=describe_difference(
                compared, scored[worse], scored[better], p_holm=float(p), num_comparisons=len(pairs)
            ),
        )
        for (worse, better), compared, p in zip(pairs, found, adjusted, strict=True)
    )
