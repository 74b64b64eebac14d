"""Everything from the soft targets on: batches, losses, training, evaluation, export. Importing this imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teachers.models.folder import LoadedModel


def load(folder: str | Path, *, trust: Sequence[str] = (), device: str = "cpu") -> "LoadedModel":
    """Open a student's folder: `load(folder)({"image": uint8 [rows, H, W, C]})` gives logits f32 [rows, classes].

    It is an `nn.Module`, its preprocessing inside. `trust` names code beyond Collegium's own architectures that the folder
    may name; the working directory is looked in, too. Raises StoreError for any other.
    """
    from teachers.models.folder import load_model
    from teachers.users_code.imports import also_from

    if trust:
        also_from(Path.cwd())
    return load_model(Path(folder), trust=trust, device=device, vouching="python")
