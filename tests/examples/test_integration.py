"""The integration example, as a hardware engineer runs it, and that it can fail."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "integration" / "run.py"


@pytest.fixture
def example() -> dict:
    return runpy.run_path(str(SCRIPT))


def test_it_equals_golden(example: dict, tmp_path: Path, capfd):
    example["main"](tmp_path)
    printed = capfd.readouterr().out
    assert "status 00000002" in printed, "not DONE"
    assert printed.endswith("65,536 bytes of memory equal to the golden model's\n")
    before, after = (example["read_hex"](tmp_path / f"{n}.hex") for n in ("memory", "result"))
    assert (before != after).sum() > 90, "5 x 10 INT16 results, hardly a byte of them 0"
    other = example["simulate"](tmp_path, tmp_path / "weft_tiny.v", standard="2005")
    assert (other == after).all()
    after[123] ^= 1
    with pytest.raises(SystemExit, match="1 bytes differ from the golden model, the first at 123"):
        example["compare"](after, example["read_hex"](tmp_path / "result.hex"))
