"""docs/isa.md is generated; it must be what the definition says today."""

from pathlib import Path

from sw.cli.isa_document import document


def test_isa_document_is_current():
    page = Path(__file__).parents[2] / "docs" / "isa.md"
    assert page.read_text() == document(), "run: make docs"
