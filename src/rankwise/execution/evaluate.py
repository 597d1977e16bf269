"""Models that share a base, scored on the same examples: expected answers, own answers, general text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankwise.data.examples import Example, TokenizedExample
from rankwise.data.general import GeneralText
from rankwise.errors import DataError
from rankwise.evaluation.forgetting import Forgetting, forgetting
from rankwise.evaluation.held_out import answer_examples, example_scores, score_examples
from rankwise.evaluation.metrics import ExampleScores
from rankwise.execution.adapter_record import AdapterRecord
from rankwise.execution.load_adapted import NamedModel
from rankwise.execution.side_by_side import SideBySide
from rankwise.study.config import DataSettings

NUM_EXAMPLES = 200
"""Scored where nothing else is said."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What one model scored."""

    model: NamedModel
    scores: ExampleScores
    forgetting: Forgetting | None = None
    """None where general text was not asked for, and for a base alone."""


def evaluate_models(
    together: SideBySide,
    tokens: Sequence[TokenizedExample],
    examples: Sequence[Example],
    *,
    generate: bool,
    max_new_tokens: int | None = None,
    general: GeneralText | None = None,
    on_batch: Callable[[int], None] = lambda _num_prompts: None,
) -> list[Evaluation]:
    """Score every model on the same examples, in the order in which they were named.

    Args:
        tokens, examples: The same examples as tokens and as text.
        generate: Whether answers are written, too.
        max_new_tokens: Longest written answer; None: the longest expected one.
        general: Text on which forgetting is measured.
        on_batch: Called with the number of answers that were just written.
    """
    base, pack, slots = together.base, together.pack, together.slots
    expected = score_examples(base, pack, slots, tokens)
    written = (
        answer_examples(base, pack, slots, tokens, max_new_tokens=max_new_tokens, on_batch=on_batch)
        if generate
        else [None] * len(slots)
    )
    forgotten = _forgetting(together, general) if general else [None] * len(slots)
    return [
        Evaluation(model=model, scores=example_scores(scores, examples, answers), forgetting=lost)
        for model, scores, answers, lost in zip(together.models, expected, written, forgotten, strict=True)
    ]


def _forgetting(together: SideBySide, general: GeneralText) -> list[Forgetting | None]:
    after = score_examples(together.base, together.pack, together.slots, general.passages)
    with together.base_alone() as base:
        [before] = score_examples(base, None, (None,), general.passages)
    return [
        forgetting(before, scores) if model.folder is not None else None
        for model, scores in zip(together.models, after, strict=True)
    ]


def data_settings(
    records: Sequence[AdapterRecord | None],
    source: str,
    *,
    split: Literal["test", "validation"],
    num: int | None,
    template: str | None,
    max_tokens: int | None,
) -> DataSettings:
    """The data settings under which `split` holds what is to be scored.

    On the data that an adapter was trained on, these are its own run's, so that the split is the one of that run.

    Raises:
        DataError: with these options an example that is scored may be one that an adapter was trained on, or the
            adapters were trained in different ways and the options do not say which is meant.
    """
    known = [record.data for record in records if record is not None]
    own = [data for data in known if _place(data.source) == _place(source)]
    if any(_splits(data) != _splits(own[0]) for data in own):
        raise DataError(
            f"the adapters were trained on {source} with different splits (sizes, seed, template or max_tokens), so an "
            "example that is scored for one may be one that another was trained on. Evaluate them one at a time."
        )
    trained = own[0] if own else _agreeing(known, template, max_tokens)
    asked = {"template": template or trained.template, "max_tokens": max_tokens or trained.max_tokens}
    start = trained if own else DataSettings(source=source)
    limit = getattr(trained, split)
    if own and (asked["template"], asked["max_tokens"]) != (trained.template, trained.max_tokens):
        raise DataError(
            f"--data {source} is what the adapter was trained on, with template {trained.template} and max_tokens "
            f"{trained.max_tokens}. Other values draw other splits, so training examples could be scored. Leave out "
            "--template and --max-tokens."
        )
    if own and num is not None and num > limit:
        raise DataError(
            f"--num {num} is more than the {limit} {split} examples of the adapter's own run on {source}; beyond them "
            f"lie examples that it was trained on. Ask for at most {limit}."
        )
    wanted = num or (min(NUM_EXAMPLES, limit) if own else NUM_EXAMPLES)
    sizes = {"train": 1, "validation": 1, split: wanted} | ({} if split == "test" else {"test": start.test})
    return DataSettings.model_validate({**start.model_dump(), **asked, **sizes})


def _splits(data: DataSettings) -> dict[str, object]:
    """What decides which example is in which split."""
    return data.model_dump(exclude={"source", "train"})


def _agreeing(known: Sequence[DataSettings], template: str | None, max_tokens: int | None) -> DataSettings:
    """How all of them were prompted; the defaults where nothing is known."""
    for name, given in (("template", template), ("max_tokens", max_tokens)):
        found = sorted({str(getattr(data, name)) for data in known})
        if given is None and len(found) > 1:
            raise DataError(
                f"the adapters were trained with different values of {name} ({', '.join(found)}). Say which one they "
                f"are to be scored with: --{name.replace('_', '-')}."
            )
    return known[0] if known else DataSettings()


def _place(source: str) -> Path:
    return Path(source).expanduser().absolute()
