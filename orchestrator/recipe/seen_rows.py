"""Whether a teacher from elsewhere learnt rows that are tested here: its folder, or the OUT around it, says by which split.

Compares what two recipes say of the source and its splits; reads no row of it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from teachers.config.transfer_set import Source, SplitConfig, TransferSetConfig

from .model import Recipe

SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


@dataclass(frozen=True)
class Learnt:
    """The rows that a model was trained and chosen with. `source` and `source_digest`: as far as they are known."""

    split: SplitConfig
    id: str | None
    key_salt: str
    source: Source | None
    source_digest: str | None


def seen_problems(recipe: Recipe, source_digest: str | None = None) -> Iterator[str]:
    """Teachers that learnt test rows of this recipe. `source_digest`: of its source; without it only the paths tell."""
    for name, teacher in recipe.teachers.items():
        if teacher.kind != "checkpoint":
            continue
        try:
            learnt = learnt_by(Path(teacher.path))
        except (ValidationError, yaml.YAMLError, KeyError, TypeError, ValueError):
            yield (
                f"teachers.{name}.path: the recipe that lies in {teacher.path} cannot be read by this program, so nobody "
                f"knows whether that model learnt rows that are tested here; export it again"
            )
            continue
        if learnt is None or not _same_source(learnt, recipe.transfer_set, source_digest):
            continue
        if differs := _learnt_test_rows(learnt, recipe.transfer_set):
            yield (
                f"teachers.{name}.path: the model in {teacher.path} learnt rows of the same source that are tested here "
                f"({differs}), so every figure would flatter; give both recipes one split, or train that model again"
            )


def learnt_by(folder: Path) -> Learnt | None:
    """What an exported model folder, or a training in an OUT, was learnt from; None where nothing says so.

    Raises ValidationError, YAMLError, KeyError, TypeError or ValueError for a record that cannot be read.
    """
    if (folder / "recipe.yaml").is_file():
        transfer_set = yaml.safe_load((folder / "recipe.yaml").read_bytes())["transfer_set"]
        figures = folder / "metrics.json"
        digest = json.loads(figures.read_bytes()).get("source_digest") if figures.is_file() else None
        return _learnt(transfer_set, SOURCE.validate_python(transfer_set["source"]), digest)
    for stage in folder.resolve().parents:
        if (stage / "STAGE.json").is_file():
            return _of_training(stage)
    return None


def _of_training(stage: Path) -> Learnt | None:
    """Of the folder of a training stage: its transfer set lies in the same OUT."""
    wanted = json.loads((stage / "STAGE.json").read_bytes())["inputs"].get("transfer set")
    for seal in (stage.parent.parent / "prepared").glob("*/SEAL.json"):
        if json.loads(seal.read_bytes())["digest"] == wanted:
            prepared = json.loads((seal.parent / "STAGE.json").read_bytes())
            return _learnt(prepared["config"], None, prepared["inputs"]["source"])
    return None


def _learnt(transfer_set: Mapping[str, Any], source: Source | None, digest: str | None) -> Learnt:
    split = SplitConfig.model_validate(transfer_set["split"])
    return Learnt(split, transfer_set["id"], transfer_set["key_salt"], source, digest)


def _same_source(learnt: Learnt, ours: TransferSetConfig, digest: str | None) -> bool:
    if digest is not None and learnt.source_digest == digest:
        return True
    return learnt.source is not None and _absolute(learnt.source) == _absolute(ours.source)


def _absolute(source: Source) -> dict[str, Any]:
    described: dict[str, Any] = source.model_dump(mode="json")
    return described | {"path": str(Path(described["path"]).resolve())} if "path" in described else described


def _learnt_test_rows(learnt: Learnt, ours: TransferSetConfig) -> str:
    """Why some test rows of ours may be among its training or validation rows; empty where none is.

    Who is tested is decided by a hash of a row's key, the lowest share: with the same keys and seed a test split that is
    not larger lies inside the other one.
    """
    there, here = learnt.split, ours.split
    if there.files is not None and here.files is not None:
        learns = {"train": there.files.train, "validation": there.files.validation}
        same = [split for split, file in learns.items() if file == here.files.test]
        return f"its {same[0]} file is {here.files.test}, the test file here" if same else ""
    if (there.files is None) != (here.files is None):
        named = "by files there, by shares here" if there.files else "by shares there, by files here"
        return f"split {named}"
    pairs = {
        "split.seed": (there.seed, here.seed),
        "split.group_by": (there.group_by, here.group_by),
        "split.stratify": (there.stratify, here.stratify),
        "id": (learnt.id, ours.id),
        "key_salt": (learnt.key_salt, ours.key_salt),
    }
    told = [f"{key} {theirs!r} there, {own!r} here" for key, (theirs, own) in pairs.items() if theirs != own]
    if not told and here.stratify and _shares(there) != _shares(here):  # where a class is cut follows from all of them
        told = [f"shares {_shares(there)} there, {_shares(here)} here, and `stratify`"]
    if not told and here.test_share > there.test_share + 1e-9:
        told = [f"split.test {there.test_share:g} there, {here.test_share:g} here"]
    return ", ".join(told)


def _shares(split: SplitConfig) -> str:
    train = "the rest" if split.train is None else f"{split.train:g}"
    return f"{train}, {split.validation_share:g}, {split.test_share:g}"
