"""Axes drawn as SVG: scales, ticks, grid and labels. Colours are left to the page's style sheet, for light and dark."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

from rankwise.reporting.page.svg import element, line_path

WIDTH = 440.0
"""Of a plot, in pixels: legible on a telephone, where it is shown slightly smaller, and two abreast on a desk."""
LEFT, RIGHT, TOP, BOTTOM = 56.0, 10.0, 24.0, 40.0
MOST_TICKS, FEWEST_TICKS = 6, 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values within the scale."""
        if self.logarithmic:
            inside = self._log_ticks(1.0, 3.0)
            if len(inside) < FEWEST_TICKS:
                inside = self._log_ticks(1.0, 2.0, 5.0)
            tens = [tick for tick in inside if math.log10(tick) % 1 in (0.0, 1.0)]
            return tens if len(inside) > MOST_TICKS and len(tens) > 1 else inside
        found = MaxNLocator(nbins=MOST_TICKS - 1, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [float(tick) for tick in found if self.low <= tick <= self.high]

    def _log_ticks(self, *multiples: float) -> list[float]:
        found = LogLocator(subs=multiples, numticks=99).tick_values(self.low, self.high)
        return [float(tick) for tick in found if self.low <= tick <= self.high]


def linear_scale(values: Iterable[float], start: float, end: float, *, margin_frac: float = 0.05) -> Scale:
    """Around the values, with a margin on both sides; one value stands in the middle."""
    present = list(values)
    low, high = min(present), max(present)
    margin = (high - low) * margin_frac if high > low else abs(high) * 0.05 or 1.0
    return Scale(low=low - margin, high=high + margin, start=start, end=end)


def log_scale(values: Iterable[float], start: float, end: float, *, margin_frac: float = 0.05) -> Scale:
    """The same for positive values by their logarithm."""
    logs = linear_scale(map(math.log, values), start, end, margin_frac=margin_frac)
    return Scale(low=math.exp(logs.low), high=math.exp(logs.high), start=start, end=end, logarithmic=True)


def plain_labels(ticks: Sequence[float]) -> list[str]:
    """All with the digits that the distance between them asks for; far apart or tiny ones as short as they can be."""
    steps = [b - a for a, b in pairwise(ticks)]
    if not steps or max(steps) > 1.01 * min(steps) or min(steps) < 1e-4:
        return [f"{tick:g}".replace("-", "−") for tick in ticks]
    digits = max(0, math.ceil(-math.log10(min(steps)) - 1e-9))
    return [f"{tick:,.{digits}f}".replace("-", "−") for tick in ticks]


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The rectangle that a plot's marks lie in."""

    x: Scale
    y: Scale
    height: float

    def draw(
        self,
        *marks: Markup,
        x_label: str,
        y_label: str,
        summary: str,
        x_ticks: Sequence[float] | None = None,
        x_tick_label: Callable[[float], str] | None = None,
    ) -> Markup:
        """The plot; `summary` says in a sentence what it shows to those who cannot see it."""
        ticks = self.x.ticks() if x_ticks is None else x_ticks
        labels = [x_tick_label(tick) for tick in ticks] if x_tick_label else plain_labels(ticks)
        bottom = self.height - BOTTOM
        parts = [
            *(self._row(tick, text) for tick, text in zip(self.y.ticks(), plain_labels(self.y.ticks()), strict=True)),
            *(
                element("text", text, x=self.x(tick), y=bottom + 16, class_="tick middle")
                for tick, text in zip(ticks, labels, strict=True)
            ),
            element("path", d=line_path([(LEFT, bottom), (WIDTH - RIGHT, bottom)]), class_="axis"),
            element("text", y_label, x=2, y=12, class_="label"),
            element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=self.height - 4, class_="label middle"),
            *marks,
        ]
        return drawing(WIDTH, self.height, *parts, summary=summary)

    def _row(self, tick: float, text: str) -> Markup:
        y = self.y(tick)
        line = element("path", d=line_path([(LEFT, y), (WIDTH - RIGHT, y)]), class_="grid")
        return line + element("text", text, x=LEFT - 6, y=y + 4, class_="tick end")


def axes(
    x_values: Iterable[float],
    y_values: Iterable[float],
    *,
    height: float = 270.0,
    log_x: bool = False,
    log_y: bool = False,
) -> Axes:
    """Axes around the values."""
    across = (log_scale if log_x else linear_scale)(x_values, LEFT, WIDTH - RIGHT, margin_frac=0.04)
    up = (log_scale if log_y else linear_scale)(y_values, height - BOTTOM, TOP)
    return Axes(x=across, y=up, height=height)


def drawing(width: float, height: float, *parts: Markup, summary: str, class_: str = "plot") -> Markup:
    """An SVG that fills its place, can be reached by keyboard, and has a name."""
    return element(
        "svg", *parts,
        viewBox=f"0 0 {width:g} {height:g}", class_=class_, role="img", tabindex=0, aria_label=summary,
    )  # fmt: skip
