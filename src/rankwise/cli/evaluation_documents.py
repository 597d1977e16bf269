"""An evaluation as programs read it: a JSON document, and a file with a row per example."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankwise.data.examples import Example
from rankwise.errors import EvaluationError
from rankwise.evaluation.metrics import Estimate, compare, summarise
from rankwise.execution.evaluate import Evaluation
from rankwise.statistics.intervals import Interval


def scores_document(evaluation: Evaluation) -> dict[str, Any]:
    """All scores of one model as JSON; null where nothing was measured or it is not a number."""
    expected, found = evaluation.scores.expected, summarise(evaluation.scores)
    document: dict[str, Any] = {
        "num_examples": len(expected.loss_nats_E),
        "num_answer_tokens": int(expected.answer_tokens_E.sum()),
        **{name: estimate.value for name, estimate in found.items()},
        "intervals": {name: _interval_document(estimate) for name, estimate in found.items()},
    }
    lost = evaluation.forgetting
    if lost is not None:
        document["forgetting"] = {
            "num_passages": lost.num_passages,
            "before_nats": lost.before_nats,
            "after_nats": lost.after_nats,
            "difference_nats": lost.difference_nats.value,
            "interval": _interval_document(lost.difference_nats),
        }
    return document


def side_by_side_document(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Scores of every model, and the paired differences of all but the first from it."""
    first, *others = evaluations
    return {
        "models": [{"name": e.model.name, **scores_document(e)} for e in evaluations],
        "differences": [
            {"name": other.model.name, "baseline": first.model.name, **_differences(other, first)} for other in others
        ],
    }


def _differences(other: Evaluation, first: Evaluation) -> dict[str, Any]:
    found = compare(other.scores, first.scores)
    return {
        **{name: estimate.value for name, estimate in found.items()},
        "intervals": {name: _interval_document(estimate) for name, estimate in found.items()},
    }


def interval_bounds(interval: Interval | None) -> tuple[float, float] | None:
    """Its ends; None where there is no interval."""
    if interval is None or not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return None
    return interval.low, interval.high


def _interval_document(estimate: Estimate) -> dict[str, Any] | None:
    bounds = interval_bounds(estimate.interval)
    if estimate.interval is None or bounds is None:
        return None
    return {"low": bounds[0], "high": bounds[1], "level": estimate.interval.level, "method": estimate.interval.method}


def partial_of(path: Path) -> Path:
    """Where a file of examples is written before it is whole; made at once, to see that it can be.

    Raises:
        EvaluationError: it cannot.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        partial.touch()
    except OSError as error:
        raise EvaluationError(
            f"--out {path} cannot be written: {error.strerror or error}. Nothing was evaluated; name a file in a "
            "folder that is there and that you may write to."
        ) from error
    return partial


def example_rows(evaluations: Sequence[Evaluation], examples: Sequence[Example]) -> Iterator[Mapping[str, Any]]:
    """One row per model and example."""
    for evaluation in evaluations:
        expected, written = evaluation.scores.expected, evaluation.scores.written
        for index, example in enumerate(examples):
            loss = float(expected.loss_nats_E[index])
            row: dict[str, Any] = {
                "model": evaluation.model.name,
                "index": index,
                "instruction": example.instruction,
                "input": example.input,
                "expected": example.output,
                "family": example.family,
                "loss_nats": loss if math.isfinite(loss) else None,
                "answer_tokens": int(expected.answer_tokens_E[index]),
                "correct_tokens": int(expected.correct_tokens_E[index]),
            }
            if written is not None:
                row |= {
                    "got": written.texts[index],
                    "written_tokens": int(written.tokens_E[index]),
                    "exact_match": bool(written.exact_E[index]),
                    "rouge_l": float(written.rouge_l_E[index]),
                    "chrf": float(written.chrf_E[index]),
                }
            yield row


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows into the partial file that is there, and put it into place."""
    partial = partial_of(path)
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)
