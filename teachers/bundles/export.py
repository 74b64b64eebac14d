"""From label stores to a bundle: whose answers leave, how much of them, and what is done to them before.

Memory holds a window of each teacher's rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config.any_teacher import OutputKind
from ..config.task import ANSWER_OF, AnswerName, TaskName
from ..errors import RecipeError, StoreError
from ..soft_targets.combine.rules import COMBINE
from ..soft_targets.reader import SoftTargets
from ..soft_targets.schema import Spec
from ..storage.drafted import drafted_folder
from ..storage.seal import sha256_file
from ..transfer_set.answers import WINDOW_BYTES, Answered, answers_of
from .columns import Keeps, columns_of, writing
from .manifest import Manifest, Privacy, Voice, write_manifest
from .noise import noisy_labels, sigma_for
from .signing import Signer

RAW: dict[AnswerName, OutputKind] = {
    "class_axis": "logits",
    "class_set": "logits",
    "values": "values",
    "boxes": "boxes",
}


@dataclass(frozen=True)
class Leaving:
    """What leaves: `teachers` None is all; `top_k` or `labels` in place of all scores; `temperature` softens first.

    `combine`: several leave as one, by a rule. `epsilon` and `delta`: their noisy votes alone leave.
    """

    teachers: Sequence[str] | None = None
    top_k: int | None = None
    labels: bool = False
    temperature: float | None = None
    combine: str | None = None
    epsilon: float | None = None
    delta: float | None = None


Says = Callable[[Sequence[Tensor]], Tensor]
"""What one voice says, f32 [rows, C], of what its teachers do; NaN where nobody knows anything."""


@dataclass(frozen=True)
class Speaker:
    """A voice before it is written down."""

    name: str
    teachers: tuple[str, ...]
    names: tuple[str, ...]
    says: Says
    keeps: Keeps
    output: OutputKind


def export_bundle(
    segments: Sequence[Answered], folder: Path, leaving: Leaving, *, name: str, licence: str, signer: Signer
) -> tuple[Manifest, dict[str, float]]:
    """Write the bundle of what is said in the stores of `segments`, in one step; its manifest, and of each voice with noise the share
    of answers in which the noise has changed the class (which stays with the sender).

    Raises RecipeError for what does not fit together, and where `folder` is there already; StoreError while shards are missing.
    """
    specs = _specs(segments, leaving)
    task = _task(segments)
    answer = ANSWER_OF[task]
    _check(leaving, answer, specs)
    rows = sum(next(iter(each.stores.values())).spec.num_rows for each in segments)
    noise = None
    if leaving.epsilon is not None and leaving.delta is not None:
        noise = Privacy(
            mechanism="gnmax",
            sigma=sigma_for(leaving.epsilon, leaving.delta, rows),
            epsilon=leaving.epsilon,
            delta=leaving.delta,
            answers=rows,
        )
    changed: dict[str, float] = {}
    speakers = _speakers(leaving, specs, answer, noise, changed)
    with drafted_folder(folder) as draft:
        voices = [_write(speaker, segments, answer, draft, leaving) for speaker in speakers]
        manifest = Manifest(
            format=1,
            name=name,
            task=task,
            keys="xxh3_64(key_salt + id)",
            temperature=leaving.temperature,
            voices=voices,
            licence=licence,
            privacy=noise,
        )
        write_manifest(draft, manifest, signer)
    return manifest, {voice: share / max(rows, 1) for voice, share in changed.items()}


def _specs(segments: Sequence[Answered], leaving: Leaving) -> dict[str, Spec]:
    """By name, of who is to leave."""
    there = {name: store.spec for each in segments for name, store in each.stores.items()}
    wanted = tuple(leaving.teachers or sorted(there))
    if strange := [name for name in wanted if name not in there]:
        raise RecipeError(f"--teachers: nobody called {strange[0]!r} has labelled here; there are {', '.join(there)}")
    for each in segments:
        for name in wanted:
            if name not in each.stores:
                raise RecipeError(
                    f"{name!r} has not labelled the segment {each.name} (a live teacher, or another version of one, has not): name "
                    f"those who have by --teachers; here there are {', '.join(each.stores)}"
                )
            if missing := each.stores[name].missing():
                store = each.stores[name]
                raise StoreError(
                    f"{store.folder}: {len(missing)} of {store.num_shards} shards are missing; run the recipe again to label them"
                )
    return {name: there[name] for name in wanted}


def _task(segments: Sequence[Answered]) -> TaskName:
    found = next((each.rows[0].space.task for each in segments if each.rows is not None), None)
    if found is None:
        raise StoreError("the rows that these stores are about are not there; give OUT, the folder of the whole run")
    return found


def _check(leaving: Leaving, answer: AnswerName, specs: dict[str, Spec]) -> None:
    if (leaving.epsilon is None) != (leaving.delta is None):
        raise RecipeError("--epsilon and --delta go together: a promise is of both")
    if leaving.epsilon is not None and not 1e-6 <= leaving.epsilon <= 1e9:
        raise RecipeError(
            f"--epsilon {leaving.epsilon:g}: expected 1e-6 to 1e9; below it all is noise, above it nothing is"
        )
    if leaving.temperature is not None and (leaving.labels or leaving.epsilon):
        raise RecipeError("--temperature softens scores, and with --labels or --epsilon no scores leave; remove it")
    if leaving.epsilon is not None and (leaving.top_k or leaving.labels):
        raise RecipeError(
            "--epsilon lets the class of noisy votes leave, and nothing else; remove --top-k and --labels"
        )
    if leaving.labels and leaving.top_k:
        raise RecipeError("--labels keeps the class alone, --top-k its largest probabilities; give one of them")
    if answer == "boxes":
        raise RecipeError(
            "a bundle holds scores of classes, or numbers, and these answers are boxes; they cannot leave so"
        )
    if answer != "class_axis" and (leaving.top_k or leaving.epsilon or (leaving.labels and answer == "values")):
        raise RecipeError("--top-k, --labels and --epsilon are of one class of many a row, and these answers are not")
    if leaving.temperature is not None and answer == "values":
        raise RecipeError("--temperature softens scores of classes, and these answers are numbers")
    together = leaving.combine is not None or leaving.epsilon is not None
    if together and leaving.combine and leaving.epsilon:
        raise RecipeError("--epsilon lets noisy votes leave, --combine what teachers say together; give one of them")
    if together and len(specs) < 2:
        raise RecipeError(
            f"there is one teacher, {next(iter(specs))!r}, and nothing to combine or to count; name several"
        )
    names = {spec.names for spec in specs.values()}
    if together and len({frozenset(each) for each in names}) > 1:
        raise RecipeError(
            "the teachers answer in different classes, so they cannot leave as one; let each leave by itself"
        )
    rules = COMBINE[answer]
    if leaving.combine is not None and leaving.combine not in ("mean_probability", "mean_logits", "mean", "median"):
        raise RecipeError(f"--combine {leaving.combine!r}: expected one of mean_probability, mean_logits, mean, median")
    if leaving.combine is not None and leaving.combine not in rules:
        raise RecipeError(f"--combine {leaving.combine!r} is not of such answers; they have {', '.join(rules)}")
    kept = {spec.encoding for spec in specs.values()}
    if "label" in kept and not (leaving.labels or leaving.epsilon):
        name = next(name for name, spec in specs.items() if spec.encoding == "label")
        raise RecipeError(f"the store of {name!r} keeps the class only; say --labels, or leave it out by --teachers")
    width = min(len(spec.names) for spec in specs.values())
    if leaving.top_k is not None and not 1 <= leaving.top_k < width:
        raise RecipeError(f"--top-k {leaving.top_k}: expected 1 to {width - 1}, of {width} classes")


def _speakers(
    leaving: Leaving, specs: dict[str, Spec], answer: AnswerName, noise: Privacy | None, changed: dict[str, float]
) -> list[Speaker]:
    softened = leaving.temperature is not None or leaving.combine is not None
    output = RAW[answer]
    keeps: Keeps = "labels" if leaving.labels or noise else "top_k" if leaving.top_k else "scores"
    temperature = leaving.temperature or 1.0
    names = next(iter(specs.values())).names
    if noise is not None or leaving.combine is not None:
        orders = [[spec.names.index(name) for name in names] for spec in specs.values()]
        together = _votes(noise, changed) if noise else _combined(COMBINE[answer][leaving.combine], temperature, answer)  # type: ignore[index]

        def says(said: Sequence[Tensor]) -> Tensor:
            return together([each[:, order] for each, order in zip(said, orders, strict=True)])

        return [Speaker("votes" if noise else "ensemble", tuple(specs), names, says, keeps, output)]

    def alone(said: Sequence[Tensor]) -> Tensor:
        return _softened(said[0], temperature, answer) if softened else said[0]

    return [Speaker(called(name), (name,), spec.names, alone, keeps, output) for name, spec in specs.items()]


def called(name: str) -> str:
    """Of a cohort's member, `trio.a`, what a file may be called."""
    return name.replace(".", "-")


