"""The bytes of one shard and its record, from what a teacher said. Knows nothing of folders."""

from collections.abc import Mapping, Sequence

import crc32c
import numpy as np
import pyarrow as pa
import torch
import xxhash

from ..errors import StoreError, TeacherError
from .encodings.features import LARGEST
from .schema import Commit, Output, Spec, shard_path


def build_shard(
    spec: Spec, number: int, sample_key: np.ndarray, outputs: Mapping[str, np.ndarray]
) -> tuple[Commit, pa.Buffer]:
    """Encode `outputs` {name: float [rows, width]} of the rows `sample_key` u64 [rows], strictly ascending.

    NaN is what an answer does not know: of one class of many in whole rows, else anywhere. Returns the record and the file:
    Arrow IPC, one record batch, uncompressed. Raises TeacherError for what is not finite otherwise, naming keys, and
    StoreError for rows or widths that are not this shard's.
    """
    keys = _checked_keys(spec, number, sample_key)
    checked = [_checked(spec, output, keys, outputs[name]) for output, name in zip(spec.said, spec.named, strict=True)]
    encoded = [output.encodes.encode(said) for output, said in zip(spec.said, checked, strict=True)]
    unknown = checked[0].isnan()
    payload = _arrow_file(spec, keys, [values for columns in encoded for values in columns.values()])
    xxh3_128 = xxhash.xxh3_128_hexdigest(payload)
    record = Commit(
        shard=number,
        first_row=spec.shard_rows(number)[0],
        num_rows=len(keys),
        bytes=len(payload),
        path=shard_path(number, xxh3_128),
        xxh3_128=xxh3_128,
        crc32c=crc32c.crc32c(payload),
        min_key=int(keys[0]),
        max_key=int(keys[-1]),
        unknown_rows=int(unknown.all(1).sum()),
        unknown_elements=int(unknown.sum()),
    )
    return record, payload


def _checked_keys(spec: Spec, number: int, sample_key: np.ndarray) -> np.ndarray:
    num_rows = spec.shard_rows(number)[1]
    if sample_key.shape != (num_rows,) or sample_key.dtype != np.uint64:
        raise StoreError(
            f"shard {number} of {spec.teacher}/{spec.segment} takes {num_rows} keys uint64, "
            f"found {sample_key.dtype} {list(sample_key.shape)}"
        )
    if not (sample_key[1:] > sample_key[:-1]).all():
        raise StoreError(f"shard {number} of {spec.teacher}/{spec.segment}: sample_key must ascend, each key once")
    return sample_key


def _checked(spec: Spec, output: Output, keys: np.ndarray, said: np.ndarray) -> torch.Tensor:
    if output.answer == "features":
        return _checked_features(spec, output, keys, said)
    expected = (len(keys), output.width)
    if said.shape != expected:
        raise StoreError(
            f"teacher {spec.teacher!r} gave {list(said.shape)} values as {output.name}, {list(expected)} expected: rows, "
            f"and a value for each of its {'names' if output == spec.answered else 'elements'}"
        )
    with np.errstate(over="ignore"):
        values = np.require(said, np.float32, ["C", "W"])
    if not (finite := np.isfinite(values)).all():
        unknown = np.isnan(values) if output == spec.answered else np.zeros_like(finite)
        if spec.answer in ("class_axis", "boxes"):
            unknown &= unknown.all(axis=1, keepdims=True)
        broken = keys[~(finite | unknown).all(axis=1)]
        if len(broken):
            raise TeacherError(
                f"teacher {spec.teacher!r} gave NaN or infinite values for {len(broken)} of {len(keys)} rows, finite ones "
                f"expected; the first sample_keys of them: {', '.join(map(str, broken[:10].tolist()))}"
            )
        values[unknown] = np.nan  # of all that are not a number the same one: the bytes are a store's name
    return torch.from_numpy(values)


def _checked_features(spec: Spec, output: Output, keys: np.ndarray, said: np.ndarray) -> torch.Tensor:
    """f32 `[rows, width]` of features `[rows, *shape]`, which float16 can hold."""
    expected = (len(keys), *output.shape)
    if said.shape != expected:
        raise StoreError(
            f"teacher {spec.teacher!r} gave {list(said.shape)} values as {output.name}, {list(expected)} expected: of every row "
            f"as many as when its store was made"
        )
    values = np.require(said, np.float32, ["C", "W"]).reshape(len(keys), output.width)
    fits = (np.abs(values) <= LARGEST).all(axis=1)  # not NaN either
    if not fits.all():
        broken = keys[~fits]
        finite = np.isfinite(values[~fits]).all()
        what = f"values beyond {LARGEST:,.0f}, the largest of float16," if finite else "NaN or infinite values"
        cure = "; name a layer behind a normalisation, or take it live (`mode: live`)" if finite else ""
        raise TeacherError(
            f"teacher {spec.teacher!r} gave {what} as {output.name} for {len(broken)} of {len(keys)} rows; the first "
            f"sample_keys of them: {', '.join(map(str, broken[:10].tolist()))}{cure}"
        )
    return torch.from_numpy(values)


def _arrow_file(spec: Spec, keys: np.ndarray, encoded: Sequence[torch.Tensor]) -> pa.Buffer:
    schema = spec.schema()
    columns = [pa.array(keys)]
    for field, values in zip(list(schema)[1:], encoded, strict=True):
        flat = pa.array(values.numpy().reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type) if values.ndim > 1 else flat)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue()
