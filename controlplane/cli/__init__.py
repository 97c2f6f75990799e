"""The program `meshctl`: one file per command. Runs a control plane, or asks a running one."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from meshcore.commands import Commands

# EX_CONFIG of sysexits.h: supervisors know that a restart will not help.
EXIT_CONFIG = 78

COMMANDS = {
    "control-plane": "control_plane",
    "check": "check",
    "get": "get",
    "apply": "apply",
    "delete": "delete",
    "explain": "explain",
    "tap": "tap",
    "stat": "stat",
    "top": "top",
    "edges": "edges",
    "routes": "routes",
    "workload": "workload",
    "join-token": "join_token",
    "dtab": "dtab",
    "namerd": "namerd",
    "login": "login",
    "authority": "authority",
    "install": "install",
    "inject": "inject",
    "uninject": "uninject",
    "completion": "completion",
    "version": "version",
}

EPILOG = """
\b
Start here:
  meshctl control-plane run --data /var/lib/meshcore --trust-domain mesh.example.org
  meshctl check
  meshctl join-token create shop/web

Where the control plane is: --control-plane, or MESHCTL_CONTROL_PLANE: `unix:/path` on its machine (what its owner may
open may do everything), or `host:port` with the certificate that `meshctl login` got.
"""


class _Commands(Commands):
    modules = {name: f"controlplane.cli.{module}" for name, module in COMMANDS.items()}


@click.group(
    cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option(
    "--control-plane",
    "address",
    metavar="ADDR",
    envvar="MESHCTL_CONTROL_PLANE",
    default="unix:/var/lib/meshcore/admin.sock",
    show_default=True,
    help="unix:/path or host:port.",
)
@click.option(
    "--credentials",
    metavar="DIR",
    envvar="MESHCTL_CREDENTIALS",
    default=None,
    help="Folder with key.pem, chain.pem and roots.pem, for host:port.  [default: ~/.config/meshctl]",
)
@click.pass_context
def meshctl(ctx: click.Context, address: str, credentials: str | None) -> None:
    """The mesh's control plane: runs it, asks it, changes what it knows."""
    ctx.obj = (address, credentials or os.path.join(os.path.expanduser("~"), ".config", "meshctl"))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit. What the user can mend is one message, never a traceback."""
    from meshcore.errors import ConfigError, MeshError

    try:
        code = meshctl.main(arguments, prog_name="meshctl", standalone_mode=False)
    except ConfigError as error:
        _fail(str(error), EXIT_CONFIG)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install 'meshcore[mesh]'", 1)
    except MeshError as error:
        _fail(str(error), 1)
    except click.exceptions.Abort:
        sys.exit(0)  # Ctrl-C is how one leaves a tap or a table
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as wish:
        sys.exit(wish.exit_code)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"meshctl: {message}" if "\n" not in message else message, err=True)
    sys.exit(code)
