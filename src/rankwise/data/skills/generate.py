"""The embedded instruction set: families of tasks with one exact answer each, generated from a seed.

Families take turns, so a split holds as many tasks of each as it can; a family that has nothing new left is passed
over, and the others fill its places. The test split is drawn first, then validation, then training; nothing is asked
twice, in one split or in two. So the splits are disjoint as texts, more training examples change no other split, and a
larger training split begins with the smaller.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.data.examples import Example, SplitName
from rankwise.data.skills import dates, editing, lists, logic, memory, numbers, reading, words
from rankwise.data.skills.family import LEVELS, Draw, Family
from rankwise.errors import DataError

GROUPS: dict[str, tuple[Family, ...]] = {
    "numbers": numbers.FAMILIES,
    "words": words.FAMILIES,
    "editing": editing.FAMILIES,
    "lists": lists.FAMILIES,
    "dates": dates.FAMILIES,
    "reading": reading.FAMILIES,
    "logic": logic.FAMILIES,
    "memory": memory.FAMILIES,
}
"""Families by group; a group's name stands for all of them."""

FAMILIES: dict[str, Family] = {family.name: family for group in GROUPS.values() for family in group}

DEFAULT_FAMILIES = (
    "arithmetic_digits",
    "extreme_number",
    "parity",
    "sequence",
    "opposite",
    "category",
    "count_letter",
    "replace_word",
    "pick_item",
    "count_items",
    "weekday",
    "clock",
    "passage",
    "record",
    "membership",
    "translation",
)
"""What a small model learns from a few hundred examples: at least one family of each group."""

MAX_REPEATS = 100
"""A family that has repeated itself this often in a row counts as exhausted."""


def generate_skills(
    *,
    num_train: int,
    num_validation: int,
    num_test: int,
    seed: int,
    families: Sequence[str] = DEFAULT_FAMILIES,
    difficulty: int = 1,
) -> dict[SplitName, list[Example]]:
    """Exactly the numbers asked for, per split, in turns of families; the same arguments give the same examples.

    Args:
        num_train, num_validation, num_test: Examples of each split.
        seed: Decides all draws, the lexicons of the `memory` group included.
        families: Names of families, or of groups for all their families.
        difficulty: 1 (easiest) to 5; what it changes is said by each family's `difficulty`.

    Raises:
        DataError: an unknown family or difficulty, or the families have fewer different tasks than are asked for.
    """
    chosen = _choose(families)
    level = _check_difficulty(difficulty)
    seen: set[tuple[str, ...]] = set()
    splits: dict[SplitName, list[Example]] = {}
    numbers_wanted: dict[SplitName, int] = {"test": num_test, "validation": num_validation, "train": num_train}
    for split, num in numbers_wanted.items():
        splits[split] = _take(chosen, Draw(seed, split, level), num, seen)
        if len(splits[split]) < num:
            raise DataError(
                f"data: skills was asked for {num} examples for the {split} split, but {', '.join(families)} at "
                f"difficulty {level} has only {len(splits[split])} more that differ. Ask for fewer, raise "
                "data.options.difficulty, or name more families in data.options.families."
            )
    return splits


def _take(families: Sequence[Family], draw: Draw, num: int, seen: set[tuple[str, ...]]) -> list[Example]:
    """Up to `num` new examples, families in turns; their keys are added to `seen`."""
    sources = {family.name: _new_examples(family, draw, seen) for family in families}
    taken: list[Example] = []
    while sources and len(taken) < num:
        for name, source in list(sources.items()):
            example = next(source, None)
            if example is None:
                del sources[name]
            elif len(taken) < num:
                taken.append(example)
    return taken


def _new_examples(family: Family, draw: Draw, seen: set[tuple[str, ...]]) -> Iterator[Example]:
    repeats = 0
    for task in family.tasks(draw):
        example = Example(task.instruction, task.input, task.output, family.name)
        if example.key in seen:
            repeats += 1
            if repeats == MAX_REPEATS:
                return
            continue
        repeats = 0
        seen.add(example.key)
        yield example


def _choose(names: Any) -> list[Family]:
    if not isinstance(names, (list, tuple)) or not names:
        raise DataError(f"data.options.families: {names!r} is not a list of families. Allowed: a list of {_allowed()}.")
    chosen: dict[str, Family] = {}
    for name in names:
        found = GROUPS.get(name) or ((FAMILIES[name],) if name in FAMILIES else ())
        if not found:
            close = difflib.get_close_matches(str(name), [*GROUPS, *FAMILIES], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DataError(f"data.options.families: {name!r} is not a family{hint}. Allowed: {_allowed()}.")
        chosen.update((family.name, family) for family in found)
    return list(chosen.values())


def _check_difficulty(difficulty: Any) -> int:
    if isinstance(difficulty, bool) or difficulty not in LEVELS:
        raise DataError(
            f"data.options.difficulty: {difficulty!r} is not a level. Allowed: {LEVELS[0]} (easiest) to {LEVELS[-1]}."
        )
    return int(difficulty)


def _allowed() -> str:
    return f"the groups {', '.join(GROUPS)} and the families {', '.join(FAMILIES)}"
