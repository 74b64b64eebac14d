"""Everything from the soft targets on: batches, losses, training, evaluation, export. Importing this imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teachers.models.folder import LoadedModel


def load(folder: str | Path, *, trust: Sequence[str] = (), device: str = "cpu") -> "LoadedModel":
    """Open a student's folder: `load(folder)({"image": uint8 [rows, H, W, C]})` gives logits f32 [rows, classes].

    `trust` names architectures beyond Collegium's own that the folder may name. Raises StoreError for any other.
    """
    from teachers.models.folder import load_model

    return load_model(Path(folder), trust=trust, device=device)
