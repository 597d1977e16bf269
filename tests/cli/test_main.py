import errno
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from rankwise import __version__
from rankwise.cli.main import ErrorReportingGroup, app, describe_os_error, options
from rankwise.errors import AuditError, StudyError


def app_that_raises(error: BaseException) -> typer.Typer:
    """The real root with one command that fails."""
    failing = typer.Typer(cls=ErrorReportingGroup, pretty_exceptions_enable=False)
    failing.callback()(options)

    @failing.command()
    def fail() -> None:
        raise error

    return failing


def invoke(error: BaseException, *args: str):
    return CliRunner().invoke(app_that_raises(error), [*args])


@pytest.mark.parametrize(("error", "code"), [(StudyError("a.yaml:3: no"), 2), (AuditError("a.yaml:3: no"), 1)])
def test_an_error_for_people_is_one_paragraph_and_its_exit_code(error, code):
    result = invoke(error, "fail")
    assert result.exit_code == code
    assert result.stderr == "rankwise: a.yaml:3: no\n"
    assert result.stdout == ""


@pytest.mark.parametrize("args", [("--debug", "fail"), ("fail", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(args):
    result = invoke(StudyError("no"), *args)
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("rankwise: no\n")


def test_debug_can_be_set_in_the_environment():
    result = CliRunner().invoke(app_that_raises(StudyError("no")), ["fail"], env={"RANKWISE_DEBUG": "1"})
    assert "Traceback" in result.stderr


def test_an_interrupt_says_that_the_same_command_goes_on():
    result = invoke(KeyboardInterrupt(), "fail")
    assert result.exit_code == 130
    assert "same command goes on" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/big/file"), ["disk is full", "/big/file", "--out"]),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), ["no permission", "/root/x", "--out"]),
        (OSError(errno.EROFS, "Read-only file system", "/ro"), ["no permission", "/ro"]),
        (OSError("something else"), ["something else", "--debug"]),
    ],
)
def test_a_refusal_of_the_operating_system_names_place_and_next_step(error, words):
    result = invoke(error, "fail")
    assert result.exit_code == 2
    assert result.stderr == f"rankwise: {describe_os_error(error)}\n"
    assert all(word in result.stderr for word in words)


def test_a_closed_pipe_is_quiet():
    result = invoke(BrokenPipeError(errno.EPIPE, "Broken pipe"), "fail")
    assert result.exit_code == 1
    assert result.output == ""


def test_a_bug_is_not_dressed_up():
    result = invoke(ZeroDivisionError("division by zero"), "fail")
    assert isinstance(result.exception, ZeroDivisionError)


def test_control_characters_in_a_message_do_not_reach_the_terminal():
    result = invoke(StudyError("name \x1b[2J is not allowed"), "fail")
    assert "\x1b" not in result.stderr
    assert r"\x1b[2J" in result.stderr


def test_a_long_path_is_not_broken_where_output_is_no_terminal():
    path = "/somewhere/" + "long/" * 60 + "file.yaml"
    assert path in invoke(StudyError(f"{path}:3: no"), "fail").stderr


def test_an_unknown_option_is_bad_input():
    result = CliRunner().invoke(app, ["doctor", "--jsno"])
    assert result.exit_code == 2
    assert "--jsno" in result.stderr


def test_version_and_module_call_agree(monkeypatch, capsys):
    from rankwise.cli.main import main

    monkeypatch.setattr(sys, "argv", ["rankwise", "--version"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"rankwise {__version__}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads what GNU's OpenMP reports, which torch ships on Linux")
@pytest.mark.parametrize(
    ("given", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")]
)
def test_threads_spin_briefly_unless_the_environment_says_otherwise(given, spins):
    code = "import sys; sys.argv[1:] = ['--version']\nfrom rankwise.cli.main import main\ntry: main()\nfinally: import torch"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | given | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in shown
