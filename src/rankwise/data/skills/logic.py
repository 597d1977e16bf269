"""Families of simple reasoning: order, membership, equality, true and false."""

import random
from itertools import pairwise

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import ANIMALS, COLOURS, NAMES, SHORT_NOUNS

ORDER: tuple[Phrasing, ...] = (
    ("Who is the {which}?", "{text}"),
    ("Name the {which} of them.", "{text}"),
    ("Read and name the {which} person.", "{text}"),
)
MEMBER: tuple[Phrasing, ...] = (
    ("Is {name} {colour}?", "{text}"),
    ("{text} Is {name} {colour}?", ""),
    ("Answer yes or no: is {name} {colour}?", "{text}"),
)
SAME: tuple[Phrasing, ...] = (
    ("Are the two lists the same?", "{first} / {second}"),
    ("Is {first} the same as {second}?", ""),
    ("Same words in the same order?", "{first} / {second}"),
)
TRUTH: tuple[Phrasing, ...] = (
    ("Is this true or false?", "{text}"),
    ("Work out the truth value of: {text}", ""),
    ("Give the truth value.", "{text}"),
)
COMPARISONS = (("older", "oldest", "youngest"), ("taller", "tallest", "shortest"), ("faster", "fastest", "slowest"))


def _order(rng: random.Random, level: int) -> Task:
    """A chain of comparisons, in order up to level 2, shuffled from level 3."""
    names = rng.sample(NAMES, at_level(level, 2, 3, 3, 4, 5))
    comparative, top, bottom = rng.choice(COMPARISONS)
    links = [f"{above} is {comparative} than {below}." for above, below in pairwise(names)]
    if level > 2:
        rng.shuffle(links)
    which, answer = rng.choice(((top, names[0]), (bottom, names[-1])))
    return ask(rng, ORDER, answer, which=which, text="\n".join(links))


def _member(rng: random.Random, level: int) -> Task:
    """Every animal of a kind has its colour; whether the named one has the colour asked for."""
    count = at_level(level, 1, 2, 2, 3, 4)
    kinds, colours, name = rng.sample(ANIMALS, count), rng.sample(COLOURS, count + 1), rng.choice(NAMES)
    place = rng.randrange(count)
    is_so = rng.random() < 0.5
    other = [colour for number, colour in enumerate(colours) if number != place]
    rules = " ".join(f"Every {kind} is {colour}." for kind, colour in zip(kinds, colours, strict=False))
    return ask(
        rng,
        MEMBER,
        "yes" if is_so else "no",
        name=name,
        colour=colours[place] if is_so else rng.choice(other),
        text=f"{rules} {name} is a {kinds[place]}.",
    )


def _same(rng: random.Random, level: int) -> Task:
    first = rng.sample(SHORT_NOUNS, at_level(level, 1, 2, 3, 4, 6))
    second = list(first)
    is_same = rng.random() < 0.5
    if not is_same:
        second[rng.randrange(len(second))] = rng.choice([noun for noun in SHORT_NOUNS if noun not in first])
    return ask(rng, SAME, "yes" if is_same else "no", first=" ".join(first), second=" ".join(second))


def _truth(rng: random.Random, level: int) -> Task:
    """A chain of and, or, not over true and false, read from left to right."""
    value = rng.random() < 0.5
    text = str(value).lower()
    for _ in range(at_level(level, 1, 2, 3, 4, 6)):
        joint, other = rng.choice(("and", "or")), rng.random() < 0.5
        value = (value and other) if joint == "and" else (value or other)
        text = f"({text})" if " " in text else text
        text = f"{text} {joint} {str(other).lower()}"
    if level > 2:
        value, text = not value, f"not ({text})"
    return ask(rng, TRUTH, str(value).lower(), text=text)


FAMILIES = (
    drawn("order", "chains of 2, 3, 3, 4, 5 people, shuffled from level 3", _order),
    drawn("membership", "1, 2, 2, 3, 4 rules", _member),
    drawn("same_or_not", "1, 2, 3, 4, 6 words", _same),
    drawn("truth_value", "1, 2, 3, 4, 6 joints of and, or; negated from level 3", _truth),
)
