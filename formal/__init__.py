"""Proofs about the units of `hw`: `python -m formal`, `make prove`, docs/verification.md."""
