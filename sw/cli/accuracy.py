"""`weft accuracy`: how close models in integers come to float32."""

from __future__ import annotations

import click

from sw.cli.accuracy_of_focus import focus
from sw.cli.accuracy_of_sentences import sentences
from sw.cli.accuracy_of_speech import speech
from sw.cli.accuracy_of_tags import tagger
from sw.cli.accuracy_of_text import language_model
from sw.cli.sections import Sections

__all__ = ["accuracy"]


class _Models(Sections):
    """Without a model, the first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else [str(sentences.name), *args])


@click.group(cls=_Models)
def accuracy() -> None:
    """Measure how close a model in integers comes to float32.

    On texts, pictures and recordings that were not used to calibrate. The integers are those that
    golden model and RTL give, bit for bit. Without a model: all-MiniLM-L6-v2.
    """


accuracy.section("Models", sentences, language_model, tagger, speech, focus)
