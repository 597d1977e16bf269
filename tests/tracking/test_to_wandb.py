"""Weights & Biases offline: what its own files hold. Online, only that errors are readable: no service is asked."""

import json
import struct

import pytest

pytest.importorskip("wandb", reason="the extra `trackers` is not installed")

import wandb
from wandb.proto.wandb_internal_pb2 import Record

from rankwise.errors import TrackerError
from rankwise.tracking import Place, PushOptions, open_tracker
from rankwise.tracking.entry import report_entry, run_entry
from rankwise.tracking.to_wandb import WandbTracker

HEAD, BLOCK = 7, 2**15
WHOLE, LAST = 1, 4


def read_records(data):
    """W&B's transaction log: LevelDB's, blocks of records with checksum, length and kind (whole, first, middle, last)."""
    position, parts = HEAD, b""
    while position + HEAD <= len(data):
        if (left := BLOCK - position % BLOCK) < HEAD:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + HEAD])
        parts += data[position + HEAD : position + HEAD + length]
        position += HEAD + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def run(results):
    return results.reported("linear_decay")[0]


@pytest.fixture
def chosen(options, run):
    return PushOptions(results=options.results, run_ids={run.id})


def test_an_offline_run_has_settings_history_summary_and_files(root, outcomes, chosen, run):
    place = Place(out=root, project="mine", offline=True)
    assert outcomes(open_tracker("wandb", place), chosen) == {"new": 1}
    (file,) = root.rglob("*.wandb")
    records = list(read_records(file.read_bytes()))
    (begun,) = (record.run for record in records if record.HasField("run"))
    assert (begun.project, begun.run_group, begun.job_type) == ("mine", "sample", "report")
    assert begun.run_id.startswith(f"{run.id}-")
    config = values(begun.config.update)
    assert (config["arm.base.model"], config["learning_rate"], config["rankwise.run_id"]) == ("nano", 1e-3, run.id)
    history = [values(record.history.item) for record in records if record.HasField("history")]
    assert [row["_step"] for row in history] == list(range(9))
    assert [row.get("training_loss") for row in history[1:]] == [point.value for point in run.training_curve]
    summary = {}
    for record in records:
        summary |= values(record.summary.update) if record.HasField("summary") else {}
    assert summary["test_loss"] == run.scores["test_loss"]
    saved = {one.path for record in records if record.HasField("files") for one in record.files.files}
    assert {"run.json", "sites.json"} <= saved
    assert json.loads((file.parent / "files" / "run.json").read_text())["spec"] == run.spec

    paths = sorted(root.rglob("*"))
    assert outcomes(open_tracker("wandb", place), chosen) == {"there": 1}
    assert sorted(root.rglob("*")) == paths


def test_pictures_of_the_report_are_media(root, options, results):
    tracker = open_tracker("wandb", Place(out=root, offline=True))
    assert tracker.push(report_entry(results, options.results / "sample")) == "new"
    assert list(root.rglob("media/images/figures/tuning*.png"))
    assert list(root.rglob("files/RESULTS.md"))


def test_a_run_begun_and_not_ended_is_begun_anew(root, outcomes, chosen, monkeypatch):
    def fail(*_args, **_kwargs):
        raise wandb.Error("the service went away")

    place = Place(out=root, offline=True)
    with monkeypatch.context() as patch:
        patch.setattr("rankwise.tracking.to_wandb._log", fail)
        with pytest.raises(TrackerError, match=r"was not pushed \(the service went away\).*--offline"):
            outcomes(open_tracker("wandb", place), chosen)
    assert not list(root.rglob("*.wandb"))
    assert outcomes(open_tracker("wandb", place), chosen) == {"new": 1}
    assert len(list(root.rglob("*.wandb"))) == 1


def test_without_credentials_nothing_is_asked_on_the_terminal(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrackerError, match=r"there are no credentials. Run `wandb login`"):
        open_tracker("wandb", Place())


class FakeRun:
    """What the service would remember of a run, for the online path."""

    def __init__(self, folder, *, step=0, digest=None):
        self.resumed, self.step, self.summary, self.dir = digest is not None, step, {}, str(folder)
        if digest is not None:
            self.summary["rankwise_digest"] = digest
        self.logged = []

    def log(self, row, step):
        self.logged.append(step)

    def save(self, *_args, **_kwargs):
        pass

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.mark.parametrize(
    ("digest", "step", "outcome", "steps"),
    [(None, 0, "new", list(range(9))), ("of before", 5, "completed", [5, 6, 7, 8]), ("same", 9, "there", [])],
)
def test_online_a_run_goes_on_from_the_step_that_is_there(
    tmp_path, monkeypatch, results, run, digest, step, outcome, steps
):
    entry = run_entry(results, [run], {}, tmp_path / "none")
    fake = FakeRun(tmp_path, step=step, digest=entry.digest if digest == "same" else digest)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr("rankwise.tracking.to_wandb._begin", lambda *_: fake)
    assert WandbTracker("mine").push(entry) == outcome
    assert fake.logged == steps
    assert fake.exit_code == 0
    assert fake.summary["rankwise_digest"] == entry.digest
