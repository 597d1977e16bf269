"""What an arm's reported runs were read back to hold, and where that is not what was planned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.reporting.collect import arm_settings, reported_runs
from rankwise.reporting.values import ArmAudit, Range, Span


def audit_arm(results: StudyResults, arm: str) -> ArmAudit:
    """Over the arm's finished runs; a run that failed its audit has failed, and stands among the missing ones."""
    settings = arm_settings(results, arm)
    runs = [run for run in reported_runs(results, arm).values() if run.status == "finished"]
    audited = [run for run in runs if run.outcomes]
    used = [site for run in runs for site, rank in zip(run.sites, run.spent_ranks, strict=True) if rank]
    return ArmAudit(
        num_runs=len(runs),
        num_audited=len(audited),
        num_sites=sum(len(run.sites) for run in runs),
        exceptions=tuple(f"{arm}: {sentence}" for run in runs for sentence in _exceptions(run)),
        scaling=scaling_in_words(settings.get("scaling", {})),
        init=init_in_words(settings.get("init", "kaiming")),
        scales=Range.of(site.scale for site in used),
        lr_factors_down=Range.of(site.lr_factor_down for site in used),
        lr_factors_up=Range.of(site.lr_factor_up for site in used),
        stored_params=Span.of(run.stored_params for run in audited),
        held_params=Span.of(run.held_params for run in audited),
        num_revisions=Span.of(len(run.revisions) for run in audited),
        num_unmoved=Span.of(sum(outcome.num_unmoved for outcome in run.outcomes) for run in audited),
    )


def _exceptions(run: RunRow) -> Iterator[str]:
    wrong = [site.site for site in run.sites if site.planned_rank != site.realised_rank]
    if wrong:
        yield f"run {run.id} did not get its planned rank at {_sites(wrong)}."
    if not run.outcomes:
        return
    rank_of = {site.site: rank for site, rank in zip(run.sites, run.spent_ranks, strict=True)}
    # A subtracted initial product is stored beside as many trained components.
    wrong = [o.site for o in run.outcomes if o.rank not in (rank_of.get(o.site), 2 * rank_of.get(o.site, 0))]
    if wrong:
        yield f"run {run.id} stores another rank than it trained at {_sites(wrong)}."
    scale_of = {site.site: site.scale for site in run.sites}
    wrong = [outcome.site for outcome in run.outcomes if outcome.rank and outcome.scale != scale_of.get(outcome.site)]
    if wrong:
        yield f"run {run.id} stores another scale than planned at {_sites(wrong)}."


def _sites(names: Sequence[str]) -> str:
    return f"{len(names)} sites, the first {names[0]}" if len(names) > 1 else names[0]


def scaling_in_words(scaling: Mapping[str, Any] | str) -> str:
    """`{rule: alpha_over_r, alpha: 16}` -> `alpha / r, alpha 16`."""
    if not isinstance(scaling, Mapping):
        return str(scaling)
    match scaling.get("rule"):
        case "alpha_over_r":
            return f"alpha / r, alpha {scaling.get('alpha', 16.0):g}"
        case "rslora":
            return f"alpha / sqrt(r), alpha {scaling.get('alpha', 16.0):g}"
        case "constant":
            return f"constant {scaling.get('scale', 2.0):g}"
    return str(scaling.get("rule", "–"))


def init_in_words(init: object) -> str:
    """A name, or a name with settings: `{name: pissa, niter: 4}` -> `pissa, niter 4`."""
    if isinstance(init, Mapping):
        named = init.get("name", init.get("rule", ""))
        rest = [f"{key} {value}" for key, value in init.items() if key not in ("name", "rule")]
        return ", ".join([str(named), *rest])
    return str(init)
