"""`meshproxy completion`: the script that teaches a shell our commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """
\b
Install:
  meshproxy completion bash > ~/.local/share/bash-completion/completions/meshproxy
  meshproxy completion zsh  > "${fpath[1]}/_meshproxy"
  meshproxy completion fish > ~/.config/fish/completions/meshproxy.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"no completion for {shell}")
    complete = kind(ctx.find_root().command, {}, "meshproxy", "_MESHPROXY_COMPLETE")
    # source() would start the shell to ask its version; the script is the same, and here may be no such shell.
    click.echo(complete.source_template % complete.source_vars())
