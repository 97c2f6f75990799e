"""Runs the demo in a terminal of its own and draws what it printed as docs/demo.svg. `.venv/bin/python tools/demo_picture.py`"""

import io
import os
import pty
import re
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 118
TAP_LINES_SHOWN = 12

# As rich draws it, less the web font: a picture in a README loads nothing from elsewhere.
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def run_in_terminal(*command: str) -> str:
    """What a command prints to a terminal of COLUMNS columns."""
    child, terminal = pty.fork()
    if child == 0:
        ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.execv(command[0], command)
    printed = b""
    try:
        while piece := os.read(terminal, 65536):
            printed += piece
    except OSError:
        pass  # the terminal is gone with its last process
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(f"the demo failed:\n{printed.decode()}")
    return printed.decode().replace("\r\n", "\n")


def shortened(printed: str) -> str:
    """The lines worth a picture: all but most of the taps; where folders lie on this machine is nobody's business."""
    head, live, rest = re.split(r"(?<=\n)(?=.*live: meshctl tap)|(?<=\n)\n(?=.*what each endpoint did)", printed)
    title, *taps = live.rstrip("\n").split("\n")
    head = re.sub(r"/\S+/\.venv/bin/", ".venv/bin/", head)
    return "$ make demo\n" + head + "\n".join([title, *taps[:TAP_LINES_SHOWN], "  …"]) + "\n\n" + rest


def main() -> None:
    text = Text.from_ansi(shortened(run_in_terminal(sys.executable, str(ROOT / "examples/demo.py"))))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=False, no_wrap=True, overflow="ellipsis", crop=True)
    svg = console.export_svg(title="make demo", theme=MONOKAI, code_format=SVG, unique_id="demo")
    (ROOT / "docs/demo.svg").write_text(svg)


if __name__ == "__main__":
    main()
