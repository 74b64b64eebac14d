"""Tensors by name into a module, and what does not fit told by name. Knows nothing of folders."""

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile

from torch import Tensor, nn

from ..errors import CollegiumError

NAMED = 3
"""Tensors of each kind that a message names."""


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str, error: type[CollegiumError]) -> None:
    """Put `state` into `module`. Raises `error` that counts missing, unexpected and misshaped tensors and names some."""
    own = module.state_dict()
    misshaped = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    lists = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "misshaped": [f"{name} {list(state[name].shape)}, expected {list(own[name].shape)}" for name in misshaped],
    }
    if any(lists.values()):
        found = "; ".join(f"{len(names):,} {what}: {_some(names)}" for what, names in lists.items() if names)
        raise error(
            f"{source} does not fit the {type(module).__name__} that its model and arguments make, of {len(own):,} "
            f"tensors. {found}{_cure(own.keys(), state.keys())}"
        )
    module.load_state_dict(dict(state))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + " ..." * (len(names) > NAMED)


def _cure(own: Collection[str], given: Collection[str]) -> str:
    """Where names differ by what stands before all of them: how to say so."""
    prefix = _before_all(given)
    if prefix and {name.removeprefix(prefix) for name in given} & set(own):
        return f"; all names in the file begin with {prefix!r}: say `strip_prefix: {prefix}`"
    prefix = _before_all(own)
    if prefix and {name.removeprefix(prefix) for name in own} & set(given):
        return f"; all names of the network begin with {prefix!r}, none in the file does: let `model` make its part {prefix[:-1]!r} alone"
    return ""


def _before_all(names: Collection[str]) -> str:
    """The modules that all names have in common, with the last dot: `module.`, `model.backbone.`."""
    first, last = min(names, default=""), max(names, default="")
    shared = [one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    return "".join(shared)[: "".join(shared).rfind(".") + 1]
