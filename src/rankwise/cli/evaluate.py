"""`rankwise evaluate`: held-out scores of an adapter, or of a base model alone."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankwise.cli.console import console, error_console, print_json
from rankwise.cli.options import DataOption
from rankwise.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from rankwise.data.examples import Example, TokenizedExample
    from rankwise.evaluation.held_out import HeldOutScores
    from rankwise.execution.adapter_record import AdapterRecord
    from rankwise.models.load import LoadedBase
    from rankwise.study.config import DataSettings

NUM_EXAMPLES = 200
SHOWN_CHARS = 400


def evaluate(
    adapter: Annotated[
        str, typer.Argument(help="Folder of a PEFT adapter; or a base model: nano, a hub id, a folder.")
    ],
    data: DataOption,
    model: Annotated[
        str | None, typer.Option(help="Base model of the adapter; default: the one its configuration names.")
    ] = None,
    template: Annotated[
        Literal["alpaca", "chat", "plain"] | None,
        typer.Option(help="How an example becomes a prompt; default: as the adapter was trained, else alpaca."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Longer examples are excluded; default: as the adapter was trained, else 256."),
    ] = None,
    num: Annotated[
        int | None, typer.Option(min=1, help="Examples to score; default 200, or what the adapter's own run had.")
    ] = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which examples.")] = "test",
    generate: Annotated[
        bool, typer.Option("--generate/--no-generate", help="Also write answers and count the exact ones.")
    ] = True,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer written; default: the longest expected one.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Show this many questions with both answers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON document.")] = False,
) -> None:
    """Example: rankwise evaluate adapter --data skills --examples 3

    Score an adapter on held-out examples: loss and perplexity of the expected answers, and how many of the answers
    that it writes itself are exactly right. With a base model in place of the adapter, the score before any training.
    """
    if examples and not generate:
        raise typer.BadParameter("--examples shows generated answers; leave out --no-generate.")
    from rankwise.data.prepare import prepare_data
    from rankwise.execution.load_adapted import load_adapted
    from rankwise.models.host_memory import keep_freed_memory

    keep_freed_memory()
    base, record = load_adapted(adapter, model)
    if record and record.spec["base_fingerprint"] != base.fingerprint:
        error_console.print(
            "note: the base model, or the form it runs in here, is not the one the adapter was trained on"
        )
    settings = data_settings(record, data, split=split, num=num, template=template, max_tokens=max_tokens)
    prepared = prepare_data(settings, base.tokenizer)
    tokens = prepared.validation if split == "validation" else prepared.test
    texts = prepared.examples[split]
    scores, answers = _score(base, tokens, texts, generate and texts[0].has_prompt, max_new_tokens)
    if examples and answers:
        (error_console if as_json else console).print(_examples_table(texts[:examples], answers))
    if as_json:
        print_json(asdict(scores))
    else:
        _print_scores(scores, split)


def data_settings(
    record: "AdapterRecord | None",
    source: str,
    *,
    split: Literal["test", "validation"],
    num: int | None,
    template: str | None,
    max_tokens: int | None,
) -> "DataSettings":
    """The data settings under which `split` holds what is to be scored.

    On the data that the adapter was trained on, these are its own run's, so that the split is the one of that run.

    Raises:
        DataError: with these options an example that is scored may be one that the adapter was trained on.
    """
    from rankwise.study.config import DataSettings

    trained = record.data if record else DataSettings()
    own = record is not None and _place(trained.source) == _place(source)
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


def _place(source: str) -> Path:
    return Path(source).expanduser().absolute()


def _score(
    base: "LoadedBase",
    tokens: "tuple[TokenizedExample, ...]",
    texts: "tuple[Example, ...]",
    generate: bool,
    max_new_tokens: int | None,
) -> "tuple[HeldOutScores, list[str]]":
    from rankwise.evaluation.held_out import answer_examples, exact_match_frac, score_examples

    scores = score_examples(base, tokens)
    if not generate:
        return scores, []
    with _progress() as bars:
        task = bars.add_task("writing answers", total=len(tokens))
        answers = answer_examples(
            base, tokens, max_new_tokens=max_new_tokens, on_batch=lambda num_done: bars.advance(task, num_done)
        )
    return replace(scores, exact_match=exact_match_frac(answers, texts)), answers


def _progress() -> "Progress":
    from rich.progress import Progress

    return Progress(console=error_console, disable=not error_console.is_terminal, transient=True)


def _examples_table(texts: "tuple[Example, ...]", answers: list[str]) -> "Table":
    """One row per text. They come from a data set and a model: none may carry markup or steer the terminal."""
    from rich.table import Table

    from rankwise.cli.console import cell
    from rankwise.evaluation.generation import is_exact_match

    table = Table("question", "expected", "got", "", show_lines=True)
    for example, answer in zip(texts, answers, strict=False):
        question = "\n".join(part for part in (example.instruction, example.input) if part)
        match = cell("yes", "green") if is_exact_match(answer, example.output) else cell("no", "red")
        table.add_row(*(cell(_shorten(text)) for text in (question, example.output, answer)), match)
    return table


def _shorten(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _print_scores(scores: "HeldOutScores", split: str) -> None:
    from rankwise.cli.run_tables import facts_table, format_score
    from rankwise.reporting.format import format_percent

    facts = {
        f"{split} examples": f"{scores.num_examples:,}, with {scores.num_answer_tokens:,} answer tokens",
        "loss": f"{format_score('loss', scores.loss_nats)} nats per answer token",
        "perplexity": format_score("perplexity", scores.perplexity),
        "token accuracy": format_percent(scores.token_accuracy),
        "exact match": format_percent(scores.exact_match) if scores.exact_match is not None else "no answers written",
    }
    console.print(facts_table(facts))
