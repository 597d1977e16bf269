"""Elements of HTML and SVG whose every text and attribute is escaped, and the shapes that figures are made of."""

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

from rankwise.reporting.markdown import one_line

Point = tuple[float, float]

_SIDES = {"^": 3, "v": 3, "<": 3, ">": 3, "s": 4, "D": 4, "d": 4, "h": 6}
"""Corners of each marker that is a polygon; names are matplotlib's, as `rankwise.reporting.style` has them."""
_TURNS = {"^": -90.0, "v": 90.0, "<": 180.0, ">": 0.0, "s": 45.0, "D": 0.0, "d": 0.0, "h": 0.0}
"""Degrees by which the first corner lies clockwise from the right."""


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`element("text", "a < b", x=1.25, class_="axis", data_arm=3)` -> `<text x="1.2" class="axis" data-arm="3">…`.

    Children that are no Markup are text. An attribute that is None is left out.
    """
    start = "".join(
        f' {_hyphens(key)}="{escape(_value(value))}"' for key, value in attributes.items() if value is not None
    )
    inner = "".join(child if isinstance(child, Markup) else escape(one_line(child)) for child in children)
    end = "" if name == "img" else f"</{name}>"
    return Markup(f"<{name}{start}>{inner}{end}")  # noqa: S704 - escaped above, part by part


def tip(*lines: str) -> Markup:
    """What an element says when it is pointed at; browsers show it, and the page's script shows it better."""
    text = "\n".join(escape(one_line(line)) for line in lines if line)
    return Markup(f"<title>{text}</title>")  # noqa: S704 - escaped above


def line_path(points: Iterable[Point]) -> str:
    """The `d` of a line through the points."""
    return "M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in points)


def band_path(upper: Iterable[Point], lower: Iterable[Point]) -> str:
    """The `d` of the area between two lines."""
    return f"{line_path(upper)}L{line_path(reversed(list(lower)))[1:]}Z"


def marker_path(kind: str, x: float, y: float, radius: float) -> str:
    """The `d` of one of matplotlib's markers around a point."""
    if kind in _SIDES:
        num_corners = _SIDES[kind]
        angles = (math.radians(_TURNS[kind] + 360 * corner / num_corners) for corner in range(num_corners))
        narrow = 0.6 if kind == "d" else 1.0
        return line_path((x + radius * narrow * math.cos(a), y + radius * math.sin(a)) for a in angles) + "Z"
    if kind in "PX":
        return _cross(x, y, radius, turned=kind == "X")
    half = f"a{radius:g},{radius:g} 0 1 0 "
    return f"M{_number(x - radius)},{_number(y)}{half}{2 * radius:g},0{half}{-2 * radius:g},0Z"


def _cross(x: float, y: float, radius: float, *, turned: bool) -> str:
    """A thick plus, or the same turned by 45 degrees."""
    arm = radius / 3
    corners = [(radius, -arm), (radius, arm), (arm, arm), (arm, radius), (-arm, radius), (-arm, arm)]
    corners += [(-a, -b) for a, b in corners]
    angle = math.pi / 4 if turned else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    return line_path((x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners) + "Z"


def _hyphens(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: object) -> str:
    return _number(value) if isinstance(value, float) else one_line(value)


def _number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
