"""A plan as people read it in the terminal."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rankwise.cli.console import cell
from rankwise.cli.run_tables import facts_table, format_count
from rankwise.execution.study_plan import ArmPlan, PackPlan, StudyPlan
from rankwise.reporting.format import MISSING, format_bytes, format_rate, format_seconds, format_span
from rankwise.reporting.values import Span

MEASURED = "after probing"
MOVING = "while training"
TERMS = {
    "runtime": "Python and its libraries",
    "weights": "base weights",
    "adapters": "adapters, and their copies in the compute format",
    "gradients": "gradients of the adapters",
    "optimizer": "AdamW's two averages, and what dynamic strategies measure",
    "activations": "what one micro-batch keeps for its backward pass",
    "prefixes": "shared prefixes, and each row's keys and values of them",
    "logits": "logits of its answer tokens",
    "working": "one block under way, with each row's adapters",
    "slack": "torn between the allocations of a pass",
    "scoring": "what a scoring pass needs beyond that: held-out data, general text",
    "answers": "what writing the final answers needs beyond that",
    "checkpoint": "the document that is written from time to time",
}
"""What each term of the memory prediction is."""


def plan_page(plan: StudyPlan, limit_bytes: int) -> Group:
    """Arms, packs, memory, totals, and what the study can show."""
    parts: list[RenderableType] = [
        cell(f"{plan.study}: {plan.hypothesis}"),
        "",
        cell(f"Arms: how each spends its budget of adapter parameters{_common_targets(plan)}", "bold"),
        *([cell(common, "dim")] if (common := _in_common(plan)) else []),
        _arms_table(plan),
        "",
        cell("Packs: runs that train side by side", "bold"),
        _packs_table(plan),
        "",
        cell("Memory of the largest pack", "bold"),
        _memory_table(plan.largest_pack),
        "",
        facts_table(_totals(plan, limit_bytes)),
        "",
    ]
    style = "" if plan.detectable.has_enough_seeds else "yellow"
    return Group(*parts, *(cell(text, style) for text in plan.detectable.sentences), *_remarks(plan))


def _common_targets(plan: StudyPlan) -> str:
    """What all arms adapt; nothing where they differ, because the table then says it."""
    found = {(arm.targets, arm.num_sites) for arm in plan.arms}
    (targets, num_sites), *others = found
    return "" if others else f" on {num_sites} layers ({targets})"


def _in_common(plan: StudyPlan) -> str:
    """Scaling and initialisation where all arms share them; else the table's scales and starts tell them apart."""
    settings = {"scaling": {arm.scaling for arm in plan.arms}, "init": {arm.init for arm in plan.arms}}
    found = [f"{name} {value}" for name, values in settings.items() for value in values if len(values) == 1]
    return "All arms: " + "; ".join(found) if found else ""


def _arms_table(plan: StudyPlan) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    shows_targets = not _common_targets(plan)
    if shows_targets:
        table.add_column("targets", overflow="fold")
    shows_held = any(arm.moves_ranks for arm in plan.arms)
    shows_init = len({arm.init for arm in plan.arms}) > 1
    if shows_init:
        table.add_column("init")
    for name in ("ranks", "scale", "params", *(["held"] if shows_held else []), "unspent", "rate", "runs"):
        table.add_column(name, justify="right")
    for arm in plan.arms:
        name = arm.name if arm.name == arm.strategy else f"{arm.name} ({arm.strategy})"
        targets = [cell(f"{arm.targets} ({arm.num_sites})")] if shows_targets else []
        init = [cell(arm.init)] if shows_init else []
        ranks, scale, params, unspent = _budget_cells(arm)
        held = [cell(f"{arm.held_params:,}")] if shows_held else []
        table.add_row(cell(name), *targets, *init, ranks, scale, params, *held, unspent, *_run_cells(plan, arm))
    return table