def _softened(said: Tensor, temperature: float, answer: AnswerName) -> Tensor:
    return torch.log_softmax(said / temperature, -1) if answer == "class_axis" else said / temperature


def _combined(rule: Callable[..., tuple[Tensor, Tensor]], temperature: float, answer: AnswerName) -> Says:
    def says(said: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack([*said])
        known = ~stacked.isnan()
        target, _ = rule(stacked.masked_fill(~known, 0.0), temperature=temperature, known=known)
        target = target if answer == "values" else _softened(target, temperature, answer)
        return target.masked_fill(~known.any(0), torch.nan)

    return says


def _votes(noise: Privacy, changed: dict[str, float]) -> Says:
    def says(said: Sequence[Tensor]) -> Tensor:
        votes = np.zeros(said[0].shape, np.int64)
        for each in said:
            known = ~each[:, 0].isnan().numpy()
            votes[np.flatnonzero(known), each.argmax(1).numpy()[known]] += 1
        found = noisy_labels(votes, noise.sigma)
        changed["votes"] = changed.get("votes", 0.0) + float((votes.max(1) > votes[np.arange(len(found)), found]).sum())
        return torch.nn.functional.one_hot(torch.from_numpy(found), said[0].shape[1]).float()

    return says


def _write(speaker: Speaker, segments: Sequence[Answered], answer: AnswerName, folder: Path, leaving: Leaving) -> Voice:
    file = f"{speaker.name}.arrow"
    schema, columns = columns_of(speaker.keeps, answer, speaker.names, leaving.top_k or 0)
    num_rows = 0
    with writing(folder / file, schema) as writer:
        for keys, said in _windows(speaker, segments):
            writer.write_batch(pa.record_batch([pa.array(keys), *columns(said)], schema=schema))
            num_rows += len(keys)
    path = folder / file
    return Voice(
        name=speaker.name,
        teachers=len(speaker.teachers),
        file=file,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        rows=num_rows,
        names=list(speaker.names),
        keeps=speaker.keeps,
        output="classes"
        if speaker.keeps == "labels"
        else "probabilities"
        if speaker.keeps == "top_k"
        else speaker.output,
    )


def _windows(speaker: Speaker, segments: Sequence[Answered]) -> Iterator[tuple[NDArray[np.uint64], Tensor]]:
    """(keys, what is said of them), some rows at a time."""
    window = max(1, WINDOW_BYTES // (4 * len(speaker.names) * len(speaker.teachers)))
    for segment in segments:
        opened = [SoftTargets.open(segment.stores[name].folder) for name in speaker.teachers]
        keys = opened[0].keys()
        for first in range(0, len(keys), window):
            rows = slice(first, min(first + window, len(keys)))
            yield keys[rows], speaker.says([answers_of(each, rows) for each in opened])
