"""Rank maps: how many components each site of each arm has, layer by module."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from rankwise.ledger.results import RunRow, StudyResults
from rankwise.records import SiteAllocation
from rankwise.reporting.figures.crowd import crowd_note, shown_arms
from rankwise.reporting.style import (
    DOUBLE_COLUMN_IN,
    FAINT,
    RC,
    FigureFiles,
    new_figure,
    panel_grid,
    save_figure,
    short,
)
from rankwise.reporting.values import StudyComparison

MOST_PRINTED_ROWS, MOST_PRINTED_COLUMNS = 16, 8
"""Cells of a larger map are too small for digits."""
HEADER = (
    "arm", "run_id", "seed", "site", "layer", "module", "planned_rank", "realised_rank", "final_rank", "scale",
    "params",
)  # fmt: skip


def allocated_runs(results: StudyResults, arm: str) -> tuple[RunRow, ...]:
    """The arm's runs whose realised allocation is known: reported ones, else those that tuned it."""
    reported = tuple(run for run in results.reported(arm) if run.sites)
    return reported or tuple(run for run in results.of_arm(arm) if run.sites)


def module_labels(sites: Sequence[SiteAllocation]) -> dict[str, str]:
    """Site name -> the shortest end of it that is unique within every layer.

    [`h.0.attn.c_proj`, `h.0.mlp.c_proj`] -> `attn.c_proj`, `mlp.c_proj`; `layers.0.self_attn.q_proj` -> `q_proj`.
    """
    names = {site.site: site.layer for site in sites}
    for length in range(1, 1 + max(name.count(".") + 1 for name in names)):
        labels = {name: ".".join(name.split(".")[-length:]) for name in names}
        if len({(layer, labels[name]) for name, layer in names.items()}) == len(names):
            break
    return labels


@matplotlib.rc_context(RC)
def draw_rank_maps(results: StudyResults, comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One heat map an arm, all on one colour scale; ranks are means over the arm's reported runs."""
    runs = {arm: found for arm in results.arm_names if (found := allocated_runs(results, arm))}
    if not runs:
        return None
    every_site = [site for found in runs.values() for run in found for site in run.sites]
    labels = module_labels(every_site)
    modules = list(dict.fromkeys(labels[site.site] for site in every_site))
    layers = sorted({site.layer for site in every_site})
    shown = shown_arms(comparison, "rank_maps", runs)
    maps = {arm: _mean_ranks(found, labels, modules, layers) for arm, found in runs.items() if arm in shown}
    highest = max(float(np.nanmax(ranks)) for ranks in maps.values())
    norm = Normalize(0, highest)

    num_columns = min(len(maps), 3 if len(modules) <= MOST_PRINTED_COLUMNS else 2)
    num_rows = math.ceil(len(maps) / num_columns)
    row_height = min(0.17 * len(layers), 2.6) + 0.25
    figure = new_figure(DOUBLE_COLUMN_IN * max(num_columns, 2) / 3, num_rows * row_height + 0.75)
    axes = panel_grid(figure, len(maps), num_columns, sharex=True, sharey=True)
    for axis, (arm, ranks) in zip(axes, maps.items(), strict=True):
        image = _draw_map(axis, ranks, norm)
        axis.set_title(short(arm))
        axis.set_xticks(range(len(modules)), modules, rotation=90)
        axis.set_yticks(range(0, len(layers), max(1, len(layers) // 8)), layers[:: max(1, len(layers) // 8)])
    figure.supylabel("layer", fontsize=RC["axes.labelsize"])
    figure.colorbar(image, ax=axes, label="rank (components)", shrink=0.8, pad=0.02, aspect=12 * figure.get_figheight())
    caption = (
        "Rank maps: components at each adapted layer, on one colour scale. "
        "Where an arm's map differs between seeds, the mean over its reported runs is shown. "
        f"Hatched: no adapter there.{crowd_note(comparison, 'rank_maps')}"
    )
    return save_figure(figure, folder, "rank_maps", caption, HEADER, _rows_of(runs, labels))


def _mean_ranks(
    runs: Sequence[RunRow], labels: dict[str, str], modules: Sequence[str], layers: Sequence[int]
) -> np.ndarray:
    """Mean rank at the end of training (layers, modules); nan where the arm has no site."""
    total = np.zeros((len(layers), len(modules)))
    count = np.zeros_like(total)
    for run in runs:
        for site, rank in zip(run.sites, run.spent_ranks, strict=True):
            cell = layers.index(site.layer), modules.index(labels[site.site])
            total[cell] += rank
            count[cell] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _draw_map(axis: Axes, ranks: np.ndarray, norm: Normalize) -> AxesImage:
    axis.set_facecolor(FAINT)
    if np.isnan(ranks).any():
        axis.patch.set(hatch="////", edgecolor="white")
    image = axis.imshow(ranks, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if ranks.shape[0] > MOST_PRINTED_ROWS or ranks.shape[1] > MOST_PRINTED_COLUMNS:
        return image
    whole = np.allclose(ranks[~np.isnan(ranks)] % 1, 0)
    for (row, column), rank in np.ndenumerate(ranks):
        if not np.isnan(rank):
            axis.text(
                column, row, f"{rank:.0f}" if whole else f"{rank:.1f}", ha="center", va="center", fontsize=6,
                color="black" if norm(rank) > 0.55 else "white",
            )  # fmt: skip
    return image


def _rows_of(runs: dict[str, tuple[RunRow, ...]], labels: dict[str, str]) -> Iterator[tuple[object, ...]]:
    for arm, found in runs.items():
        for run in found:
            for site, rank in zip(run.sites, run.spent_ranks, strict=True):
                yield (
                    arm, run.id, run.seed, site.site, site.layer, labels[site.site],
                    site.planned_rank, site.realised_rank, rank, site.scale, site.params,
                )  # fmt: skip
