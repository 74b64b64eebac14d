"""From whatever a source holds to canonical inputs: uint8 HWC images, float features, hashes of categories, text.

Bad rows are told, not raised. Features are float32, or float64 where float32 would round what the source can hold: they
are rounded once, after they are normalised. Knows nothing of splits or keys, or of dictionaries. No Python per row but
where an encoded image is decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..config.preprocess import FitName
from ..config.transfer_set import ResampleName
from ..errors import StoreError
from ..storage.seal import inside
from ..transfer_set.columns import Column, Kind
from ..transfer_set.decoding import pool
from ..transfer_set.images import BadRow, Resize, decode_image, in_channels, resized
from .arrow_types import is_list, shape_of, storage_shape
from .bad_rows import Bad, tell
from .categories import Texts, hashed
from .scalars import NULLS, How, leaves, numbers
from .text import texts_in


@dataclass(frozen=True)
class InputPlan:
    """How one canonical column is made of the columns `sources`.

    `raw`: the shape of a row as it is stored, None for encoded images; `edge`: what images are resized to, by `fit` and
    `resample`.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    raw: tuple[int, ...] | None
    shape: tuple[int, ...]
    edge: int | None = None
    fit: FitName = "squash"
    resample: ResampleName = "bilinear"
    wide: bool = False
    """Numbers that are kept in float64."""
    types: tuple[str, ...] = ()
    """Of `sources`, in Arrow's words."""
    how: tuple[How, ...] = ()
    """How scalars are read, one for each of `sources`."""
    fixed: bool = False
    """A model is there that takes `shape`: colour becomes grey where it takes grey, a flat image has its own channels."""
    encoded: bool = False
    """Images are only looked at, and kept as they came."""

    def document(self) -> dict[str, Any]:
        """JSON for a manifest or a model folder, whose model decodes what it is given."""
        fields = {name: value for name, value in asdict(self).items() if name != "encoded"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What `document` gave. Raises TypeError for anything else."""
        fields: dict[str, Any] = {
            k: tuple(value) if isinstance(value, list) else value for k, value in document.items()
        }
        hows = [{**how, "nulls": tuple(how["nulls"])} for how in fields.pop("how")]
        return cls(**fields, how=tuple(How(**how) for how in hows))

    @property
    def resize(self) -> Resize | None:
        return None if self.edge is None else Resize(self.edge, self.fit, self.resample)

    @property
    def column(self) -> Column:
        """Before the training rows are known."""
        if self.kind == "category":
            return Column(self.name, self.kind, self.shape, (), (), names=self.sources)
        if self.kind == "text":
            return Column(self.name, self.kind, self.shape, (), (), missing=(0,))
        if self.encoded:
            return Column(self.name, self.kind, self.shape, (), (), encoded=True, fit=self.fit, resample=self.resample)
        missing = (0,) * self.shape[0] if any(how.missing for how in self.how) else ()
        return Column(self.name, self.kind, self.shape, (), (), self.wide, missing)


def in_colour(plan: InputPlan) -> InputPlan:
    """The same for images of which some are not grey."""
    return changed(plan, shape=(*plan.shape[:2], 3))


def decode(
    batch: pa.RecordBatch, plans: Sequence[InputPlan], root: Path | None, texts: Texts | None = None
) -> tuple[dict[str, NDArray[Any]], Bad]:
    """({column: [rows, *shape]}, bad rows); the values of bad rows mean nothing.

    Categories are hashes u64 [rows, K]; `texts` gets what they are of.
    """
    bad: Bad = {}
    inputs = {plan.name: _decode_column(batch, plan, root, bad, texts) for plan in plans}
    return inputs, bad


def _decode_column(
    batch: pa.RecordBatch, plan: InputPlan, root: Path | None, bad: Bad, texts: Texts | None
) -> NDArray[Any]:
    if plan.raw is None and plan.encoded:
        return looked_at(batch.column(plan.sources[0]), plan, root, bad)
    if plan.raw is None:
        return _decode_images(batch.column(plan.sources[0]), plan, root, bad)
    if plan.kind == "text":
        return texts_in(plan.name, batch.column(plan.sources[0]), plan.how[0], bad)
    if plan.raw == ():
        each = [(name, batch.column(name), how) for name, how in zip(plan.sources, plan.how, strict=True)]
        if plan.kind == "category":
            return np.stack([_hashes(*one, bad, texts) for one in each], axis=1)
        return np.stack([_scalars(*one, plan.column.dtype, bad) for one in each], axis=1)
    if plan.kind == "number":
        return _numbers(plan.name, batch.column(plan.sources[0]), plan.raw, plan.column.dtype, bad)
    values = _values(plan.name, batch.column(plan.sources[0]), plan.raw, bad)
    if values.dtype != np.uint8:
        outside = ((values < 0) | (values > 255)).reshape(len(values), -1).any(axis=1)
        tell(bad, outside, lambda row: f"{plan.name} has values outside 0 to 255")
        values = values.astype(np.uint8)
    images = in_channels(values if values.ndim == 4 else values[..., None], plan.shape[2])
    return images if plan.resize is None else resized(images, plan.resize)


def _decode_images(array: pa.Array, plan: InputPlan, root: Path | None, bad: Bad) -> NDArray[np.uint8]:
    out = np.zeros((len(array), *plan.shape), np.uint8)
    height, width, channels = plan.shape
    for row, value in enumerate(array.to_pylist()):
        try:
            pixels = decode_image(payload_of(value, root), channels=channels, resize=plan.resize, to_grey=plan.fixed)
        except BadRow as error:
            bad.setdefault(row, f"{plan.name}: {error}")
            continue
        if pixels.shape == plan.shape:
            out[row] = pixels
        else:
            expected = (
                f"the model takes {height} x {width}"
                if plan.fixed
                else f"the rest have {height} x {width}; give `image_size`"
            )
            bad.setdefault(row, f"{plan.name}: {pixels.shape[0]} x {pixels.shape[1]} pixels, {expected}")
    return out


def looked_at(array: pa.Array, plan: InputPlan, root: Path | None, bad: Bad) -> NDArray[Any]:
    """`bytes` [rows] of encoded images, each of which can be decoded; empty in bad rows."""
    out = np.full(len(array), b"", object)

    def look(row: int) -> tuple[int, bytes | str]:
        try:
            payload = payload_of(array[row].as_py(), root)
            decode_image(payload, channels=plan.shape[2], resize=plan.resize)
        except BadRow as error:
            return row, f"{plan.name}: {error}"
        return row, payload

    for row, found in pool().map(look, range(len(array))):
        if isinstance(found, str):
            bad.setdefault(row, found)
        else:
            out[row] = found
    return out


def payload_of(value: Any, root: Path | None) -> bytes:
    """The bytes of an encoded image: its own, or of the file that it names inside the source's root."""
    if isinstance(value, dict):
        payload, path = value.get("bytes"), value.get("path")
    else:
        payload, path = value, None
    if payload is not None:
        return bytes(payload)
    if path is None:
        raise BadRow("missing")
    if root is None:
        raise BadRow(f"names the file {path!r}; a source without files must give the bytes")
    try:
        file = inside(root, path)
        if file.exists() and not file.is_file():  # a folder, or a pipe that nobody writes to
            raise BadRow(f"{path!r} is no file")
        return file.read_bytes()
    except ValueError as error:
        raise BadRow(f"the path {path!r} is none ({error})") from error
    except StoreError as error:
        raise BadRow(f"the path {path!r} leaves the source's folder, or is a link to itself") from error
    except OSError as error:
        raise BadRow(f"the file {path!r} cannot be read: {error.strerror}") from error


def _hashes(name: str, array: pa.Array, how: How, bad: Bad, texts: Texts | None) -> NDArray[np.uint64]:
    found, odd = hashed(array, how, texts)
    tell(bad, odd, lambda row: f"{name} is {array[row].as_py()!r}, which names no category")
    if not how.missing:
        tell(bad, found == 0, lambda row: f"{name} is missing; `missing: allow` takes that for a category of its own")
    return found


def _scalars(name: str, array: pa.Array, how: How, dtype: np.dtype[Any], bad: Bad) -> NDArray[Any]:
    """[rows] in `dtype`; NaN where a value may be missing and is, else that is bad, as is what is not finite in float32."""
    values, none, wrong = numbers(array, how)
    tell(bad, wrong, lambda row: no_scalar(name, array[row].as_py(), how))
    if how.missing:
        none = none | np.isnan(values) if values.dtype.kind == "f" else none
        values = np.where(none, np.nan, values)
    else:
        tell(bad, none, lambda row: f"{name} is missing; `missing: allow` takes that")
    return _narrowed(name, values, (), dtype, bad, may_be_nan=none if how.missing else None)


def no_scalar(name: str, value: Any, how: How) -> str:
    """Why a value is bad that is neither a number nor a date, as `how` has it."""
    kind = "not a number" if how.unit is None else "no date" + (f" like {how.format}" if how.format else "")
    return f"{name} is {value!r}, {kind}" + "; `missing: allow` takes it for none" * (value in NULLS)


def _numbers(name: str, array: pa.Array, shape: tuple[int, ...], dtype: np.dtype[Any], bad: Bad) -> NDArray[Any]:
    """[rows, *shape] in `dtype`; what is not finite in float32 is bad."""
    return _narrowed(name, _values(name, array, shape, bad), shape, dtype, bad)


def _narrowed(
    name: str,
    values: NDArray[Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    bad: Bad,
    may_be_nan: NDArray[np.bool_] | None = None,
) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(narrow := values.astype(np.float32)).reshape(len(values), -1)
    if may_be_nan is not None:
        finite |= may_be_nan[:, None]
    out = narrow if dtype == np.float32 else values.astype(dtype)

    def reason(row: int) -> str:
        at = int(np.flatnonzero(~finite[row])[0])
        where = f"{name}[{at}]" if shape else name
        return f"{where} is {values.reshape(len(out), -1)[row, at]}, not a finite float32"

    tell(bad, ~finite.all(axis=1), reason)
    return out


def _values(name: str, array: pa.Array, shape: tuple[int, ...], bad: Bad) -> NDArray[Any]:
    """[rows, *shape], 0 in bad rows."""
    values, wrong = nested(array, shape)

    def reason(row: int) -> str:
        value = array[row]
        if not value.is_valid:
            return f"{name} is missing"
        found = shape_of(value)
        if found != shape:
            return f"{name} has shape {list(found)}, the rest have {list(shape)}"
        return f"{name} has a missing value"

    tell(bad, wrong, reason)
    return values


def nested(array: pa.Array, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """([rows, *shape] with 0 where nothing fits, bool [rows]: which rows do not)."""
    if isinstance(array.type, pa.FixedShapeTensorType) and tuple(array.type.shape) != shape:
        return np.zeros((len(array), *shape), np.uint8), np.ones(len(array), bool)
    if isinstance(array, pa.ExtensionArray):
        flat, wrong = nested(array.storage, storage_shape(array.type, shape))
        return flat.reshape(len(array), *shape), wrong
    if not shape:
        return leaves(array)
    if not is_list(array.type):
        return np.zeros((len(array), *shape), np.uint8), np.ones(len(array), bool)
    fits = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(array), shape[0]), False))
    inner = array if fits.all() and not array.null_count else array.filter(pa.array(fits))
    values, wrong_inner = nested(inner.flatten(), shape[1:])
    values = values.reshape(-1, *shape)
    wrong = ~fits
    wrong[fits] |= wrong_inner.reshape(-1, shape[0]).any(axis=1)
    if len(values) == len(array):
        return values, wrong
    out = np.zeros((len(array), *shape), values.dtype)
    out[fits] = values
    return out, wrong
