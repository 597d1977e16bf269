"""What a family of tasks is: a named, seeded source of questions with one exact answer each."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rankwise.data.examples import SplitName
from rankwise.streams import stream

LEVELS = (1, 2, 3, 4, 5)
"""Difficulty, easiest first. What it changes is said by each family."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question in Alpaca schema with its only right answer."""

    instruction: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Draw:
    """What decides the tasks of a family."""

    seed: int
    split: SplitName
    level: int


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    difficulty: str
    """What the five levels change, easiest first."""
    tasks: Callable[[Draw], Iterator[Task]]
    """Tasks in a fixed order; endless or not, and possibly repeating themselves."""


Phrasing = tuple[str, str]
"""Instruction and input with named fields in braces."""


def random_stream(seed: int, *names: str | int) -> random.Random:
    """The standard library's generator on a named stream: its `choice` and `sample` are quick for single draws."""
    return random.Random(int(stream(seed, "skills", *names).integers(2**63)))


def drawn(name: str, difficulty: str, draw_task: Callable[[random.Random, int], Task]) -> Family:
    """A family whose tasks are independent draws, without end."""

    def tasks(draw: Draw) -> Iterator[Task]:
        rng = random_stream(draw.seed, name, draw.split)
        while True:
            yield draw_task(rng, draw.level)

    return Family(name, difficulty, tasks)


def ask(rng: random.Random, phrasings: Sequence[Phrasing], answer: str | int, **fields: str | int) -> Task:
    """A task in one of several phrasings."""
    instruction, text = rng.choice(phrasings)
    return Task(instruction.format(**fields), text.format(**fields), str(answer))


def at_level(level: int, *values: int) -> int:
    """The value of a level: one per level, easiest first."""
    return values[level - 1]
