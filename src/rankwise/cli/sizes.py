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
