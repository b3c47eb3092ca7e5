"""The peer of `weft accuracy`: ONNX Runtime's dynamic INT8 quantisation of the same model.

Its products of unsigned activations and signed weights go, on an x86 processor without VNNI,
through an instruction that adds two of them into 16 bits and saturates. Its users then take
weights of 7 bits (`reduce_range`), so the peer does too. Whether it happens here, a product says.

Needs onnx, onnxruntime and onnxscript, of the development environment.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sw.models import minilm

__all__ = ["describe", "onnx_int8_embeddings", "onnx_product", "saturates"]

INNER = 64

Product = Callable[[NDArray[np.uint8], NDArray[np.int8]], NDArray[np.int32]]


def onnx_product(a: NDArray[np.uint8], b: NDArray[np.int8]) -> NDArray[np.int32]:
    """`a @ b` as ONNX Runtime computes it on this processor, `b` known before: [m, n]."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, a.shape)],
        [helper.make_tensor_value_info("c", TensorProto.INT32, (len(a), b.shape[1]))],
        [onnx.numpy_helper.from_array(b, "b")],
    )
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"a": a})[0])


def saturates(product: Product = onnx_product) -> bool:
    """Whether sums of products of bytes are cut off here: from one whose result is known."""
    a, b = np.full((4, INNER), 255, np.uint8), np.full((INNER, 16), 127, np.int8)
    return bool((product(a, b) != INNER * 255 * 127).any())


def describe(reduce_range: bool) -> str:
    """What was measured, in a line."""
    weights, sums = (
        ("7 bits (reduce_range)", "saturate") if reduce_range else ("8 bits", "are exact")
    )
    return (
        f"onnxruntime: its dynamic INT8 of the same model, per channel, weights of {weights}: "
        f"its sums of products {sums} on this processor"
    )


def onnx_int8_embeddings(texts: Sequence[str], *, reduce_range: bool) -> NDArray[np.float32]:
    """Embeddings of the model quantised per channel: [texts, 384].

    reduce_range: weights of 7 bits, for processors where `saturates`.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    example = torch.zeros(1, 16, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, small = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        torch.onnx.export(
            _HiddenState(minilm.load_module()).eval(),
            (example,),
            plain,
            input_names=["input_ids"],
            output_names=["hidden"],
            dynamic_shapes=({1: torch.export.Dim("tokens", min=2, max=minilm.MAX_TOKENS)},),
            dynamo=True,
            verbose=False,
        )
        quantize_dynamic(
            plain, small, per_channel=True, reduce_range=reduce_range, weight_type=QuantType.QInt8
        )
        session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
        return np.stack(
            [
                minilm.pool(np.asarray(session.run(None, {"input_ids": ids[None]})[0])[0])
                for ids in minilm.tokenise(texts)
            ]
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser have to say about themselves."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _HiddenState(torch.nn.Module):
    """Token numbers to the last layer's rows: one input, one output."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.module(input_ids=input_ids).last_hidden_state
