"""The command line: every command is a few lines over one function of the package.

Invariant: exit status 0 only when everything asked for was done; a user's mistake is one clear message and status 1, never a
traceback. Heavy packages are imported inside the commands that need them.
"""

from __future__ import annotations

import errno
import signal
import sys
from typing import Annotated

import typer

from swe_srl import __version__
from swe_srl.cli import cluster as clusters
from swe_srl.cli import edits, environments, reports, rewards, rollouts, training, trajectories
from swe_srl.cli.options import with_quiet
from swe_srl.cli.output import fail, silence_libraries
from swe_srl.errors import UserError
from swe_srl.extras import extra_for

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train coding agents from expert trajectories: replay them in real containers, reward each step, update by GRPO.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"swe-srl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and do nothing else.")
    ] = False,
) -> None:
    pass


env = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Docker, base images and task images.")
app.add_typer(env, name="env")
evaluate = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What a policy can do: tasks, steps, edits.")
app.add_typer(evaluate, name="evaluate")
cluster = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Ray clusters that carry sandboxes.")
app.add_typer(cluster, name="cluster")

app.command("doctor")(training.doctor)
app.command("quickstart")(training.quickstart)
app.command("import")(trajectories.import_)
app.command("stats")(trajectories.stats)
app.command("export")(trajectories.export)
app.command("replay")(environments.replay)
app.command("record")(environments.record)
app.command("audit")(rewards.audit)
app.command("train")(training.train)
app.command("export-model")(training.export_model)
app.command("profile")(training.profile)
app.command("rollout")(rollouts.rollout)
app.command("report")(reports.report)
app.command("watch")(reports.watch)
evaluate.command("tasks")(rollouts.evaluate_tasks)
evaluate.command("steps")(rollouts.evaluate_steps)
evaluate.command("oracle-edit")(edits.evaluate_edits("oracle"))
evaluate.command("localise-edit")(edits.evaluate_edits("localise"))
cluster.command("status")(clusters.status)
env.command("docker")(environments.env_docker)
env.command("base")(environments.env_base)
env.command("build")(environments.env_build)
env.command("list")(environments.env_list)
env.command("shell")(environments.env_shell)
env.command("reap")(environments.env_reap)
env.command("prune")(environments.env_prune)


def main() -> None:
    """Run the command line and exit with its status."""
    signal.signal(signal.SIGTERM, _end)
    if not sys.stderr.isatty():
        silence_libraries()
    try:
        status = with_quiet(typer.main.get_command(app))(standalone_mode=False)
        if status == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        fail(str(error))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted; what was finished is kept, containers of this run are removed", status=130)
    except ModuleNotFoundError as error:
        if (extra := extra_for(error.name)) is None:
            raise
        fail(f"this needs the package {error.name}, which is not installed: pip install 'swe-srl[{extra}]'")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fail(f"the disk is full ({error.filename or 'while writing'}): free space and run the command again")
        if error.filename is None:
            raise
        fail(f"{error.filename}: {error.strerror}")
    except Exception as error:
        if (shown := getattr(error, "show", None)) is None:  # click's own usage errors know how to show themselves
            raise
        shown()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(status if isinstance(status, int) else 0)


def _end(*_: object) -> None:
    """A job that is ended from outside cleans up as one that is interrupted, also where a script's `&` made Ctrl-C ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)
