"""Families about numbers: arithmetic, comparison, parity, sequences, units."""

import random

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import number_in_words

ADD: tuple[Phrasing, ...] = (
    ("What is {a} plus {b}?", ""),
    ("Add {a} and {b}.", ""),
    ("Work out the sum.", "{a} + {b}"),
    ("Find the sum of {a} and {b}.", ""),
)
SUBTRACT: tuple[Phrasing, ...] = (
    ("What is {a} minus {b}?", ""),
    ("Subtract {b} from {a}.", ""),
    ("Work out the difference.", "{a} - {b}"),
    ("Take {b} away from {a}.", ""),
)
ADD_WORDS: tuple[Phrasing, ...] = (
    ("What is {a} plus {b}? Answer in words.", ""),
    ("Add the numbers and write the sum in words.", "{a}, {b}"),
    ("How much are {a} and {b} together, in words?", ""),
)
SUBTRACT_WORDS: tuple[Phrasing, ...] = (
    ("What is {a} minus {b}? Answer in words.", ""),
    ("Subtract the second number from the first and write it in words.", "{a}, {b}"),
    ("How much is left of {a} after {b} is taken away, in words?", ""),
)
EXTREME: tuple[Phrasing, ...] = (
    ("Which number is the {which}?", "{numbers}"),
    ("Which of {numbers} is the {which}?", ""),
    ("Find the {which} number in the list.", "{numbers}"),
    ("Pick the {which} of these numbers: {numbers}", ""),
)
PARITY: tuple[Phrasing, ...] = (
    ("Is {number} even or odd?", ""),
    ("Say whether the number is even or odd.", "{number}"),
    ("Is the number {number} odd or even?", ""),
    ("Even or odd?", "{number}"),
)
SEQUENCE: tuple[Phrasing, ...] = (
    ("Continue the sequence with one number.", "{numbers}"),
    ("What comes next: {numbers}?", ""),
    ("Which number follows {numbers}?", ""),
    ("Give the next number.", "{numbers}"),
)
UNITS: tuple[Phrasing, ...] = (
    ("How many {small} are {amount} {large}?", ""),
    ("Convert {amount} {large} to {small}.", ""),
    ("Write the amount in {small}.", "{amount} {large}"),
    ("{amount} {large} make how many {small}?", ""),
)
CONVERSIONS = (
    ("weeks", "days", 7),
    ("centuries", "decades", 10),
    ("metres", "centimetres", 100),
    ("kilometres", "metres", 1000),
    ("dozens", "pieces", 12),
    ("years", "months", 12),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("kilograms", "grams", 1000),
    ("dollars", "cents", 100),
    ("feet", "inches", 12),
)


def _arithmetic(rng: random.Random, level: int) -> Task:
    largest = at_level(level, 9, 20, 50, 100, 1000)
    a, b = sorted((rng.randint(1, largest), rng.randint(1, largest)), reverse=True)
    if rng.random() < 0.5:
        return ask(rng, SUBTRACT, a - b, a=a, b=b)
    a, b = rng.sample((a, b), 2)
    return ask(rng, ADD, a + b, a=a, b=b)


def _arithmetic_words(rng: random.Random, level: int) -> Task:
    largest = at_level(level, 9, 20, 50, 100, 1000)
    a, b = sorted((rng.randint(1, largest), rng.randint(1, largest)), reverse=True)
    phrasings, answer = (SUBTRACT_WORDS, a - b) if rng.random() < 0.5 else (ADD_WORDS, a + b)
    return ask(rng, phrasings, number_in_words(answer), a=number_in_words(a), b=number_in_words(b))


def _extreme(rng: random.Random, level: int) -> Task:
    largest, count = at_level(level, 20, 100, 100, 1000, 10_000), at_level(level, 2, 2, 3, 4, 6)
    numbers = rng.sample(range(1, largest + 1), count)
    which, answer = rng.choice((("largest", max(numbers)), ("smallest", min(numbers))))
    return ask(rng, EXTREME, answer, which=which, numbers=", ".join(map(str, numbers)))


def _parity(rng: random.Random, level: int) -> Task:
    number = rng.randint(1, at_level(level, 100, 1000, 10_000, 100_000, 1_000_000))
    return ask(rng, PARITY, "odd" if number % 2 else "even", number=number)


def _sequence(rng: random.Random, level: int) -> Task:
    step = rng.randint(1, at_level(level, 2, 5, 10, 25, 99))
    start = rng.randint(1, at_level(level, 30, 50, 100, 300, 1000))
    numbers = [start + place * step for place in range(5)]
    if level >= 3 and rng.random() < 0.5:
        numbers.reverse()
    return ask(rng, SEQUENCE, numbers[4], numbers=", ".join(map(str, numbers[:4])))


def _units(rng: random.Random, level: int) -> Task:
    large, small, factor = rng.choice(CONVERSIONS[: at_level(level, 4, 6, 9, 12, 12)])
    amount = rng.randint(2, at_level(level, 9, 12, 20, 50, 200))
    return ask(rng, UNITS, amount * factor, amount=amount, large=large, small=small)


FAMILIES = (
    drawn("arithmetic_digits", "sums and differences of numbers up to 9, 20, 50, 100, 1,000", _arithmetic),
    drawn("arithmetic_words", "the same in words, up to 9, 20, 50, 100, 1,000", _arithmetic_words),
    drawn("extreme_number", "largest or smallest of 2, 2, 3, 4, 6 numbers up to 20, 100, 100, 1,000, 10,000", _extreme),
    drawn("parity", "even or odd, numbers up to 100, 1,000, 10,000, 100,000, 1,000,000", _parity),
    drawn("sequence", "arithmetic sequences with steps up to 2, 5, 10, 25, 99; downwards too from level 3", _sequence),
    drawn("units", "4, 6, 9, 12, 12 conversions of amounts up to 9, 12, 20, 50, 200", _units),
)
