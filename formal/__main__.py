"""`python -m formal`: proves all properties, breaks the units, and prints a table."""

from __future__ import annotations

import sys
import time

import click
from rich.console import Console
from rich.table import Table

from boards.yosys import SynthesisError
from formal.catalogue import PROOFS
from formal.engines import EngineError
from formal.prove import Proof, ProofError, check, kills


@click.command()
@click.option("--only", metavar="NAME", help="Proofs whose name begins so.")
@click.option("--mutants/--no-mutants", default=True, help="Break the units too (the longer part).")
@click.option("--list", "listing", is_flag=True, help="Print the mutants and what finds them out.")
def main(only: str | None, mutants: bool, listing: bool) -> None:
    """Prove properties of the units, and that each property can fail."""
    chosen = [proof for proof in PROOFS if proof.name.startswith(only or "")]
    if not chosen:
        raise click.ClickException(f"no proof is called {only}; there are {_names()}")
    failed = 0
    table = Table("proof", "properties", "method", "sizes", "seconds", "mutants", box=None)
    console = Console(stderr=True)
    for proof in chosen:
        console.print(f"{proof.name} ...", highlight=False)
        failed += not _row(proof, mutants, listing, table)
    Console(width=140).print(table)
    sys.exit(1 if failed else 0)


def _row(proof: Proof, mutants: bool, listing: bool, table: Table) -> bool:
    start = time.perf_counter()
    try:
        properties = check(proof)
        seconds = f"{time.perf_counter() - start:.1f}"
        found = list(kills(proof)) if mutants else []
    except (ProofError, EngineError, SynthesisError) as error:
        print(error, file=sys.stderr)
        return False
    for mutant, frame in found:
        if frame is None:
            print(f"{proof.name}: {mutant.kills} does not notice {mutant.new}", file=sys.stderr)
        elif listing:
            print(f"{proof.name}: {mutant.kills}, cycle {frame}: {mutant.old} -> {mutant.new}")
    killed = sum(frame is not None for _, frame in found)
    count = f"{killed} of {len(proof.mutants)}" if mutants else ""
    sizes = "; ".join(proof.models)
    table.add_row(proof.name, ", ".join(properties), str(proof.method), sizes, seconds, count)
    return not mutants or killed == len(proof.mutants)


def _names() -> str:
    return ", ".join(proof.name for proof in PROOFS)


if __name__ == "__main__":
    main()
