"""With which weights a student begins: with a teacher's, as far as they fit; what does not has weights of chance.

Knows nothing of how anybody was trained. Of a model folder only its tensors are read, no code is imported.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from teachers.errors import RecipeError, StoreError
from teachers.models.folder import WEIGHTS, read_config, read_safetensors
from teachers.models.pruned import Pruning
from teachers.storage import seal

from ..config.init import Layers
from ..runs.run import Run

log = logging.getLogger(__name__)
NAMED = 4
"""Tensors that a line of the log names."""


@dataclass(frozen=True)
class Given:
    """The tensors of a teacher's network, by name, and what it tells apart."""

    name: str
    tensors: Mapping[str, Tensor]
    classes: tuple[str, ...]
    preprocess: Mapping[str, Any]


def begin_with(module: nn.Module, run: Run, classes: Sequence[str], preprocess: Mapping[str, Any]) -> None:
    """Put the weights of the teacher that `run` begins with into `module`; of a pruned one what its filters leave of them.

    `classes`: what the student tells apart. The last module with weights is left as it is where the teacher tells apart
    others, or in another order. `preprocess`: how its inputs are made (`Preprocessor.resolved()`); where the teacher's were made
    otherwise, the log warns. Raises RecipeError where nothing fits.
    """
    if run.init is None:
        return
    given = _read(run, run.init.from_)
    pruning = getattr(module, "pruning", None)
    if isinstance(pruning, Pruning):
        whole = pruning.whole()
        told = _copied(whole, given, run.init.layers, classes)
        module.load_state_dict(pruning.pruned(whole).state_dict())
        told += f"; of these the filters of least L1 norm are gone ({pruning.ratio:.0%} of each layer's)"
    else:
        told = _copied(module, given, run.init.layers, classes)
    if given.preprocess != preprocess:
        log.warning(
            "%s: %s begins with weights of %s and gets its inputs otherwise than that one did; give both the same `preprocess`",
            run.stage_name,
            run.name,
            given.name,
        )
    log.info("%s: %s begins with weights of %s: %s", run.stage_name, run.name, given.name, told)


def _read(run: Run, name: str) -> Given:
    folder = next(source.network for source in run.sources if source.name == name)
    if folder is None:
        raise RecipeError(f"init.from: {name!r} is no network in a model folder, so it has no weights to begin with")
    try:
        config = read_config(folder)
    except StoreError as error:
        raise RecipeError(f"init.from: the weights of {name!r} cannot be read: {error}") from None
    if config.estimator is not None:
        raise RecipeError(f"init.from: {name!r} is an estimator, whose weights no network can take")
    return Given(name, read_safetensors(seal.local(folder, WEIGHTS), StoreError), config.classes, config.preprocess)


def _copied(module: nn.Module, given: Given, layers: Layers | None, classes: Sequence[str]) -> str:
    """Copy what fits into `module`; in words, what that was."""
    own = module.state_dict()
    theirs = renamed(given.tensors, module, layers)
    left = _head(module) if given.classes != tuple(classes) else ""
    fits = {
        name: theirs[name]
        for name, tensor in own.items()
        if name in theirs and theirs[name].shape == tensor.shape and not (left and name.startswith(left))
    }
    if not fits:
        raise RecipeError(
            f"init: none of the {len(own):,} tensors of the student has the name and shape of one of the {len(given.tensors):,} "
            f"of {given.name!r} ({_some([*own])} against {_some([*given.tensors])}); say `layers`, or remove `init`"
        )
    module.load_state_dict({**own, **fits})
    rest = [name for name in own if name not in fits]
    return f"{len(fits)} of {len(own)} tensors" + (f", by chance {_some(rest)}" if rest else "")


def renamed(theirs: Mapping[str, Tensor], module: nn.Module, layers: Layers | None) -> dict[str, Tensor]:
    """The tensors of a teacher by the names that the student has for them. Raises RecipeError for layers that are not there."""
    if layers is None:
        return dict(theirs)
    if isinstance(layers, Mapping):
        return _of_modules(theirs, module, layers)
    stack = _stack(theirs, module, layers)
    others = {name: tensor for name, tensor in theirs.items() if not name.startswith(stack)}
    for own, number in enumerate(layers):
        before = f"{stack}{number}."
        others |= {f"{stack}{own}.{n.removeprefix(before)}": t for n, t in theirs.items() if n.startswith(before)}
    return others


def _of_modules(theirs: Mapping[str, Tensor], module: nn.Module, layers: Mapping[str, str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    modules = {name for name, _ in module.named_modules() if name}
    given = {name[:end] for name in theirs for end in range(len(name)) if name[end] == "."}
    for own, their in layers.items():
        for name, known, whose in ((own, modules, "student"), (their, given, "teacher")):
            if name not in known:
                raise RecipeError(f"init.layers: the {whose} has no module {name!r}{_nearest(name, known)}")
        found |= {f"{own}.{n.removeprefix(f'{their}.')}": t for n, t in theirs.items() if n.startswith(f"{their}.")}
    return found


def _nearest(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), 1)
    return f", did you mean {close[0]!r}?" if close else f"; it has {_some(sorted(known))}"


def _stack(theirs: Mapping[str, Tensor], module: nn.Module, layers: Sequence[int]) -> str:
    """The name, with a dot behind it unless it is the network itself, of the one list of so many layers that both have."""
    found = []
    for name, part in module.named_modules():
        before = f"{name}." if name else ""
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) == len(layers):
            there = [any(each.startswith(f"{before}{number}.") for each in theirs) for number in layers]
            found += [before] if all(there) else []
    if len(found) != 1:
        named = f" ({', '.join(repr(each[:-1]) for each in found)})" if found else ""
        raise RecipeError(
            f"init.layers: {[*layers]} are {len(layers)} layers, and the student has {len(found) or 'no'} lists of so many "
            f"of which the teacher has these too{named}, expected one; name modules instead, `{{the student's: the teacher's}}`"
        )
    return found[0]


def _head(module: nn.Module) -> str:
    """The last module with weights of its own, with a dot behind it: what gives the scores."""
    found = [name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))]
    return f"{found[-1]}." if found and found[-1] else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + " ..." * (len(names) > NAMED)
