"""MLflow on a database of its own; on a server, too, where RANKWISE_TEST_MLFLOW names one that may be written to."""

import math
import os
import uuid

import pytest

pytest.importorskip("mlflow", reason="the extra `trackers` is not installed")
pytest.importorskip("alembic", reason="MLflow's databases need alembic")

from mlflow import MlflowClient

from rankwise.errors import TrackerError
from rankwise.tracking import Place, open_tracker
from rankwise.tracking.push import entries
from rankwise.tracking.to_mlflow import MAX_TEXT, MlflowTracker

# MLflow asks SQLAlchemy 2.1 for what it will drop.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Made once: MLflow takes seconds to make its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(params=["database", "server"])
def uri(request, database):
    if request.param == "database":
        return database
    if not (address := os.environ.get("RANKWISE_TEST_MLFLOW")):
        pytest.skip("no MLflow server: RANKWISE_TEST_MLFLOW names none")
    return address


@pytest.fixture
def project(uri, tmp_path, monkeypatch):
    """A new experiment, whose artifacts go to the test's folder."""
    monkeypatch.chdir(tmp_path)
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def place(uri, project):
    return Place(uri=uri, project=project)


@pytest.fixture
def few(ledger, options, results):
    """A run that moved its ranks, one that diverged, and the report."""
    diverged = next(run.id for run in results.runs if run.status == "diverged")
    wanted = {results.reported("linear_decay")[0].id, diverged, "report"}
    return [entry for entry in entries(ledger, options) if entry.key in wanted]


def push_all(few, place):
    tracker = open_tracker("mlflow", place)
    return [tracker.push(entry) for entry in few]


def remote_runs(place):
    """By the ledger's id."""
    client = MlflowClient(tracking_uri=place.uri)
    experiment = client.get_experiment_by_name(place.project)
    return client, {run.data.tags["rankwise.run_id"]: run for run in client.search_runs([experiment.experiment_id])}


def history(client, run, name):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_runs_have_parameters_curves_scores_artifacts_and_links(place, few, results):
    assert push_all(few, place) == ["new"] * 3
    client, runs = remote_runs(place)
    run = results.reported("linear_decay")[0]
    got = runs[run.id]
    assert got.info.run_name == "linear_decay seed 0 rate 0.001"
    assert (got.info.status, got.info.end_time) == ("FINISHED", round(1000 * run.finished_at))
    assert got.data.params["arm.base.model"] == "nano"
    assert got.data.params["arm.strategy"] == "linear_decay"
    assert (got.data.tags["rankwise.study"], got.data.tags["rankwise.arm"]) == ("sample", "linear_decay")
    assert history(client, got, "training_loss") == [(point.step, point.value) for point in run.training_curve]
    assert history(client, got, "test_loss") == [(8, run.scores["test_loss"])]
    assert history(client, got, "rank/model.layers.0.self_attn.q_proj") == [(0, 6), (2, 5), (4, 6)]
    assert {file.path for file in client.list_artifacts(got.info.run_id)} == {"run.json", "sites.json"}
    assert {file.path for file in client.list_artifacts(runs["report"].info.run_id)} == {"RESULTS.md", "figures"}
    diverged = next(one for one in results.runs if one.status == "diverged")
    assert runs[diverged.id].info.status == "FAILED"
    assert math.isnan(history(client, runs[diverged.id], "training_loss")[-1][1])


def test_pushing_twice_adds_nothing(place, few, results):
    push_all(few, place)
    client, before = remote_runs(place)
    assert push_all(few, place) == ["there"] * 3
    after = remote_runs(place)[1]
    assert {key: str(run.to_dictionary()) for key, run in after.items()} == {
        key: str(run.to_dictionary()) for key, run in before.items()
    }
    run = results.reported("linear_decay")[0]
    assert len(history(client, after[run.id], "training_loss")) == len(run.training_curve)


@pytest.mark.parametrize("last_call", ["log_batch", "log_artifacts", "set_terminated"])
def test_a_run_pushed_in_part_is_completed(place, outcomes, results, options, monkeypatch, last_call):
    run = results.reported("uniform")[0]
    chosen = type(options)(results=options.results, run_ids={run.id})
    tracker = open_tracker("mlflow", place)
    call = getattr(tracker._client, last_call)

    def broken(run_id, *args, **kwargs):
        if "metrics" in kwargs:
            kwargs["metrics"] = kwargs["metrics"][:11]
        call(run_id, *args, **kwargs)
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, last_call, broken)
        with pytest.raises(TrackerError, match=r"uniform seed 0 .* was not pushed \(the server went away\).*goes on"):
            outcomes(tracker, chosen)
    for opened, expected in ((open_tracker("mlflow", place), "completed"), (open_tracker("mlflow", place), "there")):
        assert outcomes(opened, chosen) == {expected: 1}
    client, runs = remote_runs(place)
    assert list(runs) == [run.id]
    assert history(client, runs[run.id], "training_loss") == [(p.step, p.value) for p in run.training_curve]
    assert history(client, runs[run.id], "wall_s") == [(8, 12.5)]
    assert runs[run.id].data.params["seed"] == "0"
    assert runs[run.id].info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(runs[run.id].info.run_id)} == {
        "run.json",
        "sites.json",
        "adapter",
    }


def test_long_texts_and_odd_names_are_taken(place, ledger, outcomes, results, options):
    failed = next(run for run in results.runs if run.status == "failed")
    ledger.mark_failed(failed.id, "é" * 10_000)
    ledger.set_environment("sample", {"what is this? <b>": "\x1b[2J" * 3})
    chosen = type(options)(results=options.results, run_ids={failed.id})
    assert outcomes(open_tracker("mlflow", place), chosen) == {"new": 1}
    tags = remote_runs(place)[1][failed.id].data.tags
    assert tags["rankwise.error"].startswith("é" * MAX_TEXT)
    assert tags["rankwise.error"].endswith("(cut; run.json has it all)")


def test_experiments_are_studies_unless_one_is_named(uri, database, few):
    if uri != database:
        pytest.skip("would leave an experiment named sample on the server")
    MlflowTracker(uri, None).push(few[0])
    assert MlflowClient(tracking_uri=uri).get_experiment_by_name("sample") is not None


def test_a_deleted_experiment_is_refused_in_words(place, outcomes):
    client = MlflowClient(tracking_uri=place.uri)
    client.delete_experiment(client.create_experiment(place.project))
    with pytest.raises(TrackerError, match=rf"the experiment '{place.project}' was deleted there. Restore it"):
        outcomes(open_tracker("mlflow", place))


def test_a_server_that_cannot_be_reached_is_one_paragraph(outcomes, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        TrackerError, match=r"MLflow at http://127\.0\.0\.1:9: .* was not pushed \(.*\). Check that"
    ) as info:
        outcomes(open_tracker("mlflow", Place(uri="http://127.0.0.1:9")))
    assert "\n" not in str(info.value)
    with pytest.raises(TrackerError, match="was not pushed"):
        outcomes(open_tracker("mlflow", Place(uri="nonsense://here")))
