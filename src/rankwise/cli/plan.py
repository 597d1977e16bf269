"""`rankwise plan`: what a study would train, what it would cost, and what it could show."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise.cli.console import console, print_json
from rankwise.cli.options import StudyDataOption, StudyModelOption
from rankwise.cli.sizes import parse_bytes

if TYPE_CHECKING:
    from rankwise.execution.pilot import Pilot
    from rankwise.study import Study


def plan(
    files: Annotated[list[Path], typer.Argument(help="Study files.", show_default=False)],
    model: StudyModelOption = None,
    data: StudyDataOption = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            envvar="RANKWISE_LEDGER",
            help="Ledger to take the spread between seeds from; default rankwise.db.",
            show_default=False,
        ),
    ] = None,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|STUDY",
            help="Earlier study to take it from: a results folder, or a name in the ledger; default: the study itself.",
            show_default=False,
        ),
    ] = None,
    max_pack: Annotated[int, typer.Option(min=1, help="Most runs side by side.")] = 16,
    memory: Annotated[
        str | None, typer.Option(help="Memory that a pack may fill, such as 8GiB; default: what is free.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
) -> None:
    """Example: rankwise plan studies/embedded.yaml

    Show what a study would train: how each arm spends its budget, which runs train side by side, the memory and the
    time that takes, and how small a difference it could show. Trains nothing and writes nothing; of the base model
    only the configuration and the tokenizer are needed.
    """
    from rankwise.cli.suite import load_studies

    limit_bytes = parse_bytes(memory) if memory else None
    studies = load_studies(files, model=model, data=data)
    print_plans(studies, max_slots=max_pack, limit_bytes=limit_bytes, as_json=as_json, ledger=ledger, pilot=pilot)


def print_plans(
    studies: "Sequence[Study]",
    *,
    max_slots: int,
    limit_bytes: int | None,
    as_json: bool,
    ledger: str | None = None,
    pilot: str | None = None,
) -> None:
    """Plan `studies` for this machine and print them; of several also what they share.

    Args:
        limit_bytes: Memory that a pack may fill; None for what is free.
        ledger: Path or URL; None for the default. It need not exist.
        pilot: Results folder or study that the spread between seeds is taken from; None: what the ledger holds of the
            study itself.
    """
    from rankwise.cli.plan_tables import plan_page
    from rankwise.cli.suite import sharing_in_words
    from rankwise.execution.pilot import find_pilot
    from rankwise.execution.planning import plan_study
    from rankwise.execution.sizing import available_bytes
    from rankwise.execution.workbench import Workbench
    from rankwise.training.engine import EngineOptions

    named = find_pilot(pilot, studies, ledger) if pilot is not None else None
    limit_bytes = limit_bytes or available_bytes()
    bench = Workbench()
    plans = [
        plan_study(
            study,
            bench,
            engine=EngineOptions(),
            limit_bytes=limit_bytes,
            max_slots=max_slots,
            earlier=named or _find_earlier(study.name, ledger),
        )
        for study in studies
    ]
    if as_json:
        documents = [plan.to_dict() for plan in plans]
        print_json(documents[0] if len(documents) == 1 else {"studies": documents})
        return
    for plan in plans:
        console.print(plan_page(plan, limit_bytes))
    if len(plans) > 1:
        console.print(f"\n{sharing_in_words(plans)}", markup=False)


def _find_earlier(name: str, ledger: str | None) -> "Pilot | None":
    """What the ledger holds of a study of this name; None where there is no ledger yet."""
    import os

    from rankwise.execution.pilot import pilot_of
    from rankwise.ledger import open_ledger
    from rankwise.ledger.connection import DEFAULT_URL, parse_url

    url = parse_url(ledger or os.environ.get("RANKWISE_LEDGER") or DEFAULT_URL)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None
    with open_ledger(ledger, create=False) as opened:
        if name not in opened.study_names():
            return None
        return pilot_of(opened.study_results(name, with_details=False), "the study of this name in the ledger")
