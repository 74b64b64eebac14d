"""What is looked at in a network before its first step. Knows nothing of objectives."""

import logging

from torch import Tensor, nn

from teachers.users_code.calls import calling

from ..data.inputs import Network
from ..runs.run import Run
from ..runs.session import Session

log = logging.getLogger(__name__)


def without_a_part(module: nn.Module, inputs: Network, model: str) -> list[str]:
    """Parameters that have no part in what a network gives, as the head of another task: they get no gradient.

    Asked at rest, so that nothing in it changes.
    """
    module.eval()
    with calling("model", model):
        said = module(inputs)
    if isinstance(said, Tensor):  # else its first step tells
        said.sum().backward()
    idle = [name for name, each in module.named_parameters() if each.requires_grad and each.grad is None]
    module.zero_grad()
    module.train()
    return idle if isinstance(said, Tensor) else []


def warn_of_batch_statistics(module: nn.Module, run: Run, session: Session) -> None:
    if session.world > 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        log.warning(
            "%s: %s has batch statistics, which each of the %d workers takes over its own rows of a batch: the result "
            "differs from that of one worker",
            run.stage_name,
            run.name,
            session.world,
        )
