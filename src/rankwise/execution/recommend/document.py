"""A recommendation as plain JSON values and as Markdown tables, made of the same numbers."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rankwise.execution.recommend.advice import advice
from rankwise.execution.recommend.answer import Answer
from rankwise.execution.recommend.confirm import Comparison, Finalist, Judgement
from rankwise.execution.recommend.race import Rung
from rankwise.execution.recommend.simplicity import KINDS, kind_of
from rankwise.reporting.format import (
    MISSING,
    format_bytes,
    format_difference,
    format_estimate,
    format_loss,
    format_p,
    format_rate,
    format_seconds,
)
from rankwise.reporting.markdown import bullets, code_block, escape, table
from rankwise.reporting.numbers import comparison_dict

FINALIST_COLUMNS = (
    "Arm",
    "Spread",
    "Parameters",
    "Learning rate",
    "Memory",
    "Test loss",
    "Against the best",
    "p (Holm)",
    "Verdict",
)
_ALIGN = "llrrrrrrl"


def answer_dict(answer: Answer, files: Mapping[str, str]) -> dict[str, Any]:
    """Plain JSON values; what is missing or not a number is None."""
    judgement = answer.judgement
    return {
        "advice": advice(answer),
        "is_confirmed": judgement.best is not None,
        "is_cut_short": answer.is_cut_short,
        "model": answer.question.template.base.model,
        "data": answer.question.template.data.source,
        "question": answer.question.to_dict(),
        "recommended": _finalist(judgement.finalist(judgement.recommended), judgement),
        "best": judgement.best,
        "num_seeds": len(judgement.seeds),
        "seeds": list(judgement.seeds),
        "level": answer.question.level,
        "equivalence_nats": answer.question.equivalence_nats,
        "finalists": [_finalist(finalist, judgement) for finalist in judgement.finalists],
        "comparisons": [_comparison(comparison) for comparison in judgement.comparisons],
        "budgets": comparison_dict(answer.budgets) if answer.budgets else None,
        "race": [_rung(rung) for rung in answer.rungs],
        "left_out": [{"arm": name, "reason": reason} for name, reason in answer.left_out],
        "studies": _studies(answer),
        "time_limit_s": answer.time_s,
        "training_wall_s": answer.wall_s,
        "files": dict(files),
    }


def _studies(answer: Answer) -> list[str]:
    names = [rung.study for rung in answer.rungs]
    names += [answer.confirmed.name] if answer.confirmed else []
    return names + ([answer.budgets.study] if answer.budgets else [])


def _finalist(finalist: Finalist, judgement: Judgement) -> dict[str, Any]:
    arm = finalist.arm
    return {
        "name": arm.name,
        "strategy": arm.strategy,
        "strategy_settings": arm.strategy_settings,
        "targets": arm.targets if isinstance(arm.targets, str) else list(arm.targets),
        "budget": arm.budget.model_dump(mode="json", exclude_none=True),
        "quantization": arm.base.quantization,
        "spread": KINDS[kind_of(arm)],
        "learning_rate": finalist.learning_rate,
        "is_learning_rate_at_edge": finalist.is_rate_at_edge,
        "params": finalist.params,
        "num_sites": finalist.num_sites,
        "predicted_memory_bytes": finalist.solo_bytes,
        "validation_loss": finalist.validation_loss,
        "test_loss": asdict(finalist.test_loss) if finalist.test_loss else None,
        "num_ended_badly": finalist.num_ended_badly,
        "is_best": arm.name == judgement.best,
        "is_recommended": arm.name == judgement.recommended,
        "runs": list(finalist.run_ids),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {"arm": comparison.arm, "against": comparison.other, **asdict(comparison.difference)}


def _rung(rung: Rung) -> dict[str, Any]:
    return {
        "study": rung.study,
        "epochs": rung.epochs,
        "seeds": list(rung.seeds),
        "is_complete": rung.is_complete,
        "wall_s": rung.wall_s,
        "arms": [
            {
                "arm": score.arm.name,
                "validation_losses": [
                    {"learning_rate": rate, "loss": loss if math.isfinite(loss) else None}
                    for rate, loss in score.losses.items()
                ],
                "learning_rate": score.rate,
                "loss": score.loss if score.is_usable else None,
                "error": score.error,
            }
            for score in rung.scores
        ],
    }


def _row(finalist: Finalist, judgement: Judgement) -> list[str]:
    name = finalist.arm.name
    difference = judgement.against_best(name)
    return [
        f"{name} (recommended)" if name == judgement.recommended else name,
        KINDS[kind_of(finalist.arm)],
        f"{finalist.params:,}",
        format_rate(finalist.learning_rate),
        format_bytes(finalist.solo_bytes),
        format_estimate(finalist.test_loss),
        format_difference(difference.estimate) if difference else MISSING,
        format_p(difference.p_holm) if difference else MISSING,
        verdict_of(finalist, judgement),
    ]


def verdict_of(finalist: Finalist, judgement: Judgement) -> str:
    """A word for the last column."""
    if finalist.num_ended_badly:
        return "ended badly"
    difference = judgement.against_best(finalist.arm.name)
    return "best" if finalist.arm.name == judgement.best else difference.outcome if difference else MISSING


def answer_markdown(answer: Answer, *, command: str) -> str:
    """RECOMMENDATION.md."""
    judgement = answer.judgement
    base, data = answer.question.template.base.model, answer.question.template.data
    train = answer.question.template.train
    parts = [
        f"# Recommendation for {escape(base)} on {escape(data.source)}\n",
        escape(advice(answer)) + "\n",
        table(
            FINALIST_COLUMNS, [list(map(escape, _row(finalist, judgement))) for finalist in judgement.finalists], _ALIGN
        ),
        bullets(
            [
                f"The simplest arm stands first. {len(judgement.seeds)} fresh paired seeds; losses in nats per answer "
                f"token with {answer.question.level:.0%} intervals; p adjusted over all {len(judgement.comparisons)} "
                "pairs of finalists (Holm).",
                "Memory: predicted peak of training the arm alone.",
                f"{data.train} training, {data.validation} validation and {data.test} test examples, {train.epochs:g} "
                f"epochs in batches of {train.batch_size}. Other amounts of data may have another answer.",
            ]
        ),
        "## The race\n",
        *(_rung_markdown(number, rung) for number, rung in enumerate(answer.rungs, start=1)),
    ]
    if answer.left_out:
        parts += ["## Left out\n", bullets(f"{escape(name)}: {escape(reason)}" for name, reason in answer.left_out)]
    parts += [
        "## Where the numbers are\n",
        bullets(
            [f"study {escape(name)} in the ledger: `rankwise runs list --study {name}`" for name in _studies(answer)]
        ),
        f"Time of all runs together: {format_seconds(answer.wall_s)}. Again:\n\n{code_block(command)}",
    ]
    return "\n".join(parts)


def _rung_markdown(number: int, rung: Rung) -> str:
    ranked = sorted(rung.scores, key=lambda score: score.loss)
    rows = [[escape(s.arm.name), format_rate(s.rate), _loss(s.loss), _all_losses(s.losses)] for s in ranked]
    seeds = ", ".join(map(str, rung.seeds))
    unfinished = "" if rung.is_complete else " Stopped before its end; only arms that were through are shown."
    head = f"Rung {number}: {rung.epochs:.3g} epochs, tuning seeds {seeds}, validation loss.{unfinished}\n\n"
    return head + table(("Arm", "Best rate", "Loss", "By learning rate"), rows, "lrrl")


def _loss(loss: float) -> str:
    return format_loss(loss) if math.isfinite(loss) else "diverged or failed"


def _all_losses(losses: Mapping[float, float]) -> str:
    return ", ".join(f"{format_rate(rate)}: {_loss(loss)}" for rate, loss in losses.items())
