"""Ranks over time: how a dynamic strategy moved components between sites, as a heat map of site by optimizer step.

S = sites, grouped by module and in each from the first layer to the last; T = times at which some run's ranks changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.records import SiteAllocation
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.figures.rank_maps import allocated_runs, module_labels
from rankwise.reporting.style import DOUBLE_COLUMN_IN, RC, FigureFiles, new_figure, panel_grid, save_figure, short
from rankwise.reporting.values import StudyComparison

HEADER = ("arm", "run_id", "seed", "step", "site", "layer", "module", "rank")
END_FRAC = 0.06
"""Width of the last column, the ranks that are stored, as a share of the steps: they may come after the last step."""


@dataclass(frozen=True, kw_only=True)
class RankPath:
    """Mean ranks of an arm's runs over training."""

    sites: tuple[SiteAllocation, ...]
    modules: tuple[str, ...]
    """Label of each site's module; equal ones are neighbours."""
    steps: tuple[int, ...]
    """Ranks hold from these on; the first is 0, before training. Ascending."""
    num_steps: int
    ranks_ST: np.ndarray

    def blocks(self) -> Iterator[tuple[str, int, int]]:
        """Each module with the row of its first site and the one after its last."""
        for module in dict.fromkeys(self.modules):
            start = self.modules.index(module)
            yield module, start, start + self.modules.count(module)


def moving_runs(results: StudyResults) -> dict[str, tuple[RunRow, ...]]:
    """Arm -> those of its runs whose ranks moved, the finished ones where there are any; others are left out."""
    found = {}
    for arm in results.arm_names:
        moved = tuple(run for run in allocated_runs(results, arm) if run.revisions)
        if moved:
            found[arm] = tuple(run for run in moved if run.status == "finished") or moved
    return found


def rank_path(runs: Sequence[RunRow], labels: Mapping[str, str]) -> RankPath:
    """`labels`: site name -> module, as `module_labels` gives them. The runs have the same sites."""
    sites, modules = runs[0].sites, [labels[site.site] for site in runs[0].sites]
    order = sorted(range(len(sites)), key=lambda i: (modules.index(modules[i]), sites[i].layer))
    steps = sorted({0, *(revision.step for run in runs for revision in run.revisions)})
    total_ST = sum(_ranks_at(run, steps) for run in runs)
    ranks_ST: np.ndarray = np.asarray(total_ST, dtype=float)[order] / len(runs)
    return RankPath(
        sites=tuple(sites[i] for i in order),
        modules=tuple(modules[i] for i in order),
        steps=tuple(steps),
        num_steps=max(run.steps or run.revisions[-1].step for run in runs),
        ranks_ST=ranks_ST,
    )


def _ranks_at(run: RunRow, steps: Sequence[int]) -> np.ndarray:
    """Ranks after each of the steps, (S, T), in the order of the run's sites."""
    held = {0: tuple(site.realised_rank for site in run.sites)}
    held |= {revision.step: revision.ranks for revision in run.revisions}
    known = np.array(sorted(held))
    columns = known[np.searchsorted(known, steps, side="right") - 1]
    return np.array([held[int(step)] for step in columns]).T


CAPTION = (
    "Ranks over training of the strategies that move them: a row is a site, grouped by module and from the first layer "
    "(top) to the last; the mean over finished seeds. The last column, after the steps, is what is stored. One colour "
    "scale."
)


@matplotlib.rc_context(RC)
def draw_ranks_over_time(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel an arm; None where no ranks moved."""
    runs = moving_runs(results)
    if not runs:
        return None
    labels = module_labels([site for found in runs.values() for run in found for site in run.sites])
    shown = shown_arms(comparison, "ranks_over_time", runs)
    paths = {arm: rank_path(found, labels) for arm, found in runs.items() if arm in shown}
    norm = Normalize(0, max(float(path.ranks_ST.max()) for path in paths.values()))
    num_columns = min(len(paths), 3)
    num_rows = -(-len(paths) // num_columns)
    row_height = min(max(0.036 * max(len(path.sites) for path in paths.values()), 1.3), 3.0) + 0.25
    figure = new_figure(DOUBLE_COLUMN_IN * max(num_columns, 2) / 3, row_height * num_rows + 0.5)
    axes = panel_grid(figure, len(paths), num_columns)
    for axis, (arm, path) in zip(axes, paths.items(), strict=True):
        mesh = _draw_path(axis, path, norm)
        axis.set_title(short(arm))
    figure.supxlabel("optimizer step", fontsize=RC["axes.labelsize"])
    figure.colorbar(mesh, ax=axes, label="rank (components)", shrink=0.8, pad=0.02, aspect=12 * figure.get_figheight())
    caption = CAPTION + crowd_note(comparison, "ranks_over_time")
    return save_figure(figure, folder, "ranks_over_time", caption, HEADER, _rows_of(runs, labels))


def _draw_path(axis: Axes, path: RankPath, norm: Normalize) -> QuadMesh:
    end = path.num_steps * (1 + END_FRAC)
    edges = [*path.steps, max(path.num_steps, path.steps[-1])]
    ranks_ST = path.ranks_ST
    if edges[-1] == edges[-2]:  # moved after the last step: what is stored was never trained
        edges.pop()
    else:
        ranks_ST = np.hstack([ranks_ST, ranks_ST[:, -1:]])
    mesh = axis.pcolormesh(
        [*edges, end], np.arange(len(path.sites) + 1), ranks_ST, cmap="cividis", norm=norm, rasterized=True
    )
    axis.axvline(path.num_steps, color="white", linewidth=0.8)
    blocks = list(path.blocks())
    for _, start, _ in blocks[1:]:
        axis.axhline(start, color="white", linewidth=0.8)
    axis.set_yticks([(start + stop) / 2 for _, start, stop in blocks], [module for module, *_ in blocks])
    axis.set_ylim(len(path.sites), 0)
    axis.set_xlim(0, end)
    axis.tick_params(axis="y", length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return mesh


def _rows_of(runs: Mapping[str, Sequence[RunRow]], labels: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
    """Every site before training, and then each time that its rank changed."""
    for arm, found in runs.items():
        for run in found:
            before = tuple(site.realised_rank for site in run.sites)
            for site, rank in zip(run.sites, before, strict=True):
                yield arm, run.id, run.seed, 0, site.site, site.layer, labels[site.site], rank
            for revision in run.revisions:
                for site, old, new in zip(run.sites, before, revision.ranks, strict=True):
                    if old != new:
                        yield arm, run.id, run.seed, revision.step, site.site, site.layer, labels[site.site], new
                before = revision.ranks
