"""Families about lists: pick by place or by length, count, sort.

Words stand on lines of their own: a byte-level tokenizer writes a word after a line break as it writes the first word
of an answer, so that an answer can be copied token by token.
"""

import random

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import NOUNS

PICK: tuple[Phrasing, ...] = (
    ("What is the {which} word in the list?", "{items}"),
    ("Give the {which} item.", "{items}"),
    ("Which word comes {which}?", "{items}"),
    ("Name the {which} of these.", "{items}"),
)
LENGTH: tuple[Phrasing, ...] = (
    ("Which word is the {which}?", "{items}"),
    ("Find the {which} word.", "{items}"),
    ("Pick the {which} word in the list.", "{items}"),
    ("Name the {which} of these words.", "{items}"),
)
COUNT: tuple[Phrasing, ...] = (
    ("How many words are in the list?", "{items}"),
    ("Count the items.", "{items}"),
    ("How long is this list?", "{items}"),
    ("Say how many things are named.", "{items}"),
)
SORT_NUMBERS: tuple[Phrasing, ...] = (
    ("Sort the numbers from small to large.", "{items}"),
    ("Put these numbers in order, smallest first.", "{items}"),
    ("Order the numbers upwards.", "{items}"),
    ("Write the numbers in rising order.", "{items}"),
)
SORT_WORDS: tuple[Phrasing, ...] = (
    ("Sort the words alphabetically.", "{items}"),
    ("Put these words in alphabetical order.", "{items}"),
    ("Order the words from A to Z.", "{items}"),
    ("Write the words in the order of a dictionary.", "{items}"),
)
PLACES = {"first": 0, "last": -1, "second": 1, "third": 2, "fourth": 3}


def _pick(rng: random.Random, level: int) -> Task:
    items = rng.sample(NOUNS, at_level(level, 3, 3, 4, 6, 8))
    which = rng.choice(list(PLACES)[: at_level(level, 2, 3, 4, 5, 5)])
    return ask(rng, PICK, items[PLACES[which]], which=which, items="\n".join(items))


def _length(rng: random.Random, level: int) -> Task:
    """The answer is longer (or shorter) than every other word by 3, 2, 1, 1, 1 letters at least."""
    which = rng.choice(("longest", "shortest"))
    margin, count = at_level(level, 3, 2, 1, 1, 1), at_level(level, 2, 3, 3, 4, 6)
    sign = 1 if which == "longest" else -1
    while True:
        items = rng.sample(NOUNS, count)
        best, *others = sorted(items, key=lambda item: -sign * len(item))
        if all(sign * (len(best) - len(other)) >= margin for other in others):
            return ask(rng, LENGTH, best, which=which, items="\n".join(items))


def _count(rng: random.Random, level: int) -> Task:
    items = rng.sample(NOUNS, rng.randint(2, at_level(level, 4, 5, 7, 9, 12)))
    return ask(rng, COUNT, len(items), items="\n".join(items))


def _sort_numbers(rng: random.Random, level: int) -> Task:
    items = rng.sample(range(1, at_level(level, 20, 50, 100, 1000, 1000)), at_level(level, 2, 3, 3, 4, 6))
    return ask(rng, SORT_NUMBERS, ", ".join(map(str, sorted(items))), items=", ".join(map(str, items)))


def _sort_words(rng: random.Random, level: int) -> Task:
    items = rng.sample(NOUNS, at_level(level, 2, 3, 3, 4, 6))
    return ask(rng, SORT_WORDS, "\n".join(sorted(items)), items="\n".join(items))


FAMILIES = (
    drawn("pick_item", "2, 3, 4, 5, 5 places in lists of 3, 3, 4, 6, 8 words", _pick),
    drawn("longest_word", "longest or shortest of 2, 3, 3, 4, 6 words, by at least 3, 2, 1, 1, 1 letters", _length),
    drawn("count_items", "lists of up to 4, 5, 7, 9, 12 words", _count),
    drawn("sort_numbers", "2, 3, 3, 4, 6 numbers below 20, 50, 100, 1,000, 1,000", _sort_numbers),
    drawn("sort_words", "2, 3, 3, 4, 6 words", _sort_words),
)