def _budget_cells(arm: ArmPlan) -> list[Text]:
    if arm.min_rank is None or arm.max_rank is None:
        return [
            cell(MOVING if arm.moves_ranks else MEASURED, "dim"),
            cell(None),
            cell(f"≤ {arm.budget_params:,}"),
            cell(None),
        ]
    ranks = format_span(Span(low=arm.min_rank, high=arm.max_rank))
    scales = dict.fromkeys(f"{scale:.3g}" for scale in (arm.min_scale, arm.max_scale) if scale is not None)
    return [
        cell(ranks),
        cell("–".join(scales)),
        cell(format_count(arm.params)),
        cell(format_count(arm.residual_params)),
    ]


def _run_cells(plan: StudyPlan, arm: ArmPlan) -> list[Text]:
    """The learning rate, or how many are tried; the runs, tuning ones first."""
    mine = [run for run in plan.runs if run.arm == arm]
    tuning = [run for run in mine if run.purpose == "tuning"]
    num_rates = len({run.learning_rate for run in tuning})
    rate = f"1 of {num_rates}" if tuning else format_rate(mine[0].learning_rate) if mine else MISSING
    reported = len(mine) - len(tuning)
    return [cell(rate), cell(f"{len(tuning)} + {reported}" if tuning else reported)]


def _packs_table(plan: StudyPlan) -> Table:
    """One line for neighbours of one purpose and length, with the most that one of them needs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("pack", no_wrap=True)
    table.add_column("for")
    for name in ("runs", "steps", "memory", "time each"):
        table.add_column(name, justify="right", no_wrap=True)
    for first, packs in _alike(plan.packs):
        pack, last = packs[0], first + len(packs) - 1
        table.add_row(
            cell(first if first == last else f"{first}–{last}"),
            cell("learning rates" if pack.purpose == "tuning" else "the report"),
            cell(format_span(Span.of(len(other.runs) for other in packs))),
            cell(f"{pack.num_steps:,}"),
            cell(format_bytes(max(other.memory.total_bytes for other in packs))),
            cell(format_seconds(max(other.wall_s for other in packs))),
        )
    return table


def _alike(packs: Sequence[PackPlan]) -> Iterator[tuple[int, list[PackPlan]]]:
    """Neighbours of one purpose and length, with the number of the first; packs count from 1."""
    first = 1
    for _, group in groupby(packs, key=lambda pack: (pack.purpose, pack.num_steps)):
        members = list(group)
        yield first, members
        first += len(members)


def _memory_table(pack: PackPlan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    for name, size in pack.memory.terms().items():
        if not size:
            continue
        table.add_row(cell(name), cell(format_bytes(size)), cell(TERMS[name], "dim"))
    table.add_row(cell("total"), cell(format_bytes(pack.memory.total_bytes)), style="bold")
    return table


def _totals(plan: StudyPlan, limit_bytes: int) -> dict[str, object]:
    tuning = sum(run.purpose == "tuning" for run in plan.runs)
    split = f" ({tuning} to choose learning rates, {len(plan.runs) - tuning} reported)" if tuning else ""
    return {
        "runs": f"{len(plan.runs)}{split} in {len(plan.packs)} pack" + ("s" if len(plan.packs) > 1 else ""),
        "memory": f"{format_bytes(plan.largest_pack.memory.total_bytes)} predicted; "
        f"{format_bytes(limit_bytes)} may be filled",
        "time": f"about {format_seconds(plan.wall_s)}, predicted from a calibration of this machine",
    }


def _remarks(plan: StudyPlan) -> list[Text]:
    measured = [arm.name for arm in plan.arms if arm.params is None and not arm.moves_ranks]
    moving = [arm.name for arm in plan.arms if arm.moves_ranks]
    remarks = []
    if measured:
        remarks.append(f"Ranks of {', '.join(measured)} follow from what is measured when they are trained.")
    if moving:
        remarks.append(
            f"Ranks of {', '.join(moving)} move while training and end at the budget; held are the parameters that "
            "memory is kept for until then."
        )
    return [*map(cell, plan.notes), *(cell(remark, "dim") for remark in remarks)]
