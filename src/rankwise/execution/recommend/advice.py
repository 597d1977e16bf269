"""The answer in plain words: what to use, the evidence, and what could not be decided."""

from collections.abc import Iterable, Sequence

from rankwise.execution.recommend.answer import Answer
from rankwise.execution.recommend.candidates import is_uniform
from rankwise.execution.recommend.confirm import Finalist
from rankwise.execution.recommend.simplicity import KINDS, kind_of
from rankwise.reporting.format import (
    format_count,
    format_difference,
    format_loss,
    format_names,
    format_p,
    format_rate,
    format_seconds,
)
from rankwise.reporting.values import Difference, StudyComparison
from rankwise.statistics.power import smallest_decidable_n

TARGET_WORDS = {"all-linear": "all linear layers", "attention": "the attention layers", "mlp": "the MLP layers"}


def advice(answer: Answer) -> str:
    """One paragraph without markup."""
    judgement = answer.judgement
    chosen = judgement.finalist(judgement.recommended)
    parts = [f"Use {describe_arm(chosen)}, learning rate {format_rate(chosen.learning_rate)}."]
    parts += _unconfirmed(answer, chosen) if judgement.best is None else _confirmed(answer, chosen)
    if answer.budgets:
        parts.append(_budgets(answer.budgets))
    if answer.is_cut_short:
        parts.append(
            f"The time limit of {format_seconds(answer.time_s)} came before the end; the same command with a longer "
            "--time goes on from here."
        )
    return " ".join(parts)


def describe_arm(finalist: Finalist) -> str:
    """`LoRA with the same rank 8 on all linear layers (245,760 parameters)`."""
    arm = finalist.arm
    where = TARGET_WORDS.get(str(arm.targets), str(arm.targets))
    size = f"{finalist.params:,} parameters"
    held = "" if arm.base.quantization == "none" else f" on a base held in {arm.base.quantization}"
    if is_uniform(arm):
        rank = f"rank {arm.budget.rank}" if arm.budget.rank else "rank"
        return f"LoRA with the same {rank} on {where} ({size}){held}"
    at = f"the budget of rank {arm.budget.rank}" if arm.budget.rank else "the given budget"
    return f"LoRA with ranks spread by {arm.strategy} on {where} at {at} ({size}){held}"


def _confirmed(answer: Answer, chosen: Finalist) -> list[str]:
    judgement, question = answer.judgement, answer.question
    num_arms = len({score.arm.name for rung in answer.rungs for score in rung.scores})
    num_finalists, num_seeds = len(judgement.finalists), len(judgement.seeds)
    parts = [
        f"Of {format_count(num_arms, 'arm')} raced on validation loss, {format_count(num_finalists, 'finalist')} "
        f"{'was' if num_finalists == 1 else 'were'} trained on {format_count(num_seeds, 'fresh paired seed')} and "
        "scored on test examples that had chosen nothing; differences stand with their "
        f"{question.level:.0%} intervals."
    ]
    if judgement.best == chosen.arm.name:
        parts.append(_is_best(answer, chosen))
    else:
        parts.append(_is_simplest(answer, chosen))
    parts += filter(None, [_uniform_sentence(answer, chosen) if num_finalists > 1 else ""])
    parts += _ended_badly(judgement.finalists)
    if edges := [f.arm.name for f in judgement.finalists if f.is_rate_at_edge]:
        parts.append(
            f"At the edge of the learning rates that were tried at full length, so that a better one may lie beyond: "
            f"{format_names(edges)}."
        )
    num_pairs = len(judgement.comparisons)
    if num_pairs and num_seeds < (needed := smallest_decidable_n(num_pairs, question.level)):
        parts.append(
            f"With {format_count(num_pairs, 'comparison')} and {format_count(num_seeds, 'seed')} no difference, "
            f"however large, could have been significant ({needed} seeds are needed), so the choice rests on "
            "simplicity alone."
        )
    parts += _undecided(answer, chosen)
    return parts


def _is_best(answer: Answer, chosen: Finalist) -> str:
    text = f"It has the lowest mean test loss, {_mean_loss(chosen)} nats per answer token"
    place = [finalist.arm.name for finalist in answer.judgement.finalists].index(chosen.arm.name)
    return (
        f"{text}, and every simpler finalist that is eligible is significantly worse."
        if place
        else f"{text}, and is the simplest."
    )


def _is_simplest(answer: Answer, chosen: Finalist) -> str:
    judgement = answer.judgement
    assert judgement.best is not None
    difference = judgement.against_best(chosen.arm.name)
    assert difference is not None
    best = judgement.finalist(judgement.best)
    verdict = "practically the same" if difference.outcome == "practically the same" else "not significantly worse"
    return (
        f"The lowest mean test loss is that of {best.arm.name}, {_mean_loss(best)} nats per answer token; "
        f"{chosen.arm.name} differs from it by {_numbers(difference)}: {verdict}, and simpler "
        f"({_why_simpler(chosen, best)})."
    )


