"""The program `meshproxy`: one file per command. Each does one thing with a proxy here or a running one."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

# EX_CONFIG of sysexits.h: supervisors know that a restart will not help.
EXIT_CONFIG = 78

COMMANDS = ("proxy", "run", "sidecar", "check", "config", "explain", "dtab", "intercept", "tap", "stat", "completion", "version")

EPILOG = """
\b
Start here:
  meshproxy proxy --listen :8080 --to 127.0.0.1:9000
  meshproxy tap
  meshproxy stat --watch
"""


class _Commands(click.Group):
    """Imports a command when it is asked for: `tap` must not wait for what only `run` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"meshcore.cli.{name}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of a pipe has seen enough. Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


@click.group(
    cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
def meshproxy() -> None:
    """A service-mesh proxy: forwards HTTP/1.1, shows what it does, changes while it runs."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit. What the user can mend is one message, never a traceback."""
    from meshcore.admin import AdminError
    from meshcore.errors import ConfigError, MeshError

    try:
        meshproxy.main(arguments, prog_name="meshproxy", standalone_mode=False)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)
    except AdminError as error:
        _fail(str(error), EXIT_CONFIG)
    except MeshError as error:
        _fail(str(error), 1)
    except click.exceptions.Abort:
        _end(0)  # Ctrl-C is how one leaves a tap or a table
    except click.ClickException as error:
        error.show()
        _end(error.exit_code)
    except click.exceptions.Exit as wish:
        _end(wish.exit_code)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), 1)
    _end(0)


def _fail(message: str, code: int) -> None:
    click.echo(f"meshproxy: {message}" if "\n" not in message else message, err=True)
    _end(code)


def _end(code: int) -> None:
    sys.exit(code)
