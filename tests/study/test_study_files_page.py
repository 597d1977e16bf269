"""The page on study files lists every key with its default and meaning, and nothing that is not there."""

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from rankwise.allocation.rank_map import Scaling
from rankwise.allocation.strategies import STRATEGIES
from rankwise.study.config import (
    Arm,
    BaseSettings,
    BenchmarkSettings,
    BudgetSettings,
    CompareSettings,
    DataSettings,
    EvaluateSettings,
    LrFactors,
    Study,
    TrainSettings,
)
from rankwise.study.document import read_document
from rankwise.study.load import parse_study
from rankwise.study.overrides import SHARED_KEYS, STUDY_KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "study-files.md").read_text(encoding="utf-8")
SECTIONS = {
    "base": BaseSettings,
    "data": DataSettings,
    "budget": BudgetSettings,
    "train": TrainSettings,
    "scaling": Scaling,
    "evaluate": EvaluateSettings,
    "benchmarks": BenchmarkSettings,
    "compare": CompareSettings,
}


def part(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(text: str, columns: int) -> list[list[str]]:
    """Cells of the table rows with this many columns, the head left out."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in cells] for cells in lines if len(cells) == columns]


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field of a model."""
    body = ast.parse(inspect.getsource(model)).body[0].body
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr)
    }


def is_default(cell: str, model: type[BaseModel], key: str) -> bool:
    field = model.model_fields[key]
    if field.is_required():
        return cell == "required"
    written = read_document(f"key: {cell.strip('`')}", origin="page").value["key"]
    default: Any = field.get_default(call_default_factory=True)
    return written == (list(default) if isinstance(default, tuple) else default)


def alternatives(annotation: Any) -> set[str]:
    """The literals of a type, and null where None is allowed."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    if annotation is NoneType:
        return {"null"}
    is_union = get_origin(annotation) in (Union, UnionType)
    return set().union(*map(alternatives, get_args(annotation))) if is_union else set()


def check(found: list[list[str]], model: type[BaseModel]) -> None:
    for key, kind, default, meaning in found:
        name = key.strip("`")
        assert meaning == meanings(model)[name].replace("None", "`null`"), name
        assert is_default(default, model, name), f"{name}: {default}"
        assert alternatives(model.model_fields[name].annotation) <= set(re.findall(r"`(\w+)`", kind)), f"{name}: {kind}"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section_is_described(section):
    found = rows(part(f"`{section}`"), 4)
    assert [row[0].strip("`") for row in found] == list(SECTIONS[section].model_fields)
    check(found, SECTIONS[section])


def test_every_learning_rate_factor_is_described():
    found = rows(part("`train.lr_factors`"), 4)
    assert [row[0].strip("`") for row in found] == list(LrFactors.model_fields)
    check(found, LrFactors)


def test_every_key_of_the_file_is_described():
    study, shared = part("The file").split("study-wide")
    study_rows, shared_rows = rows(study, 4), rows(shared, 4)
    described = {row[0].strip("`") for row in study_rows + shared_rows} | set(SECTIONS)
    assert described == set(STUDY_KEYS)
    assert {row[0].strip("`") for row in shared_rows} | set(SECTIONS) - {"compare", "benchmarks"} == set(SHARED_KEYS)
    check(study_rows, Study)
    check(shared_rows, Arm)


def test_every_strategy_and_its_settings_are_described():
    found = rows(part("`arms`"), 5)
    assert list(dict.fromkeys(row[0].strip("`") for row in found)) == list(STRATEGIES)
    for name, strategy in STRATEGIES.items():
        settings = [row[1:] for row in found if row[0] == f"`{name}`" and row[1]]
        assert [row[0].strip("`") for row in settings] == list(strategy.model_fields)
        check(settings, strategy)


def test_the_example_is_a_complete_study():
    example = PAGE.split("```yaml\n")[1].split("```")[0]
    assert len(parse_study(example, origin="page").arms) == 4
