"""Families of arbitrary but fixed associations: knowledge that no rule yields, so that it must be stored.

A lexicon of N entries is generated from the data seed. Each entry can be asked about in twelve phrasings: six of them,
chosen per entry, are for training, three for validation, three for test. So the splits share no text, and yet every
test question is about an entry that enough training examples teach, in wording that is familiar from other entries.
What a model answers here is what its adapter could store, which is where rank capacity matters.

Tasks come in lexicon order, one phrasing after the other: the first N training tasks teach each entry once.
"""

import random
from collections.abc import Callable, Iterator

from rankwise.data.examples import SplitName
from rankwise.data.skills.family import Draw, Family, Phrasing, Task, at_level, random_stream
from rankwise.data.skills.lexicon import ANIMALS, COLOURS, NAMES, NOUNS

PLACES: dict[SplitName, slice] = {"train": slice(0, 6), "validation": slice(6, 9), "test": slice(9, 12)}
"""Which of an entry's twelve phrasings, in the entry's own order, belong to which split."""

LEXICON = "a lexicon of 8, 32, 128, 512, 2,048 entries"

CODE: tuple[Phrasing, ...] = (
    ("What is the code of {key}?", ""),
    ("Give the code for {key}.", ""),
    ("Which code belongs to the name?", "{key}"),
    ("Name the code that {key} uses.", ""),
    ("Look up the code.", "{key}"),
    ("{key} has which code?", ""),
    ("Tell me the secret code of {key}.", ""),
    ("Write down the code of {key}.", ""),
    ("Under which code is {key} known?", ""),
    ("Find the code of this name.", "{key}"),
    ("Code, please: {key}", ""),
    ("Do you remember the code of {key}?", ""),
)
TRANSLATION: tuple[Phrasing, ...] = (
    ("What does {key} mean?", ""),
    ("Translate the word {key}.", ""),
    ("Give the English word.", "{key}"),
    ("What is {key} in English?", ""),
    ("Translate into English.", "{key}"),
    ("Which thing is called {key}?", ""),
    ("Say what {key} stands for.", ""),
    ("The word {key} means what?", ""),
    ("Find the meaning.", "{key}"),
    ("Explain {key} in one English word.", ""),
    ("English for {key}, please.", ""),
    ("How would an English speaker call {key}?", ""),
)
PET: tuple[Phrasing, ...] = (
    ("Which animal does {key} keep?", ""),
    ("What pet does {key} have?", ""),
    ("Name the animal of this person.", "{key}"),
    ("Tell me the pet of {key}.", ""),
    ("Which pet lives with {key}?", ""),
    ("Whom does {key} feed every morning?", ""),
    ("Look up the pet.", "{key}"),
    ("{key} walks which animal?", ""),
    ("Give the pet that belongs to {key}.", ""),
    ("What animal is at home with {key}?", ""),
    ("Pet of {key}?", ""),
    ("Describe the animal that {key} owns.", ""),
)

Entry = tuple[str, str]
"""What is asked about, and the answer."""


def _code(rng: random.Random) -> Entry:
    return _invented_word(rng).capitalize(), f"{rng.choice(NOUNS)} {rng.choice(NOUNS)}"


def _translation(rng: random.Random) -> Entry:
    return _invented_word(rng), rng.choice(NOUNS)


def _pet(rng: random.Random) -> Entry:
    key = f"{rng.choice(NAMES)} {_invented_word(rng).capitalize()}"
    return key, f"a {rng.choice(COLOURS)} {rng.choice(ANIMALS)}"


def _invented_word(rng: random.Random) -> str:
    """Two syllables and a final consonant, such as `brimot`: about 500,000 different ones."""
    onsets = ("b", "br", "d", "dr", "f", "fl", "g", "gr", "k", "kl", "l", "m", "n", "p", "pl", "r", "s", "sn", "t", "z")
    syllables = [rng.choice(onsets) + rng.choice("aeiou") for _ in range(2)]
    return "".join(syllables) + rng.choice("lmnprstvxdg")


def _lexicon(name: str, draw_entry: Callable[[random.Random], Entry], seed: int, num_entries: int) -> list[Entry]:
    """Entries with different keys; a larger lexicon begins with the smaller."""
    rng = random_stream(seed, name, "lexicon")
    entries: dict[str, str] = {}
    while len(entries) < num_entries:
        key, answer = draw_entry(rng)
        entries.setdefault(key, answer)
    return list(entries.items())


def _remembered(name: str, phrasings: tuple[Phrasing, ...], draw_entry: Callable[[random.Random], Entry]) -> Family:
    """A family that asks for the entries of a lexicon; it ends when all of a split's phrasings have been used."""

    def tasks(draw: Draw) -> Iterator[Task]:
        lexicon = _lexicon(name, draw_entry, draw.seed, at_level(draw.level, 8, 32, 128, 512, 2048))
        rng = random_stream(draw.seed, name, "phrasings")
        orders = [rng.sample(phrasings, len(phrasings))[PLACES[draw.split]] for _ in lexicon]
        for asked in zip(*orders, strict=True):
            for (instruction, text), (key, answer) in zip(asked, lexicon, strict=True):
                yield Task(instruction.format(key=key), text.format(key=key), answer)

    return Family(name, LEXICON, tasks)


FAMILIES = (
    _remembered("secret_code", CODE, _code),
    _remembered("translation", TRANSLATION, _translation),
    _remembered("pet", PET, _pet),
)
