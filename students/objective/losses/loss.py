"""What a loss is, to whoever chooses one."""

from collections.abc import Callable

from torch import Tensor

Loss = Callable[..., Tensor]
"""`fn(student [rows, width], target, *, temperature, labels, **keywords) -> [rows]`, of which a loss takes what it needs."""
