"""Everything from the soft targets on: batches, losses, training, evaluation, export. Importing this imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from teachers.models.folder import LoadedModel


def load(folder: str | Path, *, trust: Sequence[str] = (), device: str = "cpu") -> "LoadedModel":
    """Open a student's folder: `load(folder)({"image": uint8 [rows, H, W, C]})` gives logits f32 [rows, classes], numbers in the
    units of the label, or boxes f32 [rows, M * 6] as `teachers.tasks.boxes` has them.

    It is an `nn.Module`, its preprocessing inside. `trust` names code beyond Collegium's own architectures that the folder
    may name; the working directory is looked in, too. Raises StoreError for any other.
    """
    from teachers.models.folder import load_model
    from teachers.users_code.imports import also_from

    if trust:
        also_from(Path.cwd())
    return load_model(Path(folder), trust=trust, device=device, vouching="python")


def canonical(model: "LoadedModel", table: "pa.Table") -> "dict[str, NDArray[Any]]":
    """What `model` takes of a table with the columns of its source: `model(canonical(model, table))`.

    Categories are coded by the model's own dictionaries. Raises RecipeError for columns that are not there, DataError for
    a row that cannot be used.
    """
    from .delivering.source import canonical as of_table

    return of_table(model.config, table)
