"""Tasks of lm-evaluation-harness that need no hub: their examples are made or read here.

A task is a configuration as the harness's YAML files are (its `docs/task_guide.md`), with examples in the place of a
data set's name. `LOCAL_TASKS` lists them; every other name is one of the harness's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

from rankwise.data.examples import Example
from rankwise.data.files import read_rows
from rankwise.data.templates import Template, build_prompt
from rankwise.errors import DataError, EvaluationError
from rankwise.evaluation.generation import is_exact_match

TaskSettings = dict[str, Any]
"""What `lm_eval.api.task.ConfigurableTask` takes."""


@dataclass(frozen=True, kw_only=True)
class TaskInputs:
    """All that a local task may be made from."""

    tokenizer: PreTrainedTokenizerBase
    context_tokens: int
    """Longest sequence of the model."""
    template: Template = "alpaca"
    examples: Sequence[Example] = ()
    """Of `skills`."""
    file: Path | None = None
    """Given by the caller, for a task that reads one."""


def skills_task(inputs: TaskInputs) -> TaskSettings:
    """The embedded instruction set: prompts by the adapter's template, greedy answers up to the end token, exact match
    as `rankwise evaluate --data skills` counts it."""
    answers = [example.output for example in inputs.examples]
    longest = max(len(ids) for ids in inputs.tokenizer(answers, add_special_tokens=False)["input_ids"]) + 1
    documents = [
        {"prompt": build_prompt(example, inputs.template, inputs.tokenizer), "answer": example.output}
        for example in inputs.examples
    ]
    return {
        "task": "skills",
        "custom_dataset": _examples(documents),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "process_results": lambda doc, results: {"exact_match": float(is_exact_match(results[0], doc["answer"]))},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": {
            "until": [inputs.tokenizer.eos_token],
            "max_gen_toks": min(longest, inputs.context_tokens // 2),
            "do_sample": False,
        },
        "num_fewshot": 0,
    }


def gsm8k_task(inputs: TaskInputs) -> TaskSettings:
    """GSM8K (Cobbe et al., arXiv:2110.14168) of a local file, one object with `question` and `answer` a line: the
    harness's own task `gsm8k` (prompt, stops, both ways to read the number), without examples before the question,
    since the training split that it takes them from is not in the file."""
    assert inputs.file is not None
    documents = [_question(row.place, row.fields, inputs.file) for row in read_rows(inputs.file)]
    settings = _own_settings("gsm8k/gsm8k.yaml")
    for name in ("dataset_path", "dataset_name", "training_split", "fewshot_split", "tag"):
        settings.pop(name, None)
    generation = {**settings.get("generation_kwargs", {}), "max_gen_toks": min(256, inputs.context_tokens // 2)}
    return {
        **settings,
        "custom_dataset": _examples(documents),
        "test_split": "test",
        "generation_kwargs": generation,
        "num_fewshot": 0,
    }


LOCAL_TASKS: Mapping[str, Callable[[TaskInputs], TaskSettings]] = {"skills": skills_task, "gsm8k": gsm8k_task}
"""`gsm8k` without a file is the harness's own, from the hub."""
NEEDS_FILE = ("gsm8k",)
"""Those that read one."""


def _own_settings(path: str) -> TaskSettings:
    """The configuration of one of the harness's own tasks."""
    import lm_eval.tasks

    settings: TaskSettings = yaml.safe_load((Path(lm_eval.tasks.__file__).parent / path).read_text("utf-8"))
    return settings


def _question(place: str, fields: Mapping[str, Any], file: Path) -> dict[str, str]:
    missing = [name for name in ("question", "answer") if not isinstance(fields.get(name), str)]
    if missing:
        raise DataError(
            f"--benchmark-data {file}: {place} has no text under {' and '.join(map(repr, missing))} (found: "
            f"{', '.join(map(repr, fields)) or 'nothing'}). gsm8k needs question and answer in every row."
        )
    return {"question": fields["question"], "answer": fields["answer"]}


def _examples(documents: Sequence[Mapping[str, str]]) -> Callable[..., Any]:
    """A data set as the harness asks for it: with the task's metadata, which changes nothing here."""

    def load(**_metadata: Any) -> Any:
        from datasets import Dataset

        return {"test": Dataset.from_list([dict(document) for document in documents])}

    return load


def check_file(name: str, file: Path | None) -> None:
    """Raises EvaluationError where a file is given to a task that reads none."""
    if file is not None and name not in NEEDS_FILE:
        raise EvaluationError(
            f"--benchmark-data {file}: {name} reads no file; {', '.join(NEEDS_FILE)} does. Leave it out."
        )
