"""A store of another OUT, or of somebody else's, read as predictions: what a teacher said there is said here, of the rows of the same keys."""

from functools import lru_cache
from pathlib import Path

from ..config.predictions import PredictionsTeacher
from ..config.transfer_set import TableSource
from ..errors import RecipeError
from ..soft_targets.schema import KEY, Spec
from ..soft_targets.store import SoftTargetStore
from ..sources.files import File
from ..storage.seal import read_seal


def digest_of_store(path: Path) -> str:
    """Of its content. Raises RecipeError for one that is not whole yet."""
    if (sealed := read_seal(path)) is None:
        raise RecipeError(f"path: {path} is a store that is not finished; run its own recipe to the end first")
    return sealed.digest


def files_of_store(config: PredictionsTeacher, path: Path) -> tuple[File, ...]:
    """Its shards, in the order of their rows. Raises RecipeError for a store that is not whole, or that says something else."""
    spec = spec_of(path)
    if spec.encoding == "label" or spec.answer == "boxes":
        kept = "boxes" if spec.answer == "boxes" else "classes alone"
        raise RecipeError(
            f"path: {path} keeps {kept}; write them as a table: `collegium store export {path} --parquet FILE`"
        )
    expected = "values" if spec.answer == "values" else "logits"
    if config.output != expected or config.sample_key != KEY or config.scores is not None:
        raise RecipeError(
            f"path: {path} is a store, of {expected} by the rows' keys; say `output: {expected}` and `sample_key: {KEY}`, and leave "
            f"`scores` out"
        )
    digest_of_store(path)
    store = SoftTargetStore.open(path)
    if missing := store.missing():
        raise RecipeError(
            f"path: {path} lacks {len(missing)} of {store.num_shards} shards; repair it by its own recipe"
        )
    source = TableSource(kind="arrow", path=str(path))
    return tuple(File(source, path, name) for name in store.records().table["path"].to_pylist())


def column_of_store(path: Path) -> str:
    """That holds the numbers."""
    return next(iter(spec_of(path).answered.fields))


@lru_cache(maxsize=64)
def spec_of(path: Path) -> Spec:
    return SoftTargetStore.open(path).spec
