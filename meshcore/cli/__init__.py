"""The program `meshproxy`: one file per command. Each does one thing with a proxy here or a running one."""

from __future__ import annotations

import sys
from typing import Any

import click

from meshcore.commands import Commands

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


class _Commands(Commands):
    modules = {name: f"meshcore.cli.{name}" for name in COMMANDS}


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
