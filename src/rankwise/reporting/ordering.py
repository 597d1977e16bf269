"""Whether single seeds agree about the order of the arms, and the paragraph that says so."""

import numpy as np

from rankwise.ledger.results import StudyResults
from rankwise.reporting.collect import deviations, is_scored, reported_runs
from rankwise.reporting.estimates import to_estimate
from rankwise.reporting.format import format_equals, format_p, format_percent
from rankwise.reporting.markdown import escape
from rankwise.reporting.values import Ordering, StudyComparison
from rankwise.statistics.orderings import ordering_stability


def ordering_of(results: StudyResults) -> Ordering | None:
    """The order of the arms that compete on equal terms; with another budget an order would be no surprise."""
    arms = [arm for arm in results.arm_names if not deviations(results, arm)]
    runs = {arm: {s: r for s, r in reported_runs(results, arm).items() if is_scored(r)} for arm in arms}
    arms = [arm for arm in arms if runs[arm]]
    seeds = tuple(seed for seed in results.study["seeds"] if all(seed in runs[arm] for arm in arms))
    if len(arms) < 3 or len(seeds) < 2:
        return None
    loss_AS = np.array([[runs[arm][seed].scores["test_loss"] for seed in seeds] for arm in arms])
    found = ordering_stability(loss_AS, level=results.study["compare"]["level"])
    return Ordering(
        arms=tuple(arms),
        seeds=seeds,
        tau=to_estimate(found.mean_tau, found.interval),
        p=found.p_value,
        first_frac=dict(zip(arms, map(float, found.first_frac_A), strict=True)),
    )


def ordering_section(comparison: StudyComparison) -> str:
    """Empty where there is no order to speak of."""
    found = comparison.ordering
    if found is None:
        return ""
    tau = found.tau
    interval = "" if tau.low is None or tau.high is None else f" [{tau.low:.2f}, {tau.high:.2f}]"
    agreement = f"{tau.value:.2f}{interval}".replace("-", "−")
    ranked = sorted(found.first_frac.items(), key=lambda item: -item[1])
    firsts = ", ".join(f"{escape(arm)} {format_percent(share)}" for arm, share in ranked if share)
    friedman = (
        f" Friedman's test of no order at all: p {format_equals(format_p(found.p))}." if found.p is not None else ""
    )
    return (
        "### Would one seed have told the same?\n\n"
        f"The orders that two seeds give to these {len(found.arms)} arms agree with Kendall's tau {agreement} on "
        f"average (1: the same order, 0: nothing in common; {len(found.seeds)} seeds, "
        f"{escape(tau.method)}).{friedman} Lowest test loss, share of seeds: {firsts}.\n"
    )
