"""The command `rankwise`: mounts every command and turns what goes wrong into one paragraph and an exit code.

Nothing here may import torch: `rankwise --help` answers at once because a command imports what it needs when it runs.
"""

import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rankwise import __version__
from rankwise.cli import data, runs
from rankwise.cli.allocate import allocate
from rankwise.cli.console import print_error
from rankwise.cli.doctor import doctor
from rankwise.cli.evaluate import evaluate
from rankwise.cli.export import export
from rankwise.cli.plan import plan
from rankwise.cli.profile import profile
from rankwise.cli.recommend import recommend
from rankwise.cli.report import report
from rankwise.cli.study import study
from rankwise.cli.train import train
from rankwise.errors import RankwiseError
from rankwise.models.host_memory import restart_without_thread_caches

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT."""
TRAINING = ("study", "train", "recommend", "profile")
"""Commands that hold so much memory that it pays to start with another setting of the allocator."""


class ErrorReportingGroup(TyperGroup):
    """The root of all commands: reports errors made for people without a traceback, and lets all others through."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Accept `--debug` wherever it stands, so that it can be appended to the command that failed."""
        if "--debug" in args:
            args = ["--debug", *(arg for arg in args if arg != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a closed pipe shows here, not while the interpreter shuts down
            return result
        except KeyboardInterrupt:
            print_error("stopped. The same command goes on from where it was.")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except (RankwiseError, OSError) as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            print_error(str(error) if isinstance(error, RankwiseError) else describe_os_error(error))
            raise typer.Exit(error.exit_code if isinstance(error, RankwiseError) else 2) from None


def describe_os_error(error: OSError) -> str:
    """What the operating system refused, as a paragraph: place, cause, next step."""
    place = f" at {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{place}. What was finished is kept. Free some space, or choose another folder with --out "
            "or another ledger with --ledger, and run the same command again."
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return (
            f"no permission{place} ({error.strerror}). Choose a folder that you may read and write with --out, or "
            "change the permissions, and run the same command again."
        )
    return (
        f"the operating system refused an operation{place}: {error.strerror or error}. Run with --debug to see where."
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankwise {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="rankwise",
    cls=ErrorReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="RANKWISE_DEBUG", help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:
    """Example: rankwise study studies/embedded.yaml

    Find where a LoRA parameter budget pays off: train every candidate rank allocation side by side over one frozen
    base model, at exactly equal budgets and on paired seeds, and report which differences are real.
    """


app.command(short_help="Plan, train, compare and report a study.")(study)
app.command(short_help="What a study would train, cost and be able to show.")(plan)
app.command(short_help="Spread a parameter budget over a model's layers.")(allocate)
app.command(short_help="Write a study's report again from the ledger.")(report)
app.add_typer(runs.app, name="runs", short_help="Read the ledger.")
app.add_typer(data.app, name="data", short_help="Look at and prepare data sets.")
app.command(short_help="Train one run and write its adapter.")(train)
app.command(short_help="Which adapter configuration to use, with the evidence.")(recommend)
app.command(short_help="Score an adapter, or a base model alone, on held-out examples.")(evaluate)
app.command(short_help="Write an adapter for other tools, verified.")(export)
app.command(short_help="What an adapter costs here: memory, time, generation.")(profile)
app.command(short_help="What this machine can do.")(doctor)


def main() -> None:
    """Entry point of the command `rankwise`."""
    # OpenMP reads this once, when torch is loaded. Threads that spin long while they wait for each other stop each
    # other as soon as anything else runs on the cores; threads that never spin pay for a system call at every barrier.
    # A short spin was the fastest with quiet cores and with busy ones (docs/log.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if sys.argv[1:2] and sys.argv[1] in TRAINING:
        restart_without_thread_caches()
    app(prog_name="rankwise")
