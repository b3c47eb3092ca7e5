#!/bin/bash
# Good guess: beside a progress display on standard error, what the program writes to standard
# output stays on the terminal, by print() or by a Console: Rich redirects standard output while
# a display is live.
# What happens: print() comes out above the display. A second Console goes past the redirection:
# its text lands behind the last bar, and the next refresh of a display of two rows erases it.
# Written to a file the same output is complete.
# Versions: rich 15.0.0; the screen is read through the terminal emulator pyte 0.8.2.
# Why it matters: a command shows progress on standard error so that its results can go to a pipe;
# on a terminal those results vanish. Weft's console writes through the redirection while a
# display is live.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rich==15.0.0 pyte==0.8.2

"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version

import pyte
from rich.console import Console
from rich.progress import Progress


def screen(own_console):
    """The lines of a terminal on which both standard streams end."""
    terminal = io.StringIO()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        output, errors = (Console(stderr=e, force_terminal=True, width=80) for e in (False, True))
        with Progress(console=errors, auto_refresh=False) as progress:
            files, _ = progress.add_task("files", total=2), progress.add_task("bytes", total=2)
            for number in range(2):
                (output.print if own_console else print)(f"result {number}")
                progress.update(files, advance=1, refresh=True)
    shown = pyte.Screen(80, 12)
    pyte.Stream(shown).feed(terminal.getvalue().replace("\n", "\r\n"))
    return [line.rstrip() for line in shown.display if line.strip()]


print("rich", version("rich"))
texts = {}
for own_console in (False, True):
    lines = screen(own_console)
    texts[own_console] = "\n".join(lines).count("result")
    name = "a second Console" if own_console else "print()"
    print(f"{name}: {texts[own_console]} of 2 results shown")
    print(*["  " + line for line in lines], sep="\n")
if texts != {False: 2, True: 0}:
    sys.exit("not reproduced: the results of the second Console are on the screen")
PYTHON
