"""The live page: fresh when the ledger is, for this machine alone, and gone politely."""

import html
import http.client
import threading

import pytest

from rankwise.errors import ReportError
from rankwise.ledger import open_ledger
from rankwise.reporting.serve import LivePage, open_server
from rankwise.testing.sample_ledger import run_records, sample_runs, sample_study, write_sample


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(str(tmp_path / "ledger.db")) as opened:
        write_sample(opened)
        yield opened


@pytest.fixture
def ask(ledger):
    """Asks the server, which runs in a thread of its own, for a path."""
    with open_server(LivePage(ledger, "sample"), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def get(path, name="127.0.0.1"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request("GET", path, headers={"Host": f"{name}:{server.server_port}"})
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
            return answer, body

        yield get
        server.shutdown()
        thread.join()


def finish_the_last_run(ledger):
    run = sample_runs(sample_study())[-1][0]
    ledger.claim([run.id], "machine:1:0")
    ledger.write(run_records(run), "machine:1:0")
    return run


def test_the_page_follows_the_ledger(ask, ledger):
    answer, before = ask("/")
    assert answer.status == 200
    _, version = ask("/version")
    assert f'<html lang="en" data-version="{version}">' in before
    assert "connect-src 'self'" in html.unescape(before)
    assert ask("/")[1] == before
    run = finish_the_last_run(ledger)
    _, newer = ask("/version")
    assert newer != version
    _, after = ask("/?x=1")
    assert f'data-version="{newer}"' in after
    loss = f"{ledger.run(run.id).scores['test_loss']:.4f}"
    assert after.count(loss) > before.count(loss)


def test_the_answers_may_neither_be_kept_nor_guessed_at(ask):
    answer, _ = ask("/version")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/ledger.db", "/../ledger.db", "/report.html", "/figures/"])
def test_nothing_else_is_served(ask, path):
    assert ask(path)[0].status == 404


def test_another_sites_name_for_this_machine_gets_nothing(ask):
    assert ask("/version", name="example.org")[0].status == 404
    assert ask("/version", name="localhost")[0].status == 200


def test_the_server_listens_on_the_loopback_alone(ledger):
    with open_server(LivePage(ledger, "sample"), 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_refused(ledger):
    page = LivePage(ledger, "sample")
    with open_server(page, 0) as server, pytest.raises(ReportError, match=r"port \d+ .*Choose another with --port"):
        open_server(page, server.server_port)
