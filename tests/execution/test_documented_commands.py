"""Every command line that the documentation shows is run, in a reduced form, in a folder that has the files it names.

What is reduced is listed here and nowhere else: models and data are small, studies have three arms and two seeds, and
`NOT_RUN` says which lines are only parsed (tests/test_docs.py does that with all of them), and which test runs their like.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rankwise.cli.main import app
from rankwise.ledger import open_ledger
from tests.test_docs import ROOT, shown_commands

STUDY_DATA = {"source": "skills", "max_tokens": 128, "train": 8, "validation": 4, "test": 4}
STUDY_TRAINING = {"epochs": 1, "batch_size": 4, "learning_rates": [1.0e-3], "eval_every_frac": 1.0}
KEPT_ARMS, NUM_SEEDS, LARGEST_RANK = 3, 2, 4

SAME_MODEL = {"nano", "microsoft/phi-2", "path/to/model", "models/DialoGPT-medium"}
"""In their place stands a decoder of width 16 with nano's tokenizer."""
SAME_DATA = {
    "alpaca": "alpaca_data.json",
    "path/to/alpaca_random_9k.json": "alpaca_data.json",
    "path/to/alpaca.json": "alpaca_data.json",
}
SAME_DATA["path/to/gsm8k/train.jsonl"] = "questions.jsonl"
FEWER_PARAMS = {"5000000": "2000"}
APPENDED = {
    "train": "--train-examples 8 --validation 4 --test 4 --epochs 1 --rank 2",
    "evaluate": "--num 2",
    "data": "--num-samples 20",
}
"""Options that come last, so that they count."""
NOT_RUN = {
    r"recommend ": "a race of ten seconds: tests/cli/test_recommend.py",
    r"report results/embedded$": "the study by its folder; by its name it is run",
    r"profile ": "a process for each rank: tests/cli/test_profile.py",
    r"report .*--pdf": "TeX: tests/reporting/paper",
    r"report .*--serve": "ends with Ctrl-C: tests/cli/test_report.py",
    r"evaluate .*--benchmark": "the extra `bench`: tests/evaluation/test_benchmarks.py",
    r"runs push .*--to (mlflow|wandb)": "a server, a process of its own: tests/tracking",
    r"study .*postgresql": "a server: tests/ledger",
    r"data prepare SOURCE": "a synopsis",
    r"study$": "the embedded study, whole; its file is run",
}
DRY = re.compile(r"study (?!studies/embedded\.yaml$)")
"""Studies that are planned with --dry-run; one is trained, and every other command rests on it."""


def lines() -> list[str]:
    return sorted({line.removeprefix("rankwise ") for _, line in shown_commands()})


def runnable() -> list[str]:
    return [line for line in lines() if not any(re.match(pattern, line) for pattern in NOT_RUN)]


def reduced(study: dict, model: Path) -> dict:
    """The same study on a small model: its first arms, as they are but for sizes."""
    arms = []
    for arm in [{"strategy": arm} if isinstance(arm, str) else dict(arm) for arm in study["arms"]][:KEPT_ARMS]:
        arms.append({key: value for key, value in arm.items() if key not in {"base", "train"}} | small_budget(arm))
    targets = {} if study["base"]["model"] == "nano" or "targets" not in study else {"targets": study["targets"]}
    small = {"base": {"model": str(model), "dtype": "float32"}, "data": STUDY_DATA, "train": STUDY_TRAINING}
    whole = {key: study[key] for key in ("name", "hypothesis", "scaling", "compare") if key in study}
    return {
        **whole,
        **small,
        "evaluate": {"generate": True},
        **targets,
        **small_budget(study),
        "arms": arms,
        "seeds": NUM_SEEDS,
    }


def small_budget(settings: dict) -> dict:
    rank = settings.get("budget", {}).get("rank")
    return {"budget": {"rank": min(rank or LARGEST_RANK, LARGEST_RANK)}} if "budget" in settings else {}


def call(words: list[str]) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    return result.stdout


