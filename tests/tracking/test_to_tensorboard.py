"""TensorBoard's own reader finds in the event files what the ledger has."""

import math

import pytest

pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from rankwise.tracking import Place, open_tracker


@pytest.fixture
def root(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def read(root, outcomes):
    """Pushes, and reads the folder of one run."""
    outcomes(open_tracker("tensorboard", Place(out=root)))

    def of(key):
        (folder,) = (path for path in (root / "sample").iterdir() if path.name.endswith(key))
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
        found.Reload()
        return found

    return of


def test_scalars_are_the_curves_and_the_scores(read, results):
    run = results.reported("linear_decay")[0]
    events = read(run.id)
    got = [(event.step, event.value) for event in events.Scalars("training_loss")]
    assert got == [(point.step, pytest.approx(point.value)) for point in run.training_curve]
    (final,) = events.Scalars("test_loss")
    assert (final.step, final.value) == (8, pytest.approx(run.scores["test_loss"]))
    assert final.wall_time == pytest.approx(run.finished_at)
    ranks = events.Scalars("rank/model.layers.0.self_attn.q_proj")
    assert [(event.step, event.value) for event in ranks] == [(0, 6), (2, 5), (4, 6)]


def test_what_is_not_a_number_stays_so(read, results):
    (diverged,) = (run for run in results.runs if run.status == "diverged")
    events = read(diverged.id)
    assert math.isnan(events.Scalars("training_loss")[-1].value)
    assert math.isinf(events.Scalars("grad_norm")[-1].value)
    assert b"diverged" in events.Tensors("rankwise.status")[0].tensor_proto.string_val[0]


def test_parameters_are_those_of_the_parameter_page(read, results):
    run = results.reported("uniform")[1]
    content = read(run.id).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    parameters = data.session_start_info.hparams
    assert parameters["arm.strategy"].string_value == "uniform"
    assert parameters["learning_rate"].number_value == 1e-3
    assert parameters["seed"].number_value == 1


def test_the_report_is_text_and_pictures(read):
    events = read("report")
    assert b"**undecided**" in events.Tensors("RESULTS.md")[0].tensor_proto.string_val[0]
    (image,) = events.Images("figures/tuning.png")
    assert (image.width, image.height) == (2, 1)


def test_pushing_twice_changes_no_byte_and_more_results_replace_the_file(root, outcomes, options):
    tracker = open_tracker("tensorboard", Place(out=root))
    assert outcomes(tracker) == {"new": 15}
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    assert outcomes(open_tracker("tensorboard", Place(out=root))) == {"there": 15}
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    assert after == before
    (options.results / "sample" / "RESULTS.md").write_text("# Sample\n\nbetter")
    assert outcomes(tracker) == {"there": 14, "completed": 1}
    assert len(list(root.rglob("events*"))) == 15
