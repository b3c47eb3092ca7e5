"""Energy, estimated: counts of what a machine does times published energies of doing it once."""

from sw.energy.counts import Counts, measured, predicted
from sw.energy.estimate import Energy, estimate
from sw.energy.quantity import Quantity
from sw.energy.table import TABLES, Table, TableError, read_table

__all__ = [
    "TABLES",
    "Counts",
    "Energy",
    "Quantity",
    "Table",
    "TableError",
    "estimate",
    "measured",
    "predicted",
    "read_table",
]
