"""Families about the calendar and the clock."""

import random
from collections.abc import Sequence

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import MONTHS, WEEKDAYS

DAY: tuple[Phrasing, ...] = (
    ("Which day is {steps} {direction} {start}?", ""),
    ("Name the day {steps} {direction} {start}.", ""),
    ("Which day of the week is meant?", "{steps} {direction} {start}"),
    ("What day is it {steps} {direction} a {start}?", ""),
)
MONTH: tuple[Phrasing, ...] = (
    ("Which month is {steps} {direction} {start}?", ""),
    ("Name the month {steps} {direction} {start}.", ""),
    ("Which month is meant?", "{steps} {direction} {start}"),
    ("What month is it {steps} {direction} {start}?", ""),
)
CLOCK: tuple[Phrasing, ...] = (
    ("What is the time {steps} {direction} {start} o'clock?", ""),
    ("Say the time {steps} {direction} {start} o'clock.", ""),
    ("Which hour is meant?", "{steps} {direction} {start} o'clock"),
    ("Where does the hour hand point {steps} {direction} {start} o'clock?", ""),
)
HOURS = [str(hour) for hour in range(1, 13)]


def _moved(
    rng: random.Random, level: int, names: Sequence[str], unit: str, farthest: int
) -> tuple[str, dict[str, str]]:
    """Where some steps lead from a start in a cycle, and the question's fields; backwards only from level 2."""
    start, steps = rng.randrange(len(names)), rng.randint(1, farthest)
    sign = rng.choice((1, -1)) if level > 1 else 1
    fields = {
        "steps": f"{steps} {unit}" + "s" * (steps > 1),
        "direction": "after" if sign > 0 else "before",
        "start": names[start],
    }
    return names[(start + sign * steps) % len(names)], fields


def _day(rng: random.Random, level: int) -> Task:
    answer, fields = _moved(rng, level, WEEKDAYS, "day", at_level(level, 3, 3, 6, 14, 60))
    return ask(rng, DAY, answer, **fields)


def _month(rng: random.Random, level: int) -> Task:
    answer, fields = _moved(rng, level, MONTHS, "month", at_level(level, 3, 4, 6, 12, 40))
    return ask(rng, MONTH, answer, **fields)


def _clock(rng: random.Random, level: int) -> Task:
    answer, fields = _moved(rng, level, HOURS, "hour", at_level(level, 3, 4, 8, 12, 48))
    return ask(rng, CLOCK, f"{answer} o'clock", **fields)


FAMILIES = (
    drawn("weekday", "up to 3, 3, 6, 14, 60 days later, from level 2 also earlier", _day),
    drawn("month", "up to 3, 4, 6, 12, 40 months later, from level 2 also earlier", _month),
    drawn("clock", "up to 3, 4, 8, 12, 48 hours later, from level 2 also earlier", _clock),
)
