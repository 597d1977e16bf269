"""Families about single words: opposites, categories, plurals, spelling, letters."""

import random

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import CATEGORIES, IRREGULAR_PLURALS, NOUNS, OPPOSITES, REGULAR_PLURALS

OPPOSITE: tuple[Phrasing, ...] = (
    ("What is the opposite of {word}?", ""),
    ("Give the opposite of the word.", "{word}"),
    ("Name the opposite: {word}", ""),
    ("Which word means the opposite of {word}?", ""),
    ("Write a word with the opposite meaning.", "{word}"),
    ("The opposite of {word} is what?", ""),
)
CATEGORY: tuple[Phrasing, ...] = (
    ("What kind of thing is {word}: {kinds}?", ""),
    ("Choose the right kind: {kinds}.", "{word}"),
    ("To which kind does {word} belong: {kinds}?", ""),
    ("Which of these is {word}: {kinds}?", ""),
)
PLURAL: tuple[Phrasing, ...] = (
    ("What is the plural of {word}?", ""),
    ("Write the plural.", "{word}"),
    ("One {word}, two what?", ""),
    ("Make the word plural: {word}", ""),
    ("Give the plural form of the noun.", "{word}"),
    ("How do you write more than one {word}?", ""),
)
SPELL: tuple[Phrasing, ...] = (
    ("Spell the word {word}.", ""),
    ("Write the letters of the word one by one.", "{word}"),
    ("How is {word} spelled?", ""),
    ("Spell out this word: {word}", ""),
)
LETTER: tuple[Phrasing, ...] = (
    ("What is the {which} letter of {word}?", ""),
    ("Give the {which} letter of the word.", "{word}"),
    ("Which letter is {which} in {word}?", ""),
    ("Write the {which} letter: {word}", ""),
)
COUNT: tuple[Phrasing, ...] = (
    ("How many times does the letter {letter} occur?", "{text}"),
    ("Count the letter {letter} in: {text}", ""),
    ("How often is {letter} in the list?", "{text}"),
    ("Count how many of these letters are {letter}.", "{text}"),
)


def _opposite(rng: random.Random, level: int) -> Task:
    pair = rng.choice(OPPOSITES[: at_level(level, 12, 24, 36, 48, len(OPPOSITES))])
    word, answer = rng.sample(pair, 2)
    return ask(rng, OPPOSITE, answer, word=word)


def _category(rng: random.Random, level: int) -> Task:
    kinds = rng.sample(list(CATEGORIES)[: at_level(level, 4, 6, 8, 10, 10)], at_level(level, 2, 2, 3, 4, 6))
    answer = rng.choice(kinds)
    word = rng.choice(CATEGORIES[answer].split())
    return ask(rng, CATEGORY, answer, word=word, kinds=f"{', '.join(kinds[:-1])} or {kinds[-1]}")


def _plural(rng: random.Random, level: int) -> Task:
    if rng.randrange(4) < level - 1:
        word, answer = rng.choice(list(IRREGULAR_PLURALS.items()))
    else:
        word = rng.choice(REGULAR_PLURALS)
        answer = f"{word}s"
    return ask(rng, PLURAL, answer, word=word)


def _noun(rng: random.Random, level: int) -> str:
    longest = at_level(level, 3, 4, 5, 6, 9)
    return rng.choice([noun for noun in NOUNS if len(noun) <= longest])


def _spell(rng: random.Random, level: int) -> Task:
    word = _noun(rng, level)
    return ask(rng, SPELL, "-".join(word), word=word)


def _letter(rng: random.Random, level: int) -> Task:
    word = _noun(rng, min(5, level + 2))
    places = {"first": 0, "last": -1, "second": 1, "third": 2}
    which = rng.choice(list(places)[: at_level(level, 1, 2, 3, 4, 4)])
    return ask(rng, LETTER, word[places[which]], which=which, word=word)


def _count(rng: random.Random, level: int) -> Task:
    letters = rng.choices("abc", k=at_level(level, 4, 5, 6, 8, 12))
    letter = rng.choice("abc")
    return ask(rng, COUNT, letters.count(letter), letter=letter, text=" ".join(letters))


FAMILIES = (
    drawn("opposite", "12, 24, 36, 48, or all pairs of words", _opposite),
    drawn("category", "choice among 2, 2, 3, 4, 6 kinds", _category),
    drawn("plural", "irregular ones with probability 0, 1/4, 1/2, 3/4, 1", _plural),
    drawn("spelling", "words of up to 3, 4, 5, 6, 9 letters", _spell),
    drawn("letter_at", "the first; first or last; first, last or second; also third from level 4", _letter),
    drawn("count_letter", "4, 5, 6, 8, 12 letters", _count),
)
