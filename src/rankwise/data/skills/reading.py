"""Families whose answer stands in a short text: a passage, a record of fields, a small table."""

import random

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import ANIMALS, COLOURS, JOBS, NAMES, TOWNS

OWNER: tuple[Phrasing, ...] = (
    ("Who has the {thing}?", "{text}"),
    ("Read the text. Whose is the {thing}?", "{text}"),
    ("Name the owner of the {thing}.", "{text}"),
)
OWNED: tuple[Phrasing, ...] = (
    ("What does {name} have?", "{text}"),
    ("Read the text. What belongs to {name}?", "{text}"),
    ("Name the animal of {name}.", "{text}"),
)
FIELD: tuple[Phrasing, ...] = (
    ("What is the {field}?", "{text}"),
    ("Give the {field}.", "{text}"),
    ("Read the record and write the {field}.", "{text}"),
    ("Which {field} does the record show?", "{text}"),
)
CELL: tuple[Phrasing, ...] = (
    ("How many {thing}s does {name} sell?", "{text}"),
    ("Look up the number of {thing}s for {name}.", "{text}"),
    ("Read the table: {name}, {thing}s?", "{text}"),
    ("What number stands for {name} and {thing}s?", "{text}"),
)
GOODS = ("apple", "egg", "book", "hat", "cup")


def _passage(rng: random.Random, level: int) -> Task:
    count = at_level(level, 2, 2, 3, 4, 5)
    names, colours, animals = rng.sample(NAMES, count), rng.sample(COLOURS, count), rng.sample(ANIMALS, count)
    things = [
        f"a {colour} {animal}" if level > 1 else f"a {animal}" for colour, animal in zip(colours, animals, strict=True)
    ]
    text = "\n".join(f"{name} has {thing}." for name, thing in zip(names, things, strict=True))
    place = rng.randrange(count)
    if rng.random() < 0.5:
        return ask(rng, OWNER, names[place], thing=things[place].removeprefix("a "), text=text)
    return ask(rng, OWNED, things[place], name=names[place], text=text)


def _record(rng: random.Random, level: int) -> Task:
    fields = {
        "name": rng.choice(NAMES),
        "city": rng.choice(TOWNS),
        "job": rng.choice(JOBS),
        "age": str(rng.randint(18, 90)),
        "colour": rng.choice(COLOURS),
        "animal": rng.choice(ANIMALS),
        "room": str(rng.randint(100, 999)),
    }
    shown = rng.sample(list(fields), at_level(level, 2, 3, 4, 5, 7))
    field = rng.choice(shown)
    return ask(rng, FIELD, fields[field], field=field, text="\n".join(f"{name}={fields[name]}" for name in shown))


def _table(rng: random.Random, level: int) -> Task:
    names = rng.sample(NAMES, at_level(level, 2, 2, 3, 3, 4))
    goods = rng.sample(GOODS, at_level(level, 1, 2, 2, 3, 3))
    counts = {name: {thing: rng.randint(1, 99) for thing in goods} for name in names}
    text = "\n".join(f"{name}: " + ", ".join(f"{thing}s {counts[name][thing]}" for thing in goods) for name in names)
    name, thing = rng.choice(names), rng.choice(goods)
    return ask(rng, CELL, counts[name][thing], name=name, thing=thing, text=text)


FAMILIES = (
    drawn("passage", "2, 2, 3, 4, 5 sentences, with colours from level 2", _passage),
    drawn("record", "2, 3, 4, 5, 7 fields", _record),
    drawn("table", "2, 2, 3, 3, 4 rows of 1, 2, 2, 3, 3 numbers", _table),
)
