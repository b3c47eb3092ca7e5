"""Tests mirror the source tree: `hw/dma/load.py` is tested by `tests/hw/dma/test_load.py`."""
