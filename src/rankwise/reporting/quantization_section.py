"""The section on what quantizing the base changed, layer by layer; every layer is in the figure's data."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rankwise.reporting.format import MISSING, format_percent
from rankwise.reporting.markdown import bullets, escape, table

COLUMNS = ("Base", "Layers", "Weights: median", "Weights: worst", "Outputs: median", "Outputs: worst", "Worst layer")


def measured_bases(errors: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The quantized bases whose layers were measured."""
    return [base for base in errors.get("bases", ()) if base.get("sites")]


def quantization_section(errors: Mapping[str, Any]) -> str:
    """Empty for a study without quantized arms."""
    bases = errors.get("bases", ())
    if not bases:
        return ""
    rows = [row for base in measured_bases(errors) for row in _rows(base)]
    notes = [
        "Weights: |W - Q(W)| / |W| of a layer. Outputs: |(W - Q(W)) x| / |W x| over the tokens x that reach it in the "
        "whole model, prompts included, on the first training batches. Frobenius norms; the worst layer is that of the "
        "outputs.",
    ] * bool(rows)
    notes += [
        f"{escape(base['form'])}: not measured: {escape(base['missing'])}." for base in bases if base.get("missing")
    ]
    body = table(COLUMNS, rows, "lrrrrrl") + "\n" if rows else ""
    return f"## Quantization error\n\n{body}{bullets(notes)}"


def _rows(base: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """All layers, then those of each name."""
    sites = base["sites"]
    leaves = list(dict.fromkeys(_leaf(site) for site in sites))
    groups = [(f"**{escape(base['form'])}**", sites)]
    groups += [(escape(leaf), [site for site in sites if _leaf(site) == leaf]) for leaf in leaves]
    for name, chosen in groups if len(leaves) > 1 else groups[:1]:
        weights = [site["weight_error_frac"] for site in chosen]
        outputs = [site["output_error_frac"] for site in chosen if site["output_error_frac"] is not None]
        worst = max(chosen, key=lambda site: site["output_error_frac"] or 0)
        shown = (median(weights), max(weights), median(outputs), max(outputs)) if outputs else ()
        cells = [format_percent(value) for value in shown] or [MISSING] * 4
        yield name, str(len(chosen)), *cells, escape(worst["site"])


def _leaf(site: Mapping[str, Any]) -> str:
    return str(site["site"]).rpartition(".")[2]
