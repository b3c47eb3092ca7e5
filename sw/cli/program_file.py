"""Program files of every kind, and their entries, as commands are given them."""

from __future__ import annotations

import click

from sw.compiler.errors import InputError
from sw.compiler.program.decoder_file import is_decoder_file
from sw.compiler.program.decoder_program import DecoderProgram, Entry
from sw.compiler.program.joint import JointProgram, is_joint_file
from sw.compiler.program.program import Program

__all__ = ["entry_option", "pass_of", "read_module", "read_program"]

entry_option = click.option("--entry", help="Of a program with several entries: which one.")


def read_program(file: str, entry: str | None = None) -> Program | DecoderProgram | JointProgram:
    """What a file holds, or one of its entries. Raises `ProgramError`, and `InputError` for an
    entry that there is not."""
    if is_joint_file(file):
        program = JointProgram.load(file)
        if entry is None:
            return program
        if entry not in program.entries:
            there = ", ".join(program.entries)
            raise InputError(f"there is no entry {entry!r}: {file} has {there}")
        return program.entries[entry]
    if entry is not None:
        raise InputError(f"--entry is for a program with several entries, which {file} is not")
    return DecoderProgram.load(file) if is_decoder_file(file) else Program.load(file)


def read_module(file: str, entry: str | None) -> Program:
    """A module's program, of a file or one of its entries, that can be run by itself. Raises
    `ProgramError` and `InputError`."""
    if entry is None and not is_joint_file(file):
        return Program.load(file)
    program = read_program(file, entry)
    if isinstance(program, JointProgram):
        raise InputError(f"{file} has several entries: give --entry {', '.join(program.entries)}")
    if not isinstance(program, Program):
        raise InputError(f"entry {entry!r} is a language model's: it needs a session, from Python")
    if program.memories:
        raise InputError(f"entry {entry!r} fills a sequence's memories: it runs from Python")
    return program


def pass_of(program: DecoderProgram, tokens: int) -> Entry:
    """Raises `InputError` for a number of tokens without a pass."""
    if tokens not in program.entries:
        there = ", ".join(map(str, program.entries))
        raise InputError(f"there is no pass of {tokens} tokens: the program has those of {there}")
    return program.entries[tokens]
