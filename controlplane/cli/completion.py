"""`meshctl completion`: the script that teaches a shell our commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """
\b
Install:
  meshctl completion bash > ~/.local/share/bash-completion/completions/meshctl
  meshctl completion zsh  > "${fpath[1]}/_meshctl"
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"no completion for {shell}")
    complete = kind(ctx.find_root().command, {}, "meshctl", "_MESHCTL_COMPLETE")
    # source() would start the shell to ask its version; the script is the same, and here may be no such shell.
    click.echo(complete.source_template % complete.source_vars())
