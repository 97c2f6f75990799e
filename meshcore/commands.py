"""A program of many commands: each is imported when it is asked for, and a shell learns them. Owns no command's own doing."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import get_completion_class


class Commands(click.Group):
    """`modules` says where each command is, as `package.module`; it has the module's last name, and stands in that order."""

    modules: Mapping[str, str] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        # Not before it is asked for: `version` must not wait for what only another command needs.
        if name not in self.modules:
            return None
        module = self.modules[name]
        command: click.Command = getattr(importlib.import_module(module), module.rpartition(".")[2])
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of a pipe has seen enough. Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None


def completion_of(program: str) -> click.Command:
    """The command `completion` of a program."""

    @click.command("completion", epilog=f"""
\b
Install:
  {program} completion bash > ~/.local/share/bash-completion/completions/{program}
  {program} completion zsh  > "${{fpath[1]}}/_{program}"
  {program} completion fish > ~/.config/fish/completions/{program}.fish
""")  # fmt: skip
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        """Print the completion script of a shell."""
        kind = get_completion_class(shell)
        if kind is None:
            raise click.ClickException(f"no completion for {shell}")
        complete = kind(ctx.find_root().command, {}, program, f"_{program.upper()}_COMPLETE")
        # source() would start the shell to ask its version; the script is the same, and here may be no such shell.
        click.echo(complete.source_template % complete.source_vars())

    return completion
