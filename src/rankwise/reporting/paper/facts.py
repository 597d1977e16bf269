"""Every number and name that a paper may state, under a name of its own: `adaptive.empirical.difference`.

Prose holds names only, so a number changes when the study is run again and never because somebody typed it. Values are
plain text, formatted as in the report.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_difference,
    format_effect,
    format_equals,
    format_estimate,
    format_loss,
    format_names,
    format_outcome,
    format_p,
    format_percent,
    format_rate,
    format_seconds,
    format_seeds,
    format_signed,
    format_span,
)
from rankwise.reporting.markdown import plain
from rankwise.reporting.paper.sources import RESERVED, Source, unique_slugs
from rankwise.reporting.sweeps_section import answers_section
from rankwise.reporting.values import ArmComparison, StudyComparison
from rankwise.reporting.verdicts import completeness, verdict_section
from rankwise.statistics.verdict import Word

ARM_FACTS: Mapping[str, Callable[[ArmComparison], str]] = {
    "name": lambda arm: arm.name,
    "strategy": lambda arm: arm.strategy,
    "n": lambda arm: str(len(arm.finished_seeds)),
    "ranks": lambda arm: format_span(arm.ranks),
    "params": lambda arm: format_span(arm.params),
    "rate": lambda arm: format_rate(arm.learning_rate),
    "loss": lambda arm: format_estimate(arm.test_loss),
    "perplexity": lambda arm: format_estimate(arm.perplexity, digits=3),
    "accuracy": lambda arm: format_estimate(arm.token_accuracy),
    "time": lambda arm: format_seconds(arm.wall_s),
    "memory": lambda arm: format_bytes(arm.peak_memory_bytes),
    "diverged": lambda arm: str(len(arm.diverged_seeds)),
    "difference": lambda arm: format_difference(arm.difference.estimate) if arm.difference else MISSING,
    "finding": lambda arm: (
        f"{format_difference(arm.difference.estimate)}, {arm.difference.outcome}" if arm.difference else MISSING
    ),
    "size": lambda arm: format_loss(abs(arm.difference.estimate.value)) if arm.difference else MISSING,
    "outcome": format_outcome,
    "p": lambda arm: format_p(arm.difference.p) if arm.difference else MISSING,
    "p_holm": lambda arm: format_p(arm.difference.p_holm) if arm.difference else MISSING,
    "p_equivalence": lambda arm: format_p(arm.difference.p_equivalence) if arm.difference else MISSING,
    "effect_size": lambda arm: format_effect(arm.difference.effect_size) if arm.difference else MISSING,
    "improved": lambda arm: format_percent(arm.difference.improvement_frac) if arm.difference else MISSING,
    "detectable": lambda arm: format_loss(arm.difference.minimum_detectable_nats) if arm.difference else MISSING,
    "seeds_to_decide": lambda arm: str(arm.difference.seeds_to_decide or MISSING) if arm.difference else MISSING,
    "peak_above_start": lambda arm: format_signed(arm.stability.peak_above_start_nats) if arm.stability else MISSING,
    "loss_spikes": lambda arm: f"{arm.stability.loss_spikes:.2f}" if arm.stability else MISSING,
}
"""Last part of a value's name -> the value, of one arm. Missing is an en dash, as in the report."""


def facts_of(sources: Sequence[Source]) -> dict[str, str]:
    """All values of a paper about these studies."""
    facts = dict(_paper_facts(sources))
    for source in sources:
        facts |= {f"{source.slug}.{name}": value for name, value in _study_facts(source)}
    return facts


def arm_slugs(comparison: StudyComparison) -> dict[str, str]:
    """Arm -> the part of its values' names that stands for it."""
    names = [arm.name for arm in comparison.arms]
    return dict(zip(names, unique_slugs(names, RESERVED), strict=True))


def equal_arms(comparison: StudyComparison) -> list[ArmComparison]:
    """Arms that differ from the baseline in where their ranks are and in nothing else."""
    return [arm for arm in comparison.arms if arm.difference and not arm.deviations]


def count_outcomes(arms: Sequence[ArmComparison]) -> dict[Word, int]:
    counts = Counter(arm.difference.outcome for arm in arms if arm.difference)
    return {word: counts[word] for word in get_args(Word)}


def num_runs(comparison: StudyComparison) -> int:
    """Reported runs that finished."""
    return sum(len(arm.finished_seeds) for arm in comparison.arms)


def num_tuning_runs(comparison: StudyComparison) -> int:
    return sum(len(point.run_ids) for arm in comparison.arms for point in arm.tuning)


