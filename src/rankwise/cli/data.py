"""`rankwise data`: make a data set ready for a study, and say what is in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise.cli.console import console, error_console, print_json, printable
from rankwise.cli.options import DATA_HELP, MaxTokensOption, TemplateOption

if TYPE_CHECKING:
    from rich.table import Table

    from rankwise.data.examples import Example
    from rankwise.data.prepare import PreparedData
    from rankwise.data.summary import DataSummary, SplitSummary
    from rankwise.study.config import DataSettings

BAR_WIDTH = 40
SHOWN_CHARS = 200

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Example: rankwise data prepare skills --num-samples 1000 --out skills.jsonl

    Prepare data sets.
    """


@app.command("prepare", short_help="Fetch, clean, split and analyse a data set; write it as JSONL.")
def prepare(
    source: Annotated[str, typer.Argument(help=DATA_HELP)],
    num_samples: Annotated[
        int, typer.Option(min=3, help="Examples in all: a tenth each for validation and test, the rest for training.")
    ],
    out: Annotated[Path, typer.Option(help="File to write (.jsonl); its analysis goes beside it.")],
    template: TemplateOption = "alpaca",
    model: Annotated[str, typer.Option(help="Whose tokenizer counts: nano, a hub id or a folder.")] = "nano",
    max_tokens: MaxTokensOption = 256,
    seed: Annotated[int, typer.Option(min=0, help="Decides which example is in which split.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the analysis as one JSON document.")] = False,
) -> None:
    """Example: rankwise data prepare skills --num-samples 1000 --out skills.jsonl

    Fetch a data set, leave out empty, duplicate and over-long examples, split the rest, and write one example a line
    with its split. The file can be the source of a study, which keeps the splits. How many were left out and why, the
    lengths and the overlap of the splits are printed and stored beside it in OUT.analysis.json.
    """
    from rankwise.data.prepare import prepare_data
    from rankwise.data.prepared_file import analysis_path, write_prepared
    from rankwise.models.tokenizer import load_tokenizer
    from rankwise.study.config import BaseSettings

    _check_out(out)
    settings = _settings(source, template, max_tokens, num_samples, seed)
    prepared = prepare_data(settings, load_tokenizer(BaseSettings(model=model)))
    analysis = write_prepared(prepared, settings, model, out)
    if as_json:
        print_json({"out": str(out), "analysis": str(analysis_path(out)), **analysis})
        return
    _print_analysis(prepared)
    console.print(f"\n{printable(str(out))}  fingerprint {prepared.fingerprint}", markup=False)
    error_console.print(f"The analysis is in {analysis_path(out)}.", markup=False)


def _check_out(out: Path) -> None:
    """Refuse early what could only fail after the work."""
    from rankwise.errors import DataError

    if out.suffix != ".jsonl":
        raise DataError(f"--out: {out} must end in .jsonl, so that a study can read it. Rename it.")
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"lies in {out.parent}, which is not a folder"
        raise DataError(f"--out: {out} {what}. Name a file in an existing folder.")


def _settings(source: str, template: str, max_tokens: int, num_samples: int, seed: int) -> "DataSettings":
    from rankwise.study.config import DataSettings

    held_out = max(1, num_samples // 10)
    return DataSettings.model_validate(
        {
            "source": source,
            "template": template,
            "max_tokens": max_tokens,
            "train": num_samples - 2 * held_out,
            "validation": held_out,
            "test": held_out,
            "seed": seed,
        }
    )


def _print_analysis(prepared: "PreparedData") -> None:
    summary = prepared.summary
    excluded = summary.excluded
    console.print(f"{summary.num_loaded:,} loaded, {excluded.total:,} left out: {excluded.sentence()}")
    console.print(f"{summary.num_kept:,} kept; in more than one split: {summary.split_overlap}")
    if summary.num_unused_turns:
        console.print(f"{summary.num_unused_turns:,} messages after the first exchange of a conversation are not used")
    console.print(_splits_table(summary))
    console.print(_histogram(summary))
    _print_example(prepared.examples["train"][0])


def _splits_table(summary: "DataSummary") -> "Table":
    from rich.table import Table

    table = Table("split", title="Lengths in tokens, prompt and answer together", title_justify="left", box=None)
    for heading in ("examples", "tokens", "answer tokens", "shortest", "median", "95 %", "longest"):
        table.add_column(heading, justify="right")
    for name, split in summary.splits.items():
        table.add_row(name, *_cells(split))
    return table


def _cells(split: "SplitSummary") -> list[str]:
    counts = (split.num_examples, split.num_tokens, split.num_answer_tokens)
    lengths = (split.length_percentiles[name] for name in ("0", "50", "95", "100"))
    return [f"{value:,.0f}" for value in (*counts, *lengths)]


def _histogram(summary: "DataSummary") -> "Table":
    """Examples of all splits together, by length."""
    from rich.table import Table

    splits = list(summary.splits.values())
    edges = splits[0].histogram_edges
    counts = [sum(counted) for counted in zip(*(split.histogram_counts for split in splits), strict=True)]
    table = Table("tokens", "examples", title="\nExamples of all splits by length", title_justify="left", box=None)
    table.columns[1].justify = "right"
    table.add_column()
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * -(-BAR_WIDTH * count // max(counts))
        table.add_row(f"{low} to {high - 1}", f"{count:,}", bar)
    return table


def _print_example(example: "Example") -> None:
    """What the first training example says; data-set text is shown as it is, never as markup."""
    console.print("\nFirst training example")
    for name in ("instruction", "input", "output"):
        text = getattr(example, name)
        shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
        if text:
            console.print(f"  {name}: {printable(shown)}", markup=False)
