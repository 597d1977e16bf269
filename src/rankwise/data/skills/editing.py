"""Families that change a text in an exact way: reverse, upper case, replace, remove, repeat, join."""

import random

from rankwise.data.skills.family import Phrasing, Task, ask, at_level, drawn
from rankwise.data.skills.lexicon import ANIMALS, COLOURS, NOUNS, SHORT_NOUNS

REVERSE: tuple[Phrasing, ...] = (
    ("Reverse the order of the words.", "{text}"),
    ("Write these words backwards, last word first.", "{text}"),
    ("Turn the list around.", "{text}"),
    ("Give the words in reverse order.", "{text}"),
)
UPPER: tuple[Phrasing, ...] = (
    ("Write the text in capital letters.", "{text}"),
    ("Put this in upper case: {text}", ""),
    ("Change every letter to a capital letter.", "{text}"),
    ("Capitalise all letters of: {text}", ""),
)
REPLACE: tuple[Phrasing, ...] = (
    ("Replace {old} with {new}.", "{text}"),
    ("Write the sentence with {new} instead of {old}.", "{text}"),
    ("Change the word {old} to {new}: {text}", ""),
    ("In the sentence, put {new} where {old} is.", "{text}"),
)
REMOVE: tuple[Phrasing, ...] = (
    ("Remove the letter {letter}.", "{text}"),
    ("Delete every {letter} from: {text}", ""),
    ("Write the letters again without {letter}.", "{text}"),
    ("Leave out the letter {letter}.", "{text}"),
)
REPEAT: tuple[Phrasing, ...] = (
    ("Write the word {word} {count} times.", ""),
    ("Repeat this word {count} times: {word}", ""),
    ("Say it {count} times.", "{word}"),
    ("Give {count} copies of the word.", "{word}"),
)
JOIN: tuple[Phrasing, ...] = (
    ("Join the words with {name}.", "{text}"),
    ("Put {name} between the words.", "{text}"),
    ("Connect these words by {name}.", "{text}"),
    ("Write the words with {name} between them.", "{text}"),
)
JOINERS = {"commas": ", ", "hyphens": "-", "plus signs": "+", "the word and": " and "}
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight")


def _reverse(rng: random.Random, level: int) -> Task:
    words = rng.sample(NOUNS, at_level(level, 2, 3, 4, 5, 8))
    return ask(rng, REVERSE, "\n".join(reversed(words)), text="\n".join(words))


def _upper(rng: random.Random, level: int) -> Task:
    text = " ".join(rng.sample(SHORT_NOUNS if level < 3 else NOUNS, at_level(level, 1, 2, 3, 4, 6)))
    return ask(rng, UPPER, text.upper(), text=text)


def _replace(rng: random.Random, level: int) -> Task:
    animals, colours = rng.sample(ANIMALS, 3), rng.sample(COLOURS, 3)
    text = f"the {colours[0]} {animals[0]} " + (f"sees the {colours[1]} {animals[1]}" if level > 1 else "runs")
    text += " near the river" * (level > 2) + " before the rain" * (level > 3) + " in the old town" * (level > 4)
    old, new = rng.choice(((animals[0], animals[2]), (colours[0], colours[2])))
    return ask(rng, REPLACE, text.replace(f" {old} ", f" {new} "), old=old, new=new, text=text)


def _remove(rng: random.Random, level: int) -> Task:
    letter, *others = rng.sample("abcdxyz", 7)
    letters = [letter, *rng.choices(others, k=2), *rng.choices([letter, *others], k=at_level(level, 0, 1, 3, 5, 9))]
    rng.shuffle(letters)
    kept = " ".join(other for other in letters if other != letter)
    return ask(rng, REMOVE, kept, letter=letter, text=" ".join(letters))


def _repeat(rng: random.Random, level: int) -> Task:
    word, count = rng.choice(NOUNS), rng.randint(2, at_level(level, 3, 4, 5, 6, 8))
    return ask(rng, REPEAT, " ".join([word] * count), word=word, count=COUNTS[count - 2])


def _join(rng: random.Random, level: int) -> Task:
    words = rng.sample(NOUNS, at_level(level, 2, 3, 4, 5, 8))
    name = rng.choice(list(JOINERS)[: at_level(level, 2, 3, 4, 4, 4)])
    return ask(rng, JOIN, JOINERS[name].join(words), name=name, text="\n".join(words))


FAMILIES = (
    drawn("reverse_words", "2, 3, 4, 5, 8 words", _reverse),
    drawn("upper_case", "1, 2, 3, 4, 6 words, short ones up to level 2", _upper),
    drawn("replace_word", "sentences of 4, 7, 10, 13, 17 words", _replace),
    drawn("remove_letter", "3, 4, 6, 8, 12 letters", _remove),
    drawn("repeat_word", "up to 3, 4, 5, 6, 8 times", _repeat),
    drawn("join_words", "2, 3, 4, 5, 8 words by one of 2, 3, 4, 4, 4 joints", _join),
)
