"""One run to one adapter folder: the same as in a study, whatever happens on the way."""

from pathlib import Path

import numpy as np
import pytest

from rankwise.errors import AdapterError, RunFailedError
from rankwise.execution.adapter_record import RECORD_NAME, AdapterRecord, read_record
from rankwise.execution.load_adapted import load_adapted
from rankwise.execution.observer import Observer
from rankwise.execution.run_study import run_study
from rankwise.execution.study_options import StudyOptions, StudyStopped
from rankwise.execution.train_one import train_one
from rankwise.ledger import open_ledger
from rankwise.lora.peft_folder import CONFIG_NAME, read_peft_folder
from rankwise.records import Record, StepDone
from rankwise.study import parse_study
from rankwise.study.config import Study

ONE = """
name: one
hypothesis: One run.
base: {{model: {folder}, dtype: float32}}
data: {{source: skills, max_tokens: 128, train: 8, validation: 6, test: 6}}
budget: {{rank: 2}}
train: {{epochs: 1, batch_size: 2, learning_rates: [{rate}]}}
arms: [linear_decay]
seeds: 1
compare: {{baseline: linear_decay}}
"""


class Steps(Observer):
    """Counts optimizer steps, and asks to stop after so many."""

    def __init__(self, stop_after: int = 10_000) -> None:
        self.num = 0
        self.stop_after = stop_after

    def records(self, records: list[Record]) -> None:
        self.num += sum(isinstance(record, StepDone) for record in records)

    def should_stop(self) -> bool:
        return self.num >= self.stop_after


@pytest.fixture(scope="session")
def one(small_model) -> Study:
    return parse_study(ONE.format(folder=small_model, rate="3.0e-3"), origin="one.yaml")


def train(study: Study, folder: Path, ledger: Path, steps: Steps | None = None) -> AdapterRecord:
    steps = steps or Steps()
    with open_ledger(str(ledger)) as opened:
        return train_one(study, opened, folder, observer=steps, should_stop=steps.should_stop)


def assert_same_adapter(first: Path, second: Path) -> None:
    ours, theirs = read_peft_folder(first)[1], read_peft_folder(second)[1]
    assert ours.keys() == theirs.keys()
    for name, pair in ours.items():
        assert all(np.array_equal(a, b) for a, b in zip(pair, theirs[name], strict=True))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_adapter_is_that_of_the_same_run_in_a_study(one, tmp_path):
    record = train(one, tmp_path / "adapter", tmp_path / "one.db")
    with open_ledger(str(tmp_path / "study.db")) as ledger:
        (run,) = run_study(one, ledger, StudyOptions(out=tmp_path / "study")).runs
    assert record.run_id == run.id
    assert record.scores == run.scores
    assert record.ranks == {site.site: site.realised_rank for site in run.sites}
    assert len(set(record.ranks.values())) > 1
    assert record.params == run.params <= record.budget_params
    assert_same_adapter(tmp_path / "adapter", tmp_path / "study" / "adapters" / run.id)


def test_the_folder_explains_itself_and_nothing_else_is_left(one, small_model, tmp_path):
    record = train(one, tmp_path / "new" / "adapter", tmp_path / "one.db")
    assert names(tmp_path / "new") == ["adapter"]
    assert names(tmp_path / "new" / "adapter") == [CONFIG_NAME, "adapter_model.safetensors", RECORD_NAME]
    assert read_record(tmp_path / "new" / "adapter") == record
    assert record.base.model == str(small_model)
    assert record.data.source == "skills"
    assert record.spec["learning_rate"] == 3e-3
    assert record.environment["torch"]
    base, again = load_adapted(str(tmp_path / "new" / "adapter"))
    assert again == record
    adapted = {name for name, module in base.model.named_modules() if hasattr(module, "lora_A")}
    assert adapted == set(record.ranks)


def test_a_finished_run_is_not_trained_again(one, tmp_path):
    first = train(one, tmp_path / "adapter", tmp_path / "one.db")
    steps = Steps()
    assert train(one, tmp_path / "adapter", tmp_path / "one.db", steps) == first
    assert steps.num == 0
    assert names(tmp_path) == ["adapter", "one.db"]


def test_an_adapter_that_lies_elsewhere_is_made_again_for_a_new_folder(one, tmp_path):
    first = train(one, tmp_path / "first", tmp_path / "one.db")
    second = train(one, tmp_path / "second", tmp_path / "one.db")
    assert second.run_id == first.run_id
    assert second.scores == first.scores
    assert_same_adapter(tmp_path / "first", tmp_path / "second")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".training")]


def test_a_stopped_run_goes_on_and_ends_with_the_same_adapter(one, tmp_path):
    train(one, tmp_path / "whole", tmp_path / "whole.db")
    with pytest.raises(StudyStopped):
        train(one, tmp_path / "adapter", tmp_path / "one.db", Steps(stop_after=2))
    assert not (tmp_path / "adapter").exists()
    steps = Steps()
    train(one, tmp_path / "adapter", tmp_path / "one.db", steps)
    assert steps.num == 2
    assert_same_adapter(tmp_path / "whole", tmp_path / "adapter")
    assert not (tmp_path / "adapter.training").exists()


def test_a_diverged_run_fails_and_leaves_no_adapter(small_model, tmp_path):
    study = parse_study(ONE.format(folder=small_model, rate="1.0e+30"), origin="one.yaml")
    for _ in range(2):  # the second time from the ledger
        with pytest.raises(RunFailedError) as error:
            train(study, tmp_path / "adapter", tmp_path / "one.db")
        assert error.value.exit_code == 1
        assert all(word in str(error.value) for word in ("diverged", "step", "1e+30", "--learning-rate"))
        assert [name for name in names(tmp_path) if "adapter" in name] == []


def test_the_adapter_of_another_run_is_never_replaced(one, small_model, tmp_path):
    train(one, tmp_path / "adapter", tmp_path / "one.db")
    other = parse_study(ONE.format(folder=small_model, rate="1.0e-3"), origin="one.yaml")
    renamed = other.model_copy(update={"name": "other"})
    before = (tmp_path / "adapter" / RECORD_NAME).read_bytes()
    with pytest.raises(AdapterError, match="another run"):
        train(renamed, tmp_path / "adapter", tmp_path / "one.db")
    assert (tmp_path / "adapter" / RECORD_NAME).read_bytes() == before


def test_a_place_that_cannot_be_used_is_refused_before_training(one, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    steps = Steps()
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex", tmp_path / "thesis" / "chapter.tex" / "a"):
        with pytest.raises(AdapterError, match="--out"):
            train(one, place, tmp_path / "one.db", steps)
    assert steps.num == 0
    assert names(tmp_path / "thesis") == ["chapter.tex"]


def test_a_record_that_is_none_is_refused(tmp_path):
    (tmp_path / RECORD_NAME).write_text("{}")
    with pytest.raises(AdapterError, match="rankwise train"):
        read_record(tmp_path)
    assert read_record(tmp_path / "elsewhere") is None


def test_a_file_never_switches_on_remote_code(one, tmp_path):
    record = train(one, tmp_path / "adapter", tmp_path / "one.db")
    path = tmp_path / "adapter" / RECORD_NAME
    path.write_text(path.read_text().replace('"trust_remote_code": false', '"trust_remote_code": true'))
    loaded, read = load_adapted(str(tmp_path / "adapter"))
    assert read.base.trust_remote_code
    assert not loaded.settings.trust_remote_code
    assert loaded.settings.model == record.base.model
