import datetime
import re
import time
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from rankwise.data.examples import SPLITS
from rankwise.data.skills import DEFAULT_FAMILIES, FAMILIES, GROUPS, generate_skills, memory
from rankwise.data.skills.lexicon import CATEGORIES, OPPOSITES, WEEKDAYS, number_in_words
from rankwise.errors import DataError

LEVELS = (1, 2, 3, 4, 5)


def generate(num=60, *, seed=0, **options):
    return generate_skills(num_train=num, num_validation=20, num_test=40, seed=seed, **options)


def of_family(name, level, num=40):
    """Tasks of one family, as one text per question."""
    examples = generate_skills(num_train=num, num_validation=1, num_test=1, seed=3, families=[name], difficulty=level)[
        "train"
    ]
    return [(f"{example.instruction}\n{example.input}".strip(), example.output) for example in examples]


def numbers_in(text):
    return [int(digits) for digits in re.findall(r"\d+", text)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_asks_and_answers_in_more_than_one_phrasing(name, level):
    tasks = of_family(name, level, num=20)
    assert all(question and answer == answer.strip() != "" for question, answer in tasks)
    assert not any("{" in question + answer or "}" in question + answer for question, answer in tasks)
    assert len({question.split()[0] for question, _ in tasks}) > 1


@pytest.mark.parametrize("level", LEVELS)
def test_splits_have_the_numbers_asked_for_and_share_no_text(level):
    splits = generate(num=500, difficulty=level)
    assert [len(splits[split]) for split in SPLITS] == [500, 20, 40]
    keys = [example.key for split in SPLITS for example in splits[split]]
    assert len(set(keys)) == len(keys)


def test_the_seed_decides_everything():
    assert generate() == generate()
    assert generate(seed=1)["test"] != generate()["test"]


def test_more_training_examples_change_no_other_split_and_keep_the_ones_before():
    small, large = generate(num=50), generate(num=300)
    assert small["test"] == large["test"]
    assert small["validation"] == large["validation"]
    assert small["train"] == large["train"][:50]


def test_families_take_turns():
    counts = Counter(example.family for example in generate(num=3 * len(DEFAULT_FAMILIES))["train"])
    assert counts == dict.fromkeys(DEFAULT_FAMILIES, 3)


def test_ten_thousand_examples_take_under_two_seconds():
    started = time.process_time()
    splits = generate_skills(num_train=9_000, num_validation=400, num_test=600, seed=0)
    assert time.process_time() - started < 2
    assert sum(map(len, splits.values())) == 10_000


def test_there_are_a_dozen_families_and_groups_stand_for_theirs():
    assert len(DEFAULT_FAMILIES) >= 12
    assert sum(map(len, GROUPS.values())) == len(FAMILIES)
    grouped = {example.family for example in generate(families=["memory", "parity"])["train"]}
    assert grouped == {"secret_code", "translation", "pet", "parity"}


# Answers, worked out a second time from the text of the question alone.


@pytest.mark.parametrize("level", LEVELS)
def test_sums_and_differences_are_right(level):
    for question, answer in of_family("arithmetic_digits", level):
        a, b = numbers_in(question)
        expected = {"-": a - b, "minus": a - b, "away": b - a, "from": b - a}
        sign = next((word for word in expected if word in question.replace("Take", "")), None)
        assert int(answer) == (expected[sign] if sign else a + b), question


def test_numbers_in_words_are_right():
    assert [number_in_words(n) for n in (0, 7, 13, 20, 42, 100, 342, 1000, 1999, 2000)] == [
        "zero",
        "seven",
        "thirteen",
        "twenty",
        "forty-two",
        "one hundred",
        "three hundred forty-two",
        "one thousand",
        "one thousand nine hundred ninety-nine",
        "two thousand",
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_arithmetic_in_words_agrees_with_arithmetic(level):
    value = {number_in_words(n): n for n in range(2001)}
    spelled = re.compile("|".join(sorted(map(re.escape, value), key=len, reverse=True)))
    for question, answer in of_family("arithmetic_words", level):
        a, b = (value[word] for word in spelled.findall(question))
        minus = any(word in question for word in ("minus", "Subtract", "left"))
        assert value[answer] == (a - b if minus else a + b), question


@pytest.mark.parametrize("level", LEVELS)
def test_sorted_and_extreme_numbers_are_right(level):
    for question, answer in of_family("sort_numbers", level):
        assert numbers_in(answer) == sorted(numbers_in(question))
    for question, answer in of_family("extreme_number", level):
        assert int(answer) == (max if "largest" in question else min)(numbers_in(question))


@pytest.mark.parametrize("level", LEVELS)
def test_sequences_have_one_step_and_parity_is_right(level):
    for question, answer in of_family("sequence", level):
        numbers = [*numbers_in(question), int(answer)]
        assert len({b - a for a, b in pairwise(numbers)}) == 1
    for question, answer in of_family("parity", level):
        assert answer == ("even" if numbers_in(question)[0] % 2 == 0 else "odd")


@pytest.mark.parametrize("level", LEVELS)
def test_weekdays_agree_with_the_calendar(level):
    monday = datetime.date(2024, 1, 1)
    for question, answer in of_family("weekday", level, num=20):
        steps = numbers_in(question)[0] * (1 if "after" in question else -1)
        start = next(number for number, day in enumerate(WEEKDAYS) if day in question)
        assert (monday + datetime.timedelta(days=start + steps)).strftime("%A") == answer, question


@pytest.mark.parametrize("level", LEVELS)
def test_edited_texts_are_right(level):
    for question, answer in of_family("reverse_words", level):
        assert question.endswith("\n".join(reversed(answer.split("\n"))))
    for question, answer in of_family("upper_case", level, num=20):
        assert answer.isupper()
        assert question.endswith(answer.lower())
    for question, answer in of_family("remove_letter", level):
        text = re.search(r"(?:\b[a-z] )+[a-z]$", question).group()
        [removed] = set(text.split()) - set(answer.split())
        assert text.replace(removed, "").split() == answer.split()


@pytest.mark.parametrize("level", LEVELS)
def test_sorted_words_and_lookups_are_right(level):
    for question, answer in of_family("sort_words", level):
        words = answer.split("\n")
        assert words == sorted(words)
        assert sorted(question.splitlines()[1:]) == words
    for question, answer in of_family("table", level):
        numbers = [line for line in question.splitlines() if re.match(r"\w+: \w+s \d", line)]
        asked = question.splitlines()[0]
        [row] = [line for line in numbers if line.split(":")[0] in asked.replace("table:", "")]
        assert any(f"{thing} {answer}" in row for thing in re.findall(r"\w+s\b", asked))


@pytest.mark.parametrize("level", LEVELS)
def test_truth_values_agree_with_python(level):
    for question, answer in of_family("truth_value", level, num=10 if level == 1 else 40):
        formula = re.search(r"(?:not |\()*\b(?:true|false)\b (?:and|or).*$", question.splitlines()[-1]).group()
        python = formula.replace("true", "True").replace("false", "False")
        assert answer == str(eval(python)).lower()  # text of this module alone


def test_word_lists_give_one_answer_each():
    words = [word for pair in OPPOSITES for word in pair]
    assert len(set(words)) == len(words)
    members = [word for kind in CATEGORIES.values() for word in kind.split()]
    assert len(set(members)) == len(members)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("name", [family.name for family in GROUPS["memory"]])
def test_what_the_test_split_asks_is_taught_in_training_in_other_words(name, level):
    num_entries = {1: 8, 2: 32, 3: 128}[level]
    splits = generate_skills(
        num_train=6 * num_entries,
        num_validation=3 * num_entries,
        num_test=3 * num_entries,
        seed=0,
        families=[name],
        difficulty=level,
    )
    taught = defaultdict(set)
    for example in splits["train"]:
        taught[entry_of(example)].add(example.output)
    assert len(taught) == num_entries
    assert all(len(answers) == 1 for answers in taught.values())
    for split in ("validation", "test"):
        assert all(taught[entry_of(example)] == {example.output} for example in splits[split])
        phrasings = {example.instruction.replace(entry_of(example), "KEY") for example in splits[split]}
        known = {example.instruction.replace(entry_of(example), "KEY") for example in splits["train"]}
        assert phrasings <= known


def entry_of(example):
    """The invented name in a question of the memory group."""
    asked = f"{example.instruction}|{example.input}"
    for instruction, text in (*memory.CODE, *memory.TRANSLATION, *memory.PET):
        pattern = re.escape(f"{instruction}|{text}").replace(re.escape("{key}"), "([A-Za-z]+(?: [A-Z][a-z]+)?)")
        if found := re.fullmatch(pattern, asked):
            return found.group(1)
    raise AssertionError(f"not a question of the memory group: {asked}")


def test_the_first_training_tasks_of_memory_teach_every_entry_once():
    tasks = generate_skills(num_train=32, num_validation=1, num_test=1, seed=0, families=["pet"], difficulty=2)["train"]
    assert len({entry_of(example) for example in tasks}) == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["aritmetic_words"]}, "'aritmetic_words' is not a family; did you mean arithmetic_words"),
        ({"families": []}, r"\[\] is not a list of families. Allowed: a list of the groups numbers"),
        ({"families": "memory"}, "'memory' is not a list of families"),
        ({"difficulty": 6}, r"6 is not a level. Allowed: 1 \(easiest\) to 5"),
        ({"difficulty": "hard"}, "'hard' is not a level"),
        ({"difficulty": True}, "True is not a level"),
        (
            {"families": ["pet"], "num": 49},
            r"asked for 49 examples for the train split, but pet at difficulty 1 has only 48",
        ),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        generate(**options) if "num" not in options else generate_skills(
            num_train=49, num_validation=1, num_test=1, seed=0, families=options["families"]
        )
