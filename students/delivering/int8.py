"""A graph of whole numbers: what an ONNX graph says in 8 bits. Knows nothing of folders or figures.

With convolutions it is static: weights have a scale a channel, activations one scale that calibration rows give (quantise
and dequantise nodes, Jacob et al., 2018); a convolution of pixels, of few channels, is slower so and stays what it was. Else, as in transformers and tables, it is dynamic: weights are kept in 8 bits
and activations get a scale in every call, which no row has to be looked at for.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from teachers.errors import CollegiumError, EnvironmentUnfit

from .forms import Inputs, calls_of

STATIC = ("Conv", "Gemm", "MatMul")
"""Where the work is; what stands between, as the normalisation of pixels, stays in float32."""
OF_PIXELS = 4
"""Channels of an image, at most."""


class Rows:
    """Calibration rows, a batch at a time, as onnxruntime asks for them."""

    def __init__(self, batches: Iterable[Inputs]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        found = next(self.batches, None)
        return None if found is None else dict(found)


def is_static(payload: bytes) -> bool:
    """Whether the graph has convolutions."""
    import onnx

    return any(node.op_type == "Conv" for node in onnx.load_from_string(payload).graph.node)


def takes_one_row(payload: bytes) -> bool:
    import onnx

    return bool(onnx.load_from_string(payload).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1)


def quantised(payload: bytes, calibration: Iterable[Inputs]) -> bytes:
    """The graph in 8 bits, its inputs and output what they were. `calibration`: training rows, batch by batch.

    Raises CollegiumError for a graph in which nothing could be made smaller, EnvironmentUnfit without onnxruntime.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ModuleNotFoundError as lacking:
        raise EnvironmentUnfit(
            f"--int8 needs {lacking.name}, which is not installed: pip install collegium[onnx]"
        ) from None
    one_row = takes_one_row(payload)
    with TemporaryDirectory(prefix="int8-") as scratch, _quiet():
        given, fused, made = (Path(scratch, name) for name in ("given.onnx", "fused.onnx", "made.onnx"))
        given.write_bytes(payload)
        quant_pre_process(str(given), str(fused), skip_symbolic_shape=True)
        if is_static(payload):
            quantize_static(
                str(fused),
                str(made),
                Rows(part for batch in calibration for part in calls_of(batch, one_row)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=list(STATIC),
                nodes_to_exclude=_of_pixels(fused),
                activation_type=QuantType.QUInt8,  # of signed ones onnxruntime has no kernels on x86
                weight_type=QuantType.QInt8,
            )
        else:
            quantize_dynamic(str(fused), str(made), per_channel=True, weight_type=QuantType.QInt8)
        found = made.read_bytes()
    if not _has_8_bits(found):
        raise CollegiumError(
            "the graph has no convolution and no matrix product, so nothing of it can be kept in 8 bits"
        )
    return found


def _of_pixels(graph: Path) -> list[str]:
    """Names of the convolutions that read images."""
    import onnx

    found = onnx.load(graph).graph
    channels = {each.name: each.dims[1] for each in found.initializer if len(each.dims) == 4}
    few = [n for n in found.node if n.op_type == "Conv" and channels.get(n.input[1], OF_PIXELS + 1) <= OF_PIXELS]
    return [node.name for node in few if all(each.i == 1 for each in node.attribute if each.name == "group")]


def _has_8_bits(payload: bytes) -> bool:
    import onnx

    graph = onnx.load_from_string(payload).graph
    return any(
        each.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and each.dims for each in graph.initializer
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """It recommends what is done already."""
    log = logging.getLogger()
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
