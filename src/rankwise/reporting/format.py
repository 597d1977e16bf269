"""Numbers as people read them. Every function gives an en dash for what is missing."""

import math
from collections.abc import Sequence

from rankwise.reporting.values import ArmComparison, Estimate, Range, Span

MISSING = "–"
MINUS = "−"


def format_loss(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def format_signed(value: float | None) -> str:
    """A difference in nats, with a sign that is as wide as a digit: +0.0123, −0.0123."""
    if value is None:
        return MISSING
    text = f"{abs(value):.4f}"
    return text if float(text) == 0 else (MINUS if value < 0 else "+") + text


def format_estimate(estimate: Estimate | None, digits: int = 4) -> str:
    """`1.8421 [1.8302, 1.8540]`; without an interval where there is none."""
    if estimate is None:
        return MISSING
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def format_difference(estimate: Estimate | None) -> str:
    """`−0.0193 [−0.0261, −0.0125]`."""
    if estimate is None:
        return MISSING
    if estimate.low is None or estimate.high is None:
        return format_signed(estimate.value)
    return f"{format_signed(estimate.value)} [{format_signed(estimate.low)}, {format_signed(estimate.high)}]"


def format_p(p: float | None) -> str:
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_equals(p: str) -> str:
    """`= 0.031` or `< 0.001`, to stand behind a name."""
    return p if p.startswith("<") else f"= {p}"


def format_outcome(arm: ArmComparison) -> str:
    """The verdict on an arm in a word or two; `baseline` for the arm that all others are compared with."""
    if arm.is_baseline:
        return "baseline"
    return arm.difference.outcome if arm.difference else MISSING


def format_names(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def format_effect(effect_size: float | None) -> str:
    if effect_size is None:
        return MISSING
    return f"{effect_size:+.2f}".replace("-", MINUS)


def format_span(span: Span | None) -> str:
    """`8`, or `4–13`."""
    if span is None:
        return MISSING
    return f"{span.low:,}" if span.low == span.high else f"{span.low:,}–{span.high:,}"


def format_size(value: float | None) -> str:
    """Three digits, whatever the size: 0.0123, 4.56, 1,230."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}" if 1e-4 <= abs(value) < 1e6 else f"{value:.2e}"


def format_range(found: Range | None) -> str:
    """`2`, or `0.5–4`: as short as the values allow."""
    if found is None:
        return MISSING
    low, high = f"{found.low:.3g}", f"{found.high:.3g}"
    return low if low == high else f"{low}–{high}"


def format_rate(learning_rate: float | None) -> str:
    """`3e-4`: as short as the value allows."""
    if learning_rate is None:
        return MISSING
    mantissa, exponent = f"{learning_rate:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_seconds(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def format_bytes(num_bytes: int | None) -> str:
    if num_bytes is None:
        return MISSING
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.2f} GiB"


def format_percent(frac: float | None) -> str:
    return MISSING if frac is None else f"{100 * frac:.1f}%"


def format_error(frac: float | None) -> str:
    """An error with its sign: `−3.1%`."""
    return MISSING if frac is None else f"{100 * frac:+.1f}%".replace("-", MINUS)


def format_count(number: int, noun: str) -> str:
    """`1 comparison`, `5 comparisons`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_seeds(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds)) if seeds else MISSING
