"""A command with subcommands, whose help lists them in sections."""

from __future__ import annotations

import click

__all__ = ["Sections"]

_WHOLE = 1000
"""Letters of a summary: never cut, it wraps."""


class Sections(click.Group):
    """Add commands with `section`."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._sections: dict[str, tuple[click.Command, ...]] = {}

    def section(self, title: str, *commands: click.Command) -> None:
        """The next section of the help, and its commands in order."""
        self._sections[title] = commands
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        longest = max(len(name) for name in self.commands)
        for title, commands in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(longest), command.get_short_help_str(_WHOLE))
                        for command in commands
                    ]
                )
