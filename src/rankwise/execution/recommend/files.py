"""What a recommendation leaves in its folder, `recommendation.json` last, so that whoever finds it finds all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.allocation import check_patterns
from rankwise.data.templates import build_prompt
from rankwise.errors import AdapterError
from rankwise.execution.adapter_record import AdapterRecord, write_record
from rankwise.execution.recommend.answer import Answer
from rankwise.execution.recommend.confirm import Finalist
from rankwise.execution.recommend.document import answer_dict, answer_markdown
from rankwise.execution.recommend.race import FIRST_RACE_SEED
from rankwise.execution.recommend.snippet import SCRIPT_NAME, TRAIN_NAME, loadable_name, training_script
from rankwise.execution.train_one import train_one
from rankwise.execution.workbench import Workbench
from rankwise.ledger import Ledger, RunRow
from rankwise.lora.peft_folder import CONFIG_NAME, replace_folder
from rankwise.models.tokenizer import load_tokenizer
from rankwise.reporting.write import write_report
from rankwise.study.config import CompareSettings, Study
from rankwise.study.runs import Run

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER_NAME = "adapter"
PAGE_NAME = "RECOMMENDATION.md"
RESULT_NAME = "recommendation.json"
EVIDENCE_NAME = "evidence"


def write_answer(
    answer: Answer, ledger: Ledger, out: Path, bench: Workbench, *, command: str, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """Write everything; returns the content of recommendation.json.

    Raises:
        AdapterError, ReportError: the folder cannot be written.
        AuditError: a pattern of the PEFT configuration does not match exactly one module.
        StudyStopped: `should_stop` answered True while a missing adapter was made again.
    """
    chosen = answer.judgement.finalist(answer.judgement.recommended)
    names = {"page": PAGE_NAME, "config": CONFIG_NAME, "script": SCRIPT_NAME, "train": TRAIN_NAME}
    try:
        if answer.confirmed is not None and chosen.run_ids:
            _place_adapter(answer, chosen, out, ledger, should_stop)
            write_report(answer.confirmed, out / EVIDENCE_NAME)
            names |= {"adapter": ADAPTER_NAME, "evidence": f"{EVIDENCE_NAME}/RESULTS.md"}
        _write_config(_config(answer, chosen, out, bench), chosen, bench, out)
        _write_text(out / TRAIN_NAME, _training_lines(chosen, bench))
        resolved = bench.shape(chosen.arm.base).settings
        num_examples = len(bench.data(chosen.arm).train)
        _write_text(out / SCRIPT_NAME, training_script(chosen.arm, resolved, num_examples=num_examples))
        _write_text(out / PAGE_NAME, answer_markdown(answer, command=command))
        document = answer_dict(answer, {name: str(out / place) for name, place in names.items()})
        _write_text(out / RESULT_NAME, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise AdapterError(
            f"The recommendation cannot be written into {out}: {error.strerror or error}. Make room, and give the same "
            "command again; the ledger holds every run."
        ) from error
    return document


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def chosen_run(answer: Answer, chosen: Finalist) -> RunRow:
    """Of the confirming runs the one of lowest validation loss: test data chooses no adapter either."""
    assert answer.confirmed is not None
    runs = [run for run in answer.confirmed.reported(chosen.arm.name) if run.id in chosen.run_ids]
    return min(runs, key=lambda run: run.scores["validation_loss"])


def _place_adapter(
    answer: Answer, chosen: Finalist, out: Path, ledger: Ledger, should_stop: Callable[[], bool]
) -> None:
    """Copy the winner's adapter to `adapter`; train it again where its run was another command's and lies elsewhere."""
    assert answer.confirmed is not None
    run = chosen_run(answer, chosen)
    made, target = out / "adapters" / run.id, out / ADAPTER_NAME
    if not made.is_dir():
        study = Study(
            name=f"{answer.question.name}-adapter",
            hypothesis="One run, for its adapter.",
            arms=(chosen.arm,),
            seeds=(run.seed,),
            compare=CompareSettings(baseline=chosen.arm.name),
        )
        shutil.rmtree(target, ignore_errors=True)
        train_one(study, ledger, target, should_stop=should_stop)
        return
    partial = out / f"{ADAPTER_NAME}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(made, partial)
    write_record(partial, AdapterRecord.of(chosen.arm, run, answer.confirmed))
    replace_folder(partial, target)


def _config(answer: Answer, chosen: Finalist, out: Path, bench: Workbench) -> "LoraConfig":
    """As the adapter has it; where none was trained, allocated now."""
    from peft import LoraConfig

    if (out / ADAPTER_NAME / CONFIG_NAME).is_file() and chosen.run_ids:
        config = LoraConfig.from_pretrained(str(out / ADAPTER_NAME))
    else:
        run = Run(
            arm=chosen.arm,
            learning_rate=chosen.learning_rate,
            seed=FIRST_RACE_SEED,
            base_fingerprint="",
            data_fingerprint="",
        )
        rank_map = bench.allocator(chosen.arm.base).allocate(run, bench.data(chosen.arm)).rank_map
        config = rank_map.to_peft()
        config.lora_dropout = chosen.arm.dropout
    config.inference_mode = False
    config.base_model_name_or_path = loadable_name(chosen.arm.base)
    return config


def _write_config(config: "LoraConfig", chosen: Finalist, bench: Workbench, out: Path) -> None:
    modules = [name for name, _ in bench.shape(chosen.arm.base).model.named_modules()]
    check_patterns(config.to_dict(), modules)
    partial = out / "config.partial"
    shutil.rmtree(partial, ignore_errors=True)
    config.save_pretrained(str(partial))
    (partial / CONFIG_NAME).replace(out / CONFIG_NAME)
    shutil.rmtree(partial)


def _training_lines(chosen: Finalist, bench: Workbench) -> str:
    """The training examples as prompt and answer, a JSON object a line."""
    tokenizer = load_tokenizer(chosen.arm.base)
    template = chosen.arm.data.template
    rows = (
        {"prompt": build_prompt(example, template, tokenizer), "answer": example.output}
        for example in bench.data(chosen.arm).examples["train"]
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