def _paper_facts(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    comparisons = [source.comparison for source in sources]
    competing = [arm for comparison in comparisons for arm in equal_arms(comparison)]
    contenders = [arm for arm in competing if not arm.is_control]
    yield "paper.num_studies", str(len(sources))
    yield "paper.num_arms", str(sum(len(comparison.arms) for comparison in comparisons))
    yield "paper.num_runs", f"{sum(map(num_runs, comparisons)):,}"
    yield "paper.num_tuning_runs", f"{sum(map(num_tuning_runs, comparisons)):,}"
    yield "paper.num_all_runs", f"{sum(num_runs(found) + num_tuning_runs(found) for found in comparisons):,}"
    yield "paper.num_comparisons", str(sum(bool(arm.difference) for found in comparisons for arm in found.arms))
    yield "paper.num_equal", str(len(competing))
    yield "paper.num_contenders", str(len(contenders))
    yield "paper.num_controls", str(len(competing) - len(contenders))
    for word, count in count_outcomes(contenders).items():
        yield f"paper.num_{word.replace(' ', '_')}", str(count)
    yield "paper.seeds", _span([found.num_seeds for found in comparisons])
    yield "paper.levels", " or ".join(dict.fromkeys(f"{found.level:.0%}" for found in comparisons))
    yield "paper.margins", " or ".join(dict.fromkeys(f"{found.equivalence_nats:g}" for found in comparisons))
    yield "paper.studies", format_names([found.study for found in comparisons])


def _study_facts(source: Source) -> Iterator[tuple[str, str]]:
    found = source.comparison
    yield "name", found.study
    yield "hypothesis", found.hypothesis.strip().rstrip(".")
    yield "baseline", found.baseline
    yield "level", f"{found.level:.0%}"
    yield "margin", f"{found.equivalence_nats:g}"
    yield "num_arms", str(len(found.arms))
    yield "num_seeds", str(found.num_seeds)
    yield "num_comparisons", str(len(found.family))
    yield "num_runs", f"{num_runs(found):,}"
    yield "num_tuning_runs", f"{num_tuning_runs(found):,}"
    yield "detectable", format_loss(found.minimum_detectable_nats)
    yield "budget", _budget(found)
    yield "verdict", _verdict(found)
    yield "missing", plain(completeness(found)) or "Every reported run has ended."
    yield "diverged", _diverged(found)
    yield "sha256", source.sha256
    for word, count in count_outcomes(equal_arms(found)).items():
        yield f"num_{word.replace(' ', '_')}", str(count)
    yield from _settings_facts(source.baseline_settings())
    if found.ordering:
        yield "tau", format_estimate(found.ordering.tau, digits=2)
    for arm, slug in zip(found.arms, arm_slugs(found).values(), strict=True):
        for name, value in ARM_FACTS.items():
            yield f"{slug}.{name}", value(arm)
        yield f"{slug}.sentence", sentence_of(arm)
    yield from _effect_facts(found)
    yield from _sweep_facts(found)


def _settings_facts(arm: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data, train = arm.get("data", {}), arm.get("train", {})
    yield "model", str(arm.get("base", {}).get("model", "not recorded"))
    yield "data", str(data.get("source", "not recorded"))
    for split in ("train", "validation", "test"):
        yield f"{split}_examples", str(data.get(split, MISSING))
    yield "epochs", f"{train['epochs']:g}" if "epochs" in train else MISSING
    yield "batch_size", str(train.get("batch_size", MISSING))
    yield "rates", format_rates(train.get("learning_rates", ()))


def format_rates(rates: Sequence[float]) -> str:
    return ", ".join(map(format_rate, sorted(rates))) or MISSING


def _effect_facts(found: StudyComparison) -> Iterator[tuple[str, str]]:
    """`effect.FACTOR.LEVEL`: the main effect of a level, with its interval."""
    effects = found.factorial.main_effects if found.factorial else ()
    names = unique_slugs(f"{effect.factor} {effect.level}" for effect in effects)
    for effect, name in zip(effects, names, strict=True):
        yield f"effect.{name}", format_difference(effect.estimate)
    if found.factorial and found.factorial.mixed:
        yield "effect.seed_share", format_percent(found.factorial.mixed.seed_frac)


def sentence_of(arm: ArmComparison) -> str:
    """`worse, +0.0193 [+0.0125, +0.0261] nats, n = 8, p = 0.012 after Holm's adjustment`."""
    found = arm.difference
    if found is None:
        return "not compared"
    text = f"{found.outcome}, {format_difference(found.estimate)} nats, n = {len(found.seeds)}"
    if found.outcome == "practically the same":
        return f"{text}, smaller than the margin with p {format_equals(format_p(found.p_equivalence))}"
    return (
        text if found.p_holm is None else f"{text}, p {format_equals(format_p(found.p_holm))} after Holm's adjustment"
    )


def answers_of(found: StudyComparison) -> tuple[str, ...]:
    """What the study's sweeps say, a sentence or more each; none in a study of allocations."""
    lines = plain(answers_section(found)).splitlines()
    return tuple(line.removeprefix("- ") for line in lines if line.startswith("- "))


def _sweep_facts(found: StudyComparison) -> Iterator[tuple[str, str]]:
    """`effect.ARM-against-REFERENCE`: what one setting does, all else equal."""
    slugs = arm_slugs(found)
    for sweep in found.sweeps:
        for one in sweep.contrasts:
            yield f"effect.{slugs[one.arm]}-against-{slugs[one.reference]}", format_difference(one.estimate)
    for number, answer in enumerate(answers_of(found), 1):
        yield f"effect.answer-{number}", answer


def _budget(found: StudyComparison) -> str:
    budgets = [arm.budget_params for arm in found.arms if arm.is_baseline]
    return f"{budgets[0]:,}" if budgets and budgets[0] else MISSING


def _verdict(found: StudyComparison) -> str:
    """The report's paragraph, without the list below it."""
    if not found.arms:
        return "The study has no arm, so nothing can be said."
    lines = plain(verdict_section(found)).splitlines()
    return " ".join(line for line in lines if line and not line.startswith("- "))


def _diverged(found: StudyComparison) -> str:
    arms = [f"{arm.name} (seed {format_seeds(arm.diverged_seeds)})" for arm in found.arms if arm.diverged_seeds]
    return f"Diverged, and in no mean: {format_names(arms)}." if arms else "No reported run diverged."


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