@pytest.fixture(scope="module")
def model(small_model, tmp_path_factory) -> Path:
    """The small model with the context that every default fits: its positions are rotary, so its weights stay."""
    folder = tmp_path_factory.mktemp("documented") / "model"
    shutil.copytree(small_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return folder


@pytest.fixture(scope="module")
def world(model, tmp_path_factory) -> Path:
    """A folder with the files that the lines name: studies, data, one trained study, an adapter."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "studies").mkdir()
    for file in (ROOT / "studies").glob("*.yaml"):
        (folder / "studies" / file.name).write_text(yaml.safe_dump(reduced(yaml.safe_load(file.read_text()), model)))
    quickstart = re.search(r"^```yaml\n(name: my-study.*?)^```", (ROOT / "docs/quickstart.md").read_text(), re.M | re.S)
    (folder / "my-study.yaml").write_text(yaml.safe_dump(reduced(yaml.safe_load(quickstart[1]), model)))
    rows = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}"} for number in range(40)]
    (folder / "alpaca_data.json").write_text(json.dumps(rows))
    (folder / "my-data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [{"question": row["instruction"], "answer": row["output"]} for row in rows]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))

    unread = shutil.ignore_patterns("figures", "*.md", "overview.*")
    shutil.copytree(ROOT / "docs" / "results", folder / "docs" / "results", ignore=unread)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RANKWISE_LEDGER", str(folder / "rankwise.db"))
        call(["study", "studies/embedded.yaml"])
        train = f"train --model {model} --strategy linear_decay {APPENDED['train']}"
        call([*shlex.split(train), "--data", "skills", "--out", "adapter"])
        call([*shlex.split(train), "--data", "my-data.jsonl", "--out", "my-adapter"])
    for name in ("first-adapter", "second-adapter"):
        shutil.copytree(folder / "adapter", folder / name)
    return folder


def expanded(word: str) -> list[str]:
    """What a shell makes of `studies/*.yaml` and `results/{a,b}`."""
    if choices := re.fullmatch(r"(.*)\{(.*)\}(.*)", word):
        return [choices[1] + choice + choices[3] for choice in choices[2].split(",")]
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def words_of(line: str, model: Path, ids: list[str]) -> list[str]:
    named = {
        **dict.fromkeys(SAME_MODEL, str(model)),
        **SAME_DATA,
        **FEWER_PARAMS,
        **dict(zip(("3f9a", "b07c"), ids, strict=True)),
    }
    words = [named.get(word, word) for word in shlex.split(line)]
    files = [name for word in words for name in expanded(word)]
    dry = ["--dry-run"] if DRY.match(line) and "--dry-run" not in files else []
    return [*files, *shlex.split(APPENDED.get(words[0], "")), *dry]


@pytest.mark.parametrize("line", runnable())
def test_a_line_of_the_documentation_runs(line, world, model, tmp_path, monkeypatch):
    if "tensorboard" in line:
        pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    if "nf4" in line or "int8" in line:
        pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    place = tmp_path / "here"
    written = re.search(r"--out (\S+)", line)  # a folder that the line writes is not there yet
    shutil.copytree(
        world, place, ignore=shutil.ignore_patterns(written[1] if written else "", "checkpoints", "figures")
    )
    monkeypatch.chdir(place)
    monkeypatch.setenv("RANKWISE_LEDGER", str(place / "rankwise.db"))
    with open_ledger(str(place / "rankwise.db"), create=False) as ledger:
        runs = ledger.study_results("embedded").runs
    printed = call(words_of(line, model, [run.id for run in runs if run.purpose == "report"][:2]))
    assert printed or "--out" in line
    if "--json" in line:
        assert json.loads(printed)
    if written:
        assert Path(written[1]).exists()


def test_every_line_that_is_not_run_has_its_reason():
    """A pattern that matches no line any more is removed."""
    assert all(any(re.match(pattern, line) for line in lines()) for pattern in NOT_RUN)
    assert len(runnable()) > len(lines()) / 2


def test_the_quickstart_loads_its_adapter_in_peft(world, model, monkeypatch, capsys):
    monkeypatch.chdir(world)
    block = re.search(r"^```python\n(.*?)^```", (ROOT / "docs/quickstart.md").read_text(encoding="utf-8"), re.M | re.S)[
        1
    ]
    nano = 'str(resources.files("rankwise") / "assets" / "nano")'
    assert nano in block
    exec(compile(block.replace(nano, repr(str(model))), "docs/quickstart.md", "exec"), {})
    assert "### Response:" in capsys.readouterr().out
