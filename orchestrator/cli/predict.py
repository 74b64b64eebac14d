"""`collegium predict`: a model folder's classes for the rows of a file."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import DataError, RecipeError

KINDS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".jsonl": "jsonl", ".npz": "numpy", ".npy": "numpy"}
ROWS = 1024


def predict_file(
    folder: Path,
    source: Path,
    output: Path | None,
    *,
    inputs: Sequence[str] = (),
    trust: Sequence[str] = (),
    tell: Callable[[str], None],
) -> None:
    """Write `id, class, probability` of every row to `output`, or as JSON lines to `tell`.

    `inputs`: columns of `source` that are the model's input; those of the same names by default. Raises RecipeError for
    a source that does not fit the model, DataError for rows that cannot be used.
    """
    import students
    from students.delivering.predict import predict, write_predictions

    model = students.load(folder, trust=trust)
    columns = model.preprocessor.columns
    batches = predict(model, _rows(_config(source, inputs, columns, model.config.classes), columns))
    if output is not None:
        tell(f"wrote {write_predictions(output, batches):,} rows to {output}")
        return
    for batch in batches:
        for row in batch.to_pylist():
            tell(json.dumps(row, ensure_ascii=False))


def _config(source: Path, inputs: Sequence[str], columns: Sequence[Any], classes: Sequence[str]) -> TransferSetConfig:
    kind = KINDS.get(source.suffix) or _kind_of_folder(source)
    edges = {column.shape[0] for column in columns if column.kind == "image" and column.shape[0] == column.shape[1]}
    given = {"kind": kind, "path": str(source)}
    return TransferSetConfig.model_validate(
        {
            "source": given,
            "inputs": list(inputs) or [column.name for column in columns],
            "label": None,
            "classes": list(classes),
            "image_size": edges.pop() if len(edges) == 1 else None,
        }
    )


def _kind_of_folder(source: Path) -> str:
    if not source.is_dir():
        raise RecipeError(f"{source}: expected a folder, or a file that ends in {', '.join(KINDS)}")
    found = {KINDS[path.suffix] for path in source.rglob("*") if path.suffix in KINDS}
    return found.pop() if len(found) == 1 else "image_folder"


def _rows(config: TransferSetConfig, columns: Sequence[Any]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    from teachers.preparing.canonical import decode
    from teachers.preparing.look import look
    from teachers.sources import chunks_of, files_of, read

    seen = look(config)
    found = {column.name: column.shape for column in seen.columns}
    expected = {column.name: column.shape for column in columns}
    if found != expected:
        raise RecipeError(f"the source gives {found}, the model takes {expected}; name its columns with --inputs")
    names = [name for plan in seen.plans for name in plan.sources]
    for chunk in chunks_of(files_of(config), ROWS):
        for batch in read(chunk, names, ROWS):
            inputs, bad = decode(batch.data, seen.plans, seen.root)
            told = [f"{batch.positions[row]}: {reason}" for row, reason in sorted(bad.items())]
            told += [f"{position}: {reason}" for position, reason in batch.bad]
            if told:
                raise DataError("\n".join([*told[:20], f"{len(told)} rows cannot be used"]))
            yield list(batch.positions), inputs
