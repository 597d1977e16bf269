"""What is wrong with a study file, in words: the place, the value, what is allowed, and the nearest valid key."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rankwise.allocation.strategies import STRATEGIES
from rankwise.study.config import Arm, CompareSettings, Study, TrainSettings, conflicts
from rankwise.study.document import Document, KeyPath
from rankwise.study.overrides import ARM_KEYS, FIRST_TUNING_SEED, STRATEGY_KEY, STUDY_KEYS, written_at

MISSING = {
    "name": "a study needs a name for its results folder",
    "hypothesis": "a study states in a sentence what it asks",
    "arms": "what is compared, such as [uniform, random]",
    "seeds": "a study needs its number of seeds, such as 8",
    "budget": "give it study-wide or in the arm, such as {rank: 8}",
    "strategy": "an arm is the name of a strategy, or a mapping with `strategy` and its settings",
}
"""What to write for the settings that have no default."""
_SEEDS = f"a list of at least one seed, or their number from 1 to {FIRST_TUNING_SEED}"
FORMS = {
    "seeds": _SEEDS,
    "tuning_seeds": _SEEDS,
    "targets": "all-linear, attention, mlp, or a list of at least one module name or regular expression",
    "arms": "a list of at least one strategy's name, or mapping with `strategy` and its settings",
}
"""The forms of the settings that are not one plain value."""

Problem = tuple[KeyPath, str]


def find_problems(document: Document, full: dict[str, Any], errors: Sequence[ErrorDetails]) -> list[str]:
    """One line for each thing that is wrong with a study, in the order of its file.

    `full` is the expanded form of the document, `errors` are what validating it as a `Study` found.
    """
    problems = [
        *_setting_problems(document.value, full, errors),
        *_strategy_problems(full),
        *_conflict_problems(document, full),
    ]
    lines = dict.fromkeys((document.line(path), text) for path, text in problems)
    return [f"{document.origin}:{line}: {text}" for line, text in sorted(lines, key=itemgetter(0))]


def _setting_problems(short: dict[str, Any], full: dict[str, Any], errors: Sequence[ErrorDetails]) -> Iterator[Problem]:
    found = [(_place(error, full), error) for error in errors]
    for path, error in found:
        if any(other[: len(path)] == path and other != path for other, _ in found):
            continue  # a whole is wrong because a part is, or because another of its forms was meant
        if path and path[2:] != (STRATEGY_KEY,):
            place = written_at(path, short)
            yield place, _describe(place, error, allowed=_keys_of(place[:-1]), owner=dotted(place[-2:-1]))


def _strategy_problems(full: dict[str, Any]) -> Iterator[Problem]:
    for index, arm in enumerate(_arms(full)):
        name = arm.get("strategy")
        if not isinstance(name, str):
            continue
        if name not in STRATEGIES:
            path: KeyPath = ("arms", index, "strategy")
            yield path, f"{dotted(path)} is {shown(name)}{_near(name, STRATEGIES)} {_list(STRATEGIES)}"
            continue
        try:
            STRATEGIES[name].model_validate_json(json.dumps(arm[STRATEGY_KEY]), strict=True)
        except ValidationError as error:
            allowed = (*STRATEGIES[name].model_fields, *ARM_KEYS)
            for details in error.errors(include_url=False):
                path = ("arms", index, *_place(details, arm[STRATEGY_KEY]))
                yield path, _describe(path, details, allowed=allowed, owner=name)


def _conflict_problems(document: Document, full: dict[str, Any]) -> Iterator[Problem]:
    """Conflicts between the settings that are well-formed, so that other problems do not hide them."""
    arms, section = _arms(full), full.get("compare", {})
    names = [arm["name"] for arm in arms if isinstance(arm.get("name"), str)]
    if not names or len(names) < len(arms):
        return
    baseline = section.get("baseline", CompareSettings().baseline) if isinstance(section, dict) else names[0]
    seeds, tuning_seeds = _integers(full.get("seeds")), _integers(full.get("tuning_seeds"))
    for conflict in conflicts(names, seeds=seeds, tuning_seeds=tuning_seeds, baseline=str(baseline)):
        other = f"; see line {document.line(conflict.other)}" if conflict.other else ""
        yield conflict.path, f"{conflict.message}{other}."


def _describe(path: KeyPath, error: ErrorDetails, *, allowed: Sequence[str], owner: str) -> str:
    """What a pydantic error says of the value at `path`, which stands among the keys `allowed` of `owner`."""
    place, value, context, key = dotted(path), shown(error["input"]), error.get("ctx", {}), str(path[-1])
    match error["type"]:
        case "extra_forbidden":
            return f"{place} is not a setting of {owner}{_near(key, allowed)} {_list(allowed)}"
        case "missing":
            return f"{place} is missing; {MISSING[key]}." if key in MISSING else f"{place} is missing."
        case "literal_error":
            names = [name.strip("' ") for name in context["expected"].replace(" or ", ",").split(",")]
            return f"{place} is {value}{_near(str(error['input']), names)} {_list(names)}"
        case "value_error":
            return f"{place} is {value}: {str(context['error']).rstrip('.')}."
        case "tuple_type" | "string_type" | "too_short" if key in FORMS:
            return f"{place} is {value}; it should be {FORMS[key]}."
        case "string_type":
            return f"{place} is {value}; it should be text, in quotes where it looks like something else."
        case "model_type" | "dict_type":
            return f"{place} is {value}; it should be a mapping of settings."
    return f"{place} is {value}; {_plain(error['msg'])}."


def _place(error: ErrorDetails, value: Any) -> KeyPath:
    """The keys and indices of an error's location, without the names that pydantic gives to the forms of a union."""
    path: list[str | int] = []
    for part in error["loc"]:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
        if inside:
            value = value[part]
        elif error["type"] != "missing":
            continue
        path.append(part)
    return tuple(path)


def _keys_of(section: KeyPath) -> Sequence[str]:
    """What may stand in a section of a study file."""
    if not section:
        return STUDY_KEYS
    field = {**TrainSettings.model_fields, **Arm.model_fields, **Study.model_fields}.get(str(section[-1]))
    forms = (field.annotation, *get_args(field.annotation)) if field else ()
    return tuple(key for form in forms for key in getattr(form, "model_fields", ()))


def _arms(full: dict[str, Any]) -> list[dict[str, Any]]:
    arms = full.get("arms")
    return [arm if isinstance(arm, dict) else {} for arm in arms] if isinstance(arms, list) else []


def _integers(values: Any) -> list[int]:
    return [value for value in values if type(value) is int] if isinstance(values, list) else []


def dotted(path: KeyPath) -> str:
    """`("arms", 1, "budget", "rank")` as `arms[1].budget.rank`; the empty path is the study itself."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "a study"


def shown(value: Any) -> str:
    """The value about as a file would write it, cut to a length that a message can hold."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _list(names: Iterable[str]) -> str:
    return f"Allowed: {', '.join(names)}."


def _near(wrong: str, names: Iterable[str]) -> str:
    """The end of a clause, with the name that was probably meant."""
    nearest = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else "."


def _plain(message: str) -> str:
    """Pydantic's message in the words of a study file."""
    for theirs, ours in (("Input", "it"), ("String", "it"), ("Tuple", "it"), (" after validation, not", ", not")):
        message = message.replace(theirs, ours)
    return message.replace("valid array", "list")
