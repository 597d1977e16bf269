"""Relative error of each layer's weight and of its output under every quantization of the base, in forward order."""

from pathlib import Path

import matplotlib
from matplotlib.ticker import FuncFormatter, NullFormatter

from rankwise.ledger.results import StudyResults
from rankwise.reporting.quantization_section import measured_bases
from rankwise.reporting.style import DOUBLE_COLUMN_IN, RC, FigureFiles, arm_styles, new_figure, panel_grid, save_figure
from rankwise.reporting.values import StudyComparison

HEADER = ("model", "quantization", "site", "kind", "layer", "weight_error_frac", "output_error_frac")
PANELS = (("weight_error_frac", "of the weight"), ("output_error_frac", "of the output"))


@matplotlib.rc_context(RC)
def draw_quantization_error(results: StudyResults, _comparison: StudyComparison, folder: Path) -> FigureFiles | None:
    """One panel for weights and one for outputs; None where nothing was measured."""
    bases = measured_bases(results.quantization_errors)
    if not bases:
        return None
    names = [base["form"] for base in bases]
    styles = arm_styles(list(dict.fromkeys(names)), "")
    figure = new_figure(DOUBLE_COLUMN_IN, 2.1)
    axes = panel_grid(figure, 2, 2, sharey=True)
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        for base, name in zip(bases, names, strict=True):
            points = [(place, site[key]) for place, site in enumerate(base["sites"]) if site[key] is not None]
            style = styles[name]
            axis.plot(*zip(*points, strict=True), color=style.colour, marker=style.marker, markersize=2.4, label=name)
        axis.set_yscale("log")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda frac, _: f"{100 * frac:g}%"))
        axis.set_title(title)
        axis.set_xlabel("layer in forward order")
        axis.grid(axis="y", color="#EEEEEE", linewidth=0.5)
    axes[0].set_ylabel("relative error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(names)))
    caption = (
        "What quantizing the base changes at each layer, relative to the whole weight and to the whole layer's output "
        "on training examples. Logarithmic; every layer is in the data."
    )
    rows = [
        [base["model"], base["form"], *(site[column] for column in HEADER[2:])]
        for base in bases
        for site in base["sites"]
    ]
    return save_figure(figure, folder, "quantization_error", caption, HEADER, rows)
