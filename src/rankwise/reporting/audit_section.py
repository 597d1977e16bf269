"""The section on the audit: whether every site holds what was planned, and what each arm was made of."""

from collections.abc import Callable, Sequence

from rankwise.reporting.format import MISSING, format_bytes, format_count, format_range, format_seconds, format_span
from rankwise.reporting.markdown import bullets, escape, table
from rankwise.reporting.values import ArmComparison, Span, StudyComparison

COLUMNS: tuple[tuple[str, Callable[[ArmComparison], str]], ...] = (
    ("Audited", lambda arm: f"{arm.audit.num_audited}/{arm.audit.num_runs}"),
    ("Scaling", lambda arm: escape(arm.audit.scaling)),
    ("Scales", lambda arm: format_range(arm.audit.scales)),
    ("Initialisation", lambda arm: escape(arm.audit.init)),
    ("Rate factor of down", lambda arm: format_range(arm.audit.lr_factors_down)),
    ("Rate factor of up", lambda arm: format_range(arm.audit.lr_factors_up)),
    ("Stored", lambda arm: _unless(arm.params, arm.audit.stored_params)),
    ("Held", lambda arm: _unless(arm.params, arm.audit.held_params)),
    ("Revisions", lambda arm: format_span(arm.audit.num_revisions)),
    ("Never moved", lambda arm: format_span(arm.audit.num_unmoved)),
    ("Probe time", lambda arm: format_seconds(arm.probe_wall_s)),
    ("Probe memory", lambda arm: format_bytes(arm.probe_peak_memory_bytes)),
)
"""A column is shown where arms differ in it; the first always."""

SAME = "as trained"
UNREMARKABLE = (SAME, MISSING, "0", "1", "0.0 s", "0 MiB")
"""What need not be said where it is the same for all arms."""


def _unless(trained: Span | None, found: Span | None) -> str:
    """A number of parameters, where it is not that of the trained components at the end."""
    return SAME if found == trained else format_span(found)


def audit_section(comparison: StudyComparison) -> str:
    """Empty before any run has finished."""
    arms = comparison.arms
    if not any(arm.audit.num_runs for arm in arms):
        return ""
    cells = {name: [cell(arm) for arm in arms] for name, cell in COLUMNS}
    always, *_ = cells
    shown = [name for name in cells if name == always or len(set(cells[name])) > 1]
    rows = [(escape(arm.name), *(cells[name][index] for name in shown)) for index, arm in enumerate(arms)]
    notes = [
        "Audited: runs whose adapter was read back when it was stored, of those finished. Stored: parameters of the "
        "adapter in its folder; held: the most that were active at once while training. Revisions: steps after which "
        "ranks moved, per run. Never moved: components per run whose product is what it was before the first step.",
    ]
    common = [(name, cells[name][0]) for name in cells if name not in shown]
    if same := [f"{name.lower()} {cell}" for name, cell in common if cell not in UNREMARKABLE]:
        notes.append(f"The same for all arms: {'; '.join(same)}.")
    body = table(("Arm", *shown), rows, "l" + "r" * len(shown)) + "\n" + bullets(notes)
    return f"## Audit\n\n{_answer(arms)}\n{body}"


def _answer(arms: Sequence[ArmComparison]) -> str:
    exceptions = [escape(sentence) for arm in arms for sentence in arm.audit.exceptions]
    if exceptions:
        return "**Not every site holds what was planned.**\n\n" + bullets(exceptions)
    runs, audited = sum(arm.audit.num_runs for arm in arms), sum(arm.audit.num_audited for arm in arms)
    checked = f"{format_count(runs, 'run')}, {format_count(sum(arm.audit.num_sites for arm in arms), 'site')}"
    if audited == runs:
        return f"Every site of every run holds what was planned ({checked}): ranks, scales and parameters, read back.\n"
    return (
        f"Every site of every run held what was planned when training began ({checked}). "
        f"{format_count(runs - audited, 'run')} ended before adapters were read back again when they are stored.\n"
    )
