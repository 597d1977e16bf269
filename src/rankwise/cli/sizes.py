"""Sizes as people write them."""

import re

import typer

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str) -> int:
    """`8GiB`, `500 MB` or plain bytes as a number.

    Raises:
        typer.BadParameter: anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a size. Write a positive number with a unit, such as 8GiB or 500MB.")
    return int(float(match[1]) * unit)


SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """`90s`, `30m`, `1h`, `1h30m` or plain seconds as a number of seconds.

    Raises:
        typer.BadParameter: anything else, or no time at all.
    """
    compact = text.replace(" ", "").lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|min|m|s)", compact)
    total = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(?:\.\d+)?", compact):
        total = float(compact)
    elif "".join(number + unit for number, unit in parts) != compact:
        total = 0.0
    if total <= 0:
        raise typer.BadParameter(f"{text!r} is not a time. Write one such as 90s, 30m or 1h30m.")
    return total
