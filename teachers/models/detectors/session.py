"""An ONNX graph, opened by onnxruntime, which is imported where it is used: few replicas hold a graph."""

from typing import Any

import torch

from ...errors import TeacherError
from ...users_code.calls import told_as


def open_session(path: str) -> Any:
    """Raises TeacherError for a graph that onnxruntime cannot load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    providers = [name for name in _providers() if name in onnxruntime.get_available_providers()]
    with told_as(lambda what: TeacherError(f"{path}: onnxruntime cannot load it: {what}")):
        return onnxruntime.InferenceSession(path, options, providers=providers)


def _providers() -> list[str]:
    """The GPU that Ray has given to this process, where it has; else the CPU."""
    return ["CUDAExecutionProvider"] * torch.cuda.is_available() + ["CPUExecutionProvider"]
