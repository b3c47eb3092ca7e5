"""What a lowering may do to be fast, each to be switched off for measurements.

With any of them off a program writes the same results, byte for byte: what changes is what passes
through memory, who waits for whom, and what is computed twice.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALL_ON", "Switches"]


@dataclass(frozen=True, kw_only=True)
class Switches:
    """Attributes
    ----------
    fuse: operations that follow each other without memory between them: norms behind their linear
        layer or in front of the next one, linear layers that share an input, tensors that stay on
        chip. Without: each operation reads its operands from memory and writes its result there.
        What one command computes (bias, activation, residual add, requantisation) and attention,
        which has no N x N matrix, stay as they are.
    prefetch: loads run ahead of the commands in front of them, into other buffers. Without: a load
        begins when all products and vector commands in front of it are done, so memory and
        computing take turns.
    one_pass: softmax follows the scores of each key block with a running maximum. Without: a pass
        over all keys finds each row's maximum, a second one computes the scores again and weighs
        the values.
    """

    fuse: bool = True
    prefetch: bool = True
    one_pass: bool = True


ALL_ON = Switches()
