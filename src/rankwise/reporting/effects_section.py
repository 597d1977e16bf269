"""The section on main effects and interactions, for studies whose arms are a factorial."""

from rankwise.reporting.format import format_difference, format_loss, format_percent, format_seeds
from rankwise.reporting.markdown import bullets, details, escape, table
from rankwise.reporting.values import Factorial, SeedVariance, StudyComparison


def main_effects_section(comparison: StudyComparison) -> str:
    """What each level of each factor does by itself; empty where the arms are no factorial."""
    found = comparison.factorial
    if found is None:
        return ""
    interval = f"[{comparison.level:.0%}]"
    notes = [
        _design(found),
        "Main effect: test loss at the level minus that at the reference, paired by seed and by the levels of all "
        "other factors, averaged over these; negative is better. Intervals are over seeds, and not adjusted for their "
        "number.",
    ]
    if any(effect.num_cells < effect.num_all_cells for effect in found.main_effects):
        notes.append(
            "Combinations: how many of the other factors' levels an effect is averaged over. Where they are not all, "
            "the effect is of those alone, and effects with different combinations do not compare."
        )
    text = f"### Main effects\n\n{_main_effects(found, interval)}\n{bullets(notes)}"
    if found.mixed:
        text += "\n" + _mixed(found.mixed, interval)
    if found.interactions:
        text += "\n" + details("Interactions of two factors", _interactions(found, interval))
    return text


def _design(found: Factorial) -> str:
    listed = "; ".join(f"{factor} ({len(levels)} levels)" for factor, levels in found.factors.items())
    how = "balanced: every combination" if len(found.arms) == found.num_combinations else "not balanced"
    text = (
        f"Factors: {escape(listed)}. {len(found.arms)} arms of {found.num_combinations} combinations, {how}. "
        f"Seeds on which all of them finished: {format_seeds(found.seeds)}."
    )
    if found.left_out_seeds:
        text += f" Left out, because an arm has no loss there: {format_seeds(found.left_out_seeds)}."
    return text


def _main_effects(found: Factorial, interval: str) -> str:
    rows = (
        (
            escape(effect.factor),
            escape(effect.level),
            escape(effect.reference),
            format_difference(effect.estimate),
            str(effect.estimate.num),
            f"{effect.num_cells} of {effect.num_all_cells}",
        )
        for effect in found.main_effects
    )
    return table(("Factor", "Level", "Reference", f"Main effect {interval}", "n", "Combinations"), rows, "lllrrr")


def _mixed(found: SeedVariance, interval: str) -> str:
    rows = (
        (escape(effect.factor), escape(effect.level), escape(effect.reference), format_difference(effect.estimate))
        for effect in found.effects
    )
    text = (
        f"The luck of the seed: a {found.method}, over {found.num_runs} runs. Standard deviation between seeds "
        f"{format_loss(found.sd_seed)} nats, of the rest {format_loss(found.sd_rest)}: seeds are "
        f"{format_percent(found.seed_frac)} of the variance, which pairing takes out of every difference above.\n"
    )
    return (
        text
        + "\n"
        + details(
            "Effects in the mixed model", table(("Factor", "Level", "Reference", f"Effect {interval}"), rows, "lllr")
        )
    )


def _interactions(found: Factorial, interval: str) -> str:
    rows = (
        (
            escape(f"{effect.factors[0]} {effect.levels[0]}"),
            escape(f"{effect.factors[1]} {effect.levels[1]}"),
            format_difference(effect.estimate),
            str(effect.estimate.num),
            str(effect.num_cells),
        )
        for effect in found.interactions
    )
    note = (
        "How much the effect of the first level changes at the second, against the references of both: zero where the "
        "two add up. Not adjusted for their number.\n"
    )
    return table(("Level", "and level", f"Interaction {interval}", "n", "Combinations"), rows, "llrrr") + "\n" + note
