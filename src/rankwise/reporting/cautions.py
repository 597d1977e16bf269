"""What could mislead a reader of this study, one sentence each: the known traps of comparing rank allocations."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rankwise.ledger.results import StudyResults
from rankwise.reporting.collect import candidate_rates, reported_runs
from rankwise.reporting.format import format_count, format_rate, format_seeds, format_span
from rankwise.reporting.secondary import benchmark_labels
from rankwise.reporting.values import ArmComparison
from rankwise.statistics.paired import smallest_p
from rankwise.statistics.power import smallest_decidable_n


def cautions(results: StudyResults, arms: Sequence[ArmComparison]) -> tuple[str, ...]:
    """Every caution that applies, the gravest first."""
    checks = (
        _incomplete(arms),
        _diverged(arms),
        _audit(results),
        _too_few_seeds(results, arms),
        _unequal_params(results, arms),
        _deviating(arms),
        _rates(results, arms),
        _scales(results, arms),
        _controls(arms),
        _benchmarks(results),
    )
    return tuple(sentence for check in checks for sentence in check)


def _incomplete(arms: Sequence[ArmComparison]) -> Iterator[str]:
    for arm in arms:
        if arm.missing_seeds:
            missing = [score for score in arm.seeds if score.seed in arm.missing_seeds]
            found = Counter(score.status for score in missing)
            listed = ", ".join(f"{count} {status}" for status, count in found.items())
            yield f"{arm.name}: {len(missing)} of {len(arm.seeds)} runs are missing ({listed})."


def _diverged(arms: Sequence[ArmComparison]) -> Iterator[str]:
    for arm in arms:
        if arm.diverged_seeds:
            yield (
                f"{arm.name}: {len(arm.diverged_seeds)} of {len(arm.seeds)} runs diverged (seed "
                f"{format_seeds(arm.diverged_seeds)}). They are in no mean, which flatters the arm."
            )


def _audit(results: StudyResults) -> Iterator[str]:
    for arm in results.arm_names:
        for run in reported_runs(results, arm).values():
            wrong = [site.site for site in run.sites if site.planned_rank != site.realised_rank]
            if wrong:
                yield f"{arm}: run {run.id} did not get its planned rank at {len(wrong)} sites, the first {wrong[0]}."


def _too_few_seeds(results: StudyResults, arms: Sequence[ArmComparison]) -> Iterator[str]:
    num_seeds, num_compared, level = len(results.study["seeds"]), len(arms) - 1, results.study["compare"]["level"]
    if num_seeds == 1:
        yield "One seed: how much of any difference is chance cannot be said, so every verdict is undecided."
    elif num_compared and num_seeds < (needed := smallest_decidable_n(num_compared, level)):
        yield (
            f"{num_seeds} seeds are too few to call any arm better or worse: the smallest p that a sign-flip test can "
            f"give with them is {smallest_p(num_seeds):.2g}, before adjusting for "
            f"{format_count(num_compared, 'comparison')}. {needed} seeds are the fewest that could."
        )


def _unequal_params(results: StudyResults, arms: Sequence[ArmComparison]) -> Iterator[str]:
    """A residual below the cheapest component is what integer ranks leave; more than that is an unequal comparison."""
    for arm in arms:
        if arm.residual_params and lacks_budget(results, arm):
            yield (
                f"{arm.name}: {format_span(arm.residual_params)} parameters of the budget are unspent, enough for "
                f"another component ({_cheapest(results, arm):,}); it competes with less than was allowed."
            )


def lacks_budget(results: StudyResults, arm: ArmComparison) -> bool:
    """Whether a run left enough of its budget unspent to buy another component."""
    cheapest = _cheapest(results, arm)
    return bool(cheapest and arm.residual_params and arm.residual_params.high >= cheapest)


def _cheapest(results: StudyResults, arm: ArmComparison) -> int | None:
    costs = (s.in_features + s.out_features for run in results.reported(arm.name) for s in run.sites)
    return min(costs, default=None)


def _deviating(arms: Sequence[ArmComparison]) -> Iterator[str]:
    """One sentence for all arms that differ in the same settings."""
    for deviations in dict.fromkeys(arm.deviations for arm in arms if arm.deviations):
        names = [arm.name for arm in arms if arm.deviations == deviations]
        what = f"{' and '.join(map(_with_article, deviations))} than the baseline"
        if len(names) == 1:
            yield f"{names[0]} has {what}: its difference is not the effect of where the ranks are alone."
        else:
            yield f"{'; '.join(names)} have {what}: their differences are not the effect of where the ranks are alone."


def _with_article(deviation: str) -> str:
    is_many = deviation.endswith(("rates", "data", "training"))
    return deviation if is_many else f"a {deviation}"


def _rates(results: StudyResults, arms: Sequence[ArmComparison]) -> Iterator[str]:
    for arm in arms:
        if arm.learning_rate_edge:
            yield (
                f"{arm.name}: the chosen learning rate {format_rate(arm.learning_rate)} is the "
                f"{arm.learning_rate_edge} of its list; a better one may lie beyond."
            )
    if all(len(candidate_rates(results, arm)) == 1 for arm in results.arm_names) and len(arms) > 1:
        yield "No learning rate was tuned: an arm may look worse only because the common one suits it less."


def _scales(results: StudyResults, arms: Sequence[ArmComparison]) -> Iterator[str]:
    uneven = [arm.name for arm in arms if has_uneven_scales(results, arm.name)]
    if uneven:
        yield (
            f"{', '.join(uneven)}: the scale of the product differs between sites, because the scaling rule divides "
            "by the rank; a difference may come from scales rather than ranks. The rule “constant” makes them equal."
        )


def has_uneven_scales(results: StudyResults, arm: str) -> bool:
    """Whether a reported run of the arm has sites of different scale."""
    return any(len({site.scale for site in run.sites if site.realised_rank}) > 1 for run in results.reported(arm))


def _controls(arms: Sequence[ArmComparison]) -> Iterator[str]:
    if {arm.strategy for arm in arms} != {"uniform"} and len(arms) > 1 and not any(arm.is_control for arm in arms):
        yield "No control: add an arm with the strategy “random”, to see what an arbitrary map earns at this budget."


def _benchmarks(results: StudyResults) -> Iterator[str]:
    """What was asked for and could not be run, or not on all."""
    finished = [run for arm in results.arm_names for run in results.reported(arm) if run.status == "finished"]
    for label in benchmark_labels(results):
        scored = sum(any(found.benchmark == label for found in run.benchmarks) for run in finished)
        if scored < len(finished):
            yield (
                f"benchmark {label}: {scored} of {len(finished)} finished runs have it; the same command runs what is "
                "missing."
            )
