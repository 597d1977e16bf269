"""What is said of a run that does not fit: the numbers are those of the changed runs."""

import re

import pytest

from rankwise.errors import PackError
from rankwise.execution.planning import plan_study
from rankwise.execution.workbench import Workbench
from rankwise.study import parse_study
from rankwise.training.engine import EngineOptions

STUDY = """
name: large
hypothesis: It does not fit.
base: {{dtype: float32, quantization: {quantization}}}
data: {{source: skills, template: plain, max_tokens: {tokens}, train: 40, validation: 4, test: 4}}
budget: {{rank: {rank}}}
train: {{epochs: 1, batch_size: {batch}, learning_rates: [1.0e-3], gradient_checkpointing: {checkpointed}}}
arms: [uniform]
seeds: 1
"""


def needed_bytes(limit_bytes=None, **changes) -> int:
    settings = {"quantization": "none", "tokens": 128, "rank": 64, "batch": 16, "checkpointed": "false"} | changes
    study = parse_study(STUDY.format(**settings), origin="large.yaml")
    plan = plan_study(study, Workbench(), engine=EngineOptions(), limit_bytes=limit_bytes, max_slots=1)
    return plan.largest_pack.memory.total_bytes


def told(limit_bytes: int, **changes) -> str:
    with pytest.raises(PackError) as error:
        needed_bytes(limit_bytes, **changes)
    return str(error.value)


def test_each_way_is_told_with_what_the_run_would_then_need():
    alone = needed_bytes()
    message = told(alone - 1)
    ways = re.findall(r"([\d.]+ GiB) with (.+?)(?:,|\. It)", message)
    for words, changes in (
        ("train.gradient_checkpointing true", {"checkpointed": "true"}),
        ("base.quantization nf4", {"quantization": "nf4"}),
        ("train.batch_size 1", {"batch": 1}),
    ):
        assert f"{needed_bytes(**changes) / 2**30:.2f} GiB" in {size for size, way in ways if way == words}
    assert "half the budget" in message
    assert "all of these" in message
    assert message.endswith("It fits with train.gradient_checkpointing true.")


def test_below_what_the_base_and_the_process_take_nothing_helps():
    message = told(400 * 2**20)
    assert "Its largest part is runtime, 0.47 GiB" in message
    assert "None of these fits: choose a smaller base model, or raise --memory." in message


def test_what_is_done_already_is_no_way():
    message = told(10**6, quantization="nf4", batch=1, rank=1, checkpointed="true")
    assert "checkpointing" not in message
    assert "quantization" not in message
    assert "batch_size" not in message
    assert "budget" not in message
