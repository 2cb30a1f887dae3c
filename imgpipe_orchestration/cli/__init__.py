"""The command `imgpipe`: its commands are imported when they are used.

Exit codes, the same for every command: 0 done; 1 it went wrong or something is not well; 2 the command line or a
setting makes no sense; 3 no stack is running; 4 a stack is running already.
"""

import importlib
import sys

import click

from imgpipe_orchestration.cli.options import exempt_loopback, retyped
from imgpipe_orchestration.errors import BadInput, ImgpipeError, NotFound, SettingsError

_COMMANDS = {
    "up": ("stack", "start everything and keep it running"),
    "down": ("stack", "stop what `up` started"),
    "demo": ("demo", "start everything, feed it real photographs, show what came out"),
    "env": ("stack", "every URL and development key in force, as shell exports"),
    "token": ("stack", "a user's token, to try uploads by hand"),
    "keys": ("upkeep", "named keys with a role, for machines"),
    "status": ("status", "queues, ages, failures, times"),
    "doctor": ("doctor", "is every dependency reached and every setting valid?"),
    "embeddings": ("models", "recompute the search's vectors"),
    "evaluate": ("models", "what models and prompts get right on a set of images"),
    "models": ("models", "check that each task's models answer"),
    "requeue": ("upkeep", "try failed and paused items again, now"),
    "vision-reports": ("vision_reports", "one execution of vision reports, here and now"),
    "moderate": ("upkeep", "judge images that have no verdict"),
    "estimate": ("models", "what a backfill would cost, before it is started"),
    "gc": ("upkeep", "objects without a row, rows whose object is missing"),
    "migrate": ("upkeep", "bring the database's schema up to date"),
}
"""By name: the module, and what the help says."""


class _Commands(click.Group):
    """Imports a command's module when it is used: `imgpipe env` does not wait for what `imgpipe demo` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="imgpipe-orchestration", message="imgpipe %(version)s")
def imgpipe() -> None:
    """The image back office: uploads, listings, marking, vision reports, avatars."""
    exempt_loopback()


def main() -> None:
    """Entry point: ImgpipeError and OSError become one readable line and an exit code."""
    try:
        imgpipe()
    except (SettingsError, BadInput, NotFound) as error:  # it names what is not there or makes no sense
        _fail(error, 2)
    except ImgpipeError as error:
        _fail(error, 1)
    except OSError as error:  # e.g. a full disk, or a folder of another user
        _fail(ImgpipeError(str(error)), 1)


def _fail(error: ImgpipeError, code: int) -> None:
    click.echo(f"imgpipe: {retyped(error.public)}", err=True)
    if error.detail:
        click.echo(f"  {error.detail}", err=True)
    sys.exit(code)
