"""Benchmarks give the number that lm-evaluation-harness gives by itself on the exported adapter."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from rankwise.data.prepare import prepare_data
from rankwise.data.tokenizing import encode_prompt
from rankwise.errors import DataError, EvaluationError
from rankwise.evaluation import benchmarks
from rankwise.evaluation.benchmark_tasks import LOCAL_TASKS, TaskInputs, check_file
from rankwise.evaluation.benchmarks import require_benchmark, run_benchmark
from rankwise.evaluation.generation import generate_answers
from rankwise.execution.load_adapted import load_adapted
from rankwise.study.config import DataSettings
from tests.lora.foreign import write_foreign

pytest.importorskip("lm_eval")
# What the harness and what it imports do that they should not; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

NANO = str(files("rankwise").joinpath("assets", "nano"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> str:
    model = AutoModelForCausalLM.from_pretrained(NANO)
    return str(write_foreign(tmp_path_factory.mktemp("adapter"), model, r=2, lora_alpha=1))


@pytest.fixture(scope="module")
def base(adapter):
    return load_adapted(adapter)[0]


@pytest.fixture(scope="module")
def inputs(base) -> TaskInputs:
    """Eight skills; the expected answer of every other one is what the adapter writes, so that half of them match."""
    settings = DataSettings(train=1, validation=1, test=8)
    examples = prepare_data(settings, base.tokenizer).examples["test"]
    prompts = [np.array(encode_prompt(example, "alpaca", base.tokenizer)) for example in examples]
    written = generate_answers(base.model, base.tokenizer, prompts, max_new_tokens=6, batch_tokens=4096)
    own = [
        type(e)(e.instruction, e.input, answer.text.strip() if i % 2 else e.output)
        for i, (e, answer) in enumerate(zip(examples, written, strict=True))
    ]
    return TaskInputs(tokenizer=base.tokenizer, context_tokens=256, examples=own)


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("gsm8k") / "test.jsonl"
    rows = [{"question": f"What is {n} + {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n}"} for n in range(1, 4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def by_harness_alone(adapter: str, task: str, inputs: TaskInputs):
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=NANO, peft=adapter, dtype="float32", device="cpu", batch_size=1)
    return simple_evaluate(
        model=model,
        tasks=[ConfigurableTask(config=LOCAL_TASKS[task](inputs))],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=100,
    )


def test_skills_score_as_the_harness_scores_the_exported_adapter(base, adapter, inputs):
    found = run_benchmark(base, "skills", inputs)
    expected = by_harness_alone(adapter, "skills", inputs)
    [score] = found.scores
    assert (score.task, score.metric, found.num_examples) == ("skills", "exact_match", 8)
    assert score.value == expected["results"]["skills"]["exact_match,none"]
    assert score.stderr == pytest.approx(expected["results"]["skills"]["exact_match_stderr,none"])
    assert score.value >= 0.4
    written = [sample["filtered_resps"][0] for sample in expected["samples"]["skills"]]
    assert [example["got"] for example in found.examples] == written
    assert sum(example["exact_match"] for example in found.examples) / 8 == score.value
    assert found.examples[0]["prompt"].endswith("### Response:")


def test_gsm8k_of_a_local_file_scores_as_the_harness_scores_it(base, adapter, questions):
    inputs = TaskInputs(tokenizer=base.tokenizer, context_tokens=48, file=questions)
    found = run_benchmark(base, "gsm8k", inputs, limit=2)
    assert found.num_examples == 2
    assert {(score.metric, score.filter) for score in found.scores} == {
        ("exact_match", "strict-match"),
        ("exact_match", "flexible-extract"),
    }
    expected = by_harness_alone(adapter, "gsm8k", inputs)
    first = [s for s in expected["samples"]["gsm8k"] if s["doc_id"] < 2]
    assert [e["got"] for e in found.examples] == [s["filtered_resps"][0] for s in first]
    assert found.examples[0]["prompt"] == "Question: What is 1 + 1?\nAnswer:"


@pytest.fixture
def few_tasks(monkeypatch):
    """One of the harness's folders in place of its 14,000 tasks, which take seconds to read."""
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent / "arc"
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=str(folder))
    monkeypatch.setattr(benchmarks, "_own_tasks", lambda: manager)


def test_an_unknown_task_is_refused_with_the_nearest(few_tasks):
    with pytest.raises(EvaluationError, match=r"no such task. Did you mean arc_easy.*Without a hub"):
        require_benchmark("arc_eazy")
    with pytest.raises(EvaluationError, match=r"Did you mean gsm8k\?"):
        require_benchmark("gsm8kk")
    require_benchmark("skills")
    require_benchmark("arc_easy")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(benchmarks.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EvaluationError, match=r"pip install 'rankwise\[bench\]'"):
        require_benchmark("skills")


def test_what_the_hub_does_not_give_is_said(base, inputs, few_tasks):
    with pytest.raises(EvaluationError, match=r"arc_easy: its data set cannot be had from the hub"):
        run_benchmark(base, "arc_easy", inputs)


def test_a_file_without_the_columns_is_refused(base, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "a", "solution": "b"}\n')
    with pytest.raises(DataError, match=r"line 1 has no text under 'answer' \(found: 'question', 'solution'\)"):
        run_benchmark(base, "gsm8k", TaskInputs(tokenizer=base.tokenizer, context_tokens=64, file=file))
    with pytest.raises(EvaluationError, match="skills reads no file"):
        check_file("skills", file)
