"""The audit of one run, site by site. A column stands only where it has something to say."""

from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from rankwise.cli.console import cell
from rankwise.ledger.results import RunRow
from rankwise.records import SiteAllocation
from rankwise.reporting.format import MISSING

MOST_LISTED = 6
"""Steps of revisions that are listed one by one."""

Cells = Callable[[int], Text]


def sites_table(run: RunRow) -> Table:
    """What each site was planned to get and got, what is stored of it, and what happened to it in between."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = _columns(run)
    table.add_column("site", overflow="fold")
    table.add_column("kind")
    for name in ("shape", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for index, site in enumerate(run.sites):
        shape = f"{site.in_features:,} → {site.out_features:,}"
        table.add_row(
            cell(site.site), cell(site.kind), cell(shape), *(cells_of(index) for cells_of, _ in columns.values())
        )
    table.add_row("", "", "", *(cell(total) for _, total in columns.values()), style="bold")
    return table


def _columns(run: RunRow) -> dict[str, tuple[Cells, str]]:
    """Name -> how a site's cell is made, and the cell of the last row."""
    sites = run.sites
    found: dict[str, tuple[Cells, str]] = {
        "planned": (lambda i: cell(sites[i].planned_rank), str(sum(site.planned_rank for site in sites))),
        "realised": (lambda i: _realised(sites[i]), str(sum(site.realised_rank for site in sites))),
        "scale": (lambda i: cell(f"{sites[i].scale:g}"), ""),
        "params": (lambda i: cell(f"{sites[i].params:,}"), f"{sum(site.params for site in sites):,}"),
    }
    if any(site.lr_factor_down != 1 or site.lr_factor_up != 1 for site in sites):
        found["rate × down, up"] = (lambda i: cell(f"{sites[i].lr_factor_down:g}, {sites[i].lr_factor_up:g}"), "")
    if run.revisions:
        steps = run.revision_steps()
        found["revised at"] = (lambda i: cell(_listed(steps[i])), f"{len(run.revisions)} revisions")
    if outcomes := run.outcomes:
        found["stored"] = (lambda i: cell(outcomes[i].rank), str(sum(outcome.rank for outcome in outcomes)))
        unmoved = sum(outcome.num_unmoved for outcome in outcomes)
        found["never moved"] = (lambda i: _unmoved(outcomes[i].num_unmoved), str(unmoved))
    return found


def _realised(site: SiteAllocation) -> Text:
    """A realised rank that is not the planned one stands out."""
    return cell(site.realised_rank, "" if site.realised_rank == site.planned_rank else "bold red")


def _unmoved(number: int) -> Text:
    return cell(number, "yellow" if number else "")


def _listed(steps: Sequence[int]) -> str:
    """`2, 4`; `37: steps 5–120` where they are many."""
    if len(steps) > MOST_LISTED:
        return f"{len(steps)}: steps {steps[0]}–{steps[-1]}"
    return ", ".join(map(str, steps)) or MISSING