def _mean_loss(finalist: Finalist) -> str:
    return format_loss(finalist.test_loss.value if finalist.test_loss else None)


def _why_simpler(chosen: Finalist, best: Finalist) -> str:
    if kind_of(chosen.arm) != kind_of(best.arm):
        return f"ranks are {KINDS[kind_of(chosen.arm)]}, not {KINDS[kind_of(best.arm)]}"
    if chosen.arm.base.quantization != best.arm.base.quantization:
        return "its base is not quantized"
    if chosen.params != best.params:
        return f"{chosen.params:,} instead of {best.params:,} parameters"
    return f"{chosen.num_sites} instead of {best.num_sites} layers"


def _uniform_sentence(answer: Answer, chosen: Finalist) -> str:
    """Whether a uniform rank is as good, always said."""
    judgement = answer.judgement
    uneven = [f.arm.name for f in judgement.finalists if not is_uniform(f.arm)]
    if not is_uniform(chosen.arm):
        uniform = [f for f in judgement.finalists if is_uniform(f.arm) and not f.num_ended_badly]
        return f"A uniform rank is not as good: {_against_best(answer, uniform)}." if uniform else ""
    if not uneven:
        return "No uneven allocation reached the last round."
    against = [c.difference.outcome for c in judgement.comparisons if c.other == chosen.arm.name and c.arm in uneven]
    if against and len(against) == len(uneven) and set(against) == {"worse"}:
        return "A uniform rank is better than every uneven allocation of the last round: each is significantly worse."
    better = [
        c.difference for c in judgement.comparisons if c.arm == chosen.arm.name and c.other in uneven
    ]  # where an uneven arm has the lower mean
    if not better:
        return "A uniform rank is as good as every uneven allocation that was tried: none has a lower mean test loss."
    return "A uniform rank is as good, as far as can be told: no uneven allocation is significantly better."


def _against_best(answer: Answer, finalists: Sequence[Finalist]) -> str:
    told = [(f.arm.name, answer.judgement.against_best(f.arm.name)) for f in finalists]
    return "; ".join(f"{name} is worse than the best by {_numbers(found)}" for name, found in told if found)


def _undecided(answer: Answer, chosen: Finalist) -> list[str]:
    """The comparisons of the chosen arm that show neither a difference nor its absence."""
    found = [
        (c.other if c.arm == chosen.arm.name else c.arm, c.difference)
        for c in answer.judgement.comparisons
        if chosen.arm.name in (c.arm, c.other) and c.difference.outcome == "undecided"
    ]
    if not found:
        return []
    told = [f"{name}{_more_seeds(difference)}" for name, difference in found]
    detectable = [d.minimum_detectable_nats for _, d in found if d.minimum_detectable_nats is not None]
    power = (
        f" These seeds show a difference of {format_loss(max(detectable))} nats with 80% power." if detectable else ""
    )
    return [f"Not decided: whether it differs from {format_names(told)}.{power}"]


def _more_seeds(difference: Difference) -> str:
    return f" (about {difference.seeds_to_decide:,} seeds would tell)" if difference.seeds_to_decide else ""


def _ended_badly(finalists: Iterable[Finalist]) -> list[str]:
    bad = [f"{f.arm.name} ({format_count(f.num_ended_badly, 'run')})" for f in finalists if f.num_ended_badly]
    return [f"Not eligible, because confirming runs diverged or failed: {format_names(bad)}."] if bad else []


def _unconfirmed(answer: Answer, chosen: Finalist) -> list[str]:
    name = chosen.arm.name
    rung = next(rung for rung in reversed(answer.rungs) if name in {score.arm.name for score in rung.scores})
    loss = format_loss(chosen.validation_loss)
    return [
        f"This is not confirmed: it is the uniform arm of the lowest validation loss ({loss} nats per answer token, "
        f"{format_count(len(rung.seeds), 'seed')}, {rung.epochs:.3g} epochs) when the race ended. An uneven allocation "
        "is recommended only where fresh seeds and test data show that it pays."
        if is_uniform(chosen.arm)
        else f"This is not confirmed: it has the lowest validation loss of the race ({loss} nats per answer token)."
    ]


def _budgets(comparison: StudyComparison) -> str:
    baseline = comparison.baseline
    told = [
        f"{arm.name} is {_outcome(arm.difference)} ({_numbers(arm.difference)})"
        for arm in comparison.arms
        if arm.difference
    ]
    return f"At other budgets, against {baseline}: {'; '.join(told)}." if told else ""


def _outcome(difference: Difference) -> str:
    return "not told apart" if difference.outcome == "undecided" else difference.outcome


def _numbers(difference: Difference) -> str:
    text = f"{format_difference(difference.estimate)} nats, n = {len(difference.seeds)}"
    p = format_p(difference.p_holm)
    return text + (
        f", p {p if p.startswith('<') else f'= {p}'} after Holm's adjustment" if difference.p_holm is not None else ""
    )
