"""torchvision whose compiled operators are of another build than torch, as its wheel beside a torch for CPUs is.

Its import then fails, and with it that of transformers and timm, though what they use of it to make images is torch's own.
"""

import importlib.util
from functools import cache
from pathlib import Path

import torch

DECLARED = ("nms", "qnms")
"""Operators that torchvision describes to torch as soon as it is imported, whether they were loaded or not."""


@cache
def make_importable() -> None:
    """Before the first import of transformers or timm: declare the operators that this process cannot load. Who calls one of
    them, which detectors do, is told by torch that it has no kernel."""
    found = importlib.util.find_spec("torchvision")
    compiled = sorted(Path(str(found.origin)).parent.glob("_C.*")) if found is not None else []
    try:
        for file in compiled:
            torch.ops.load_library(str(file))
    except OSError:
        declared = torch.library.Library("torchvision", "FRAGMENT")
        KEPT.append(declared)
        for name in DECLARED:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


KEPT: list[torch.library.Library] = []
"""A declaration is gone with the object that made it."""
