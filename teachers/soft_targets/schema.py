"""What a soft-target store says of itself: its spec, the record of a committed shard, its Arrow schema. Format 2.

Knows nothing of where these are written. Both documents carry a digest of their own fields and have one spelling, so
that no changed byte of them goes unnoticed.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from ..config.any_teacher import EncodingName
from ..config.task import AnswerName
from ..errors import StoreError
from ..storage.bucket import Expected
from ..storage.seal import check_format, digest_of
from ..tasks.boxes import width_of
from .encodings.encoding import Encoding, Field
from .encodings.features import FEATURES, FeaturesName, HalfName
from .encodings.table import ENCODINGS

FORMAT = 2
KEY = "sample_key"
MAX_SHARD_BYTES = 64 << 20
SAID_AS: dict[AnswerName, str] = {"class_axis": "logits", "class_set": "logits", "values": "values", "boxes": "boxes"}


def rows_per_shard(num_rows: int, bytes_per_row: int) -> int:
    """A sixty-fourth of the rows, but 64 to 65,536 of them and at most 64 MiB: small enough to share and to lose."""
    return min(max(-(-num_rows // 64), 64), 65_536, max(MAX_SHARD_BYTES // bytes_per_row, 1))


@dataclass(frozen=True)
class Output:
    """One thing that a teacher says of a row: f32 `[width]`, kept as `encoding` does; its columns begin with `name`."""

    name: str
    answer: AnswerName | FeaturesName
    encoding: EncodingName | HalfName
    width: int
    shape: tuple[int, ...] = ()
    """Of features, which are kept flat; `width` is their number."""

    @classmethod
    def of_layer(cls, name: str, shape: tuple[int, ...]) -> Self:
        """What a layer gives of a row."""
        return cls(name, "features", "half", math.prod(shape), shape)

    @property
    def encodes(self) -> Encoding:
        if self.answer == "features":
            assert self.encoding == "half"
            return FEATURES[self.encoding]
        assert self.encoding != "half"
        return ENCODINGS[self.answer][self.encoding]

    @property
    def fields(self) -> dict[str, Field]:
        """By their names in the files: `logits.value` and so on."""
        return {f"{self.name}.{field.name}": field for field in self.encodes.fields(self.width)}


@dataclass(frozen=True)
class Spec:
    """The identity of a store: everything that decides its content, and what teacher and segment are called there.

    Names decide nothing: stores of two names are one, and so are their digests.
    """

    teacher: str = field(compare=False)
    teacher_digest: str
    segment: str = field(compare=False)
    segment_digest: str
    encoding: EncodingName
    names: tuple[str, ...]
    """Of the classes or numbers that it says, in its order."""
    num_rows: int
    rows_per_shard: int
    answer: AnswerName = "class_axis"
    more: tuple[Output, ...] = ()
    """What it says besides its answer."""
    max_boxes: int = 0
    """Of a row, at most; 0 where it says no boxes."""

    @property
    def answered(self) -> Output:
        """Its answer as one of its outputs."""
        name = ENCODINGS[self.answer][self.encoding].output
        return Output(name, self.answer, self.encoding, width_of(self.names, self.max_boxes))

    @property
    def said(self) -> tuple[Output, ...]:
        """The answer first."""
        return self.answered, *self.more

    @property
    def named(self) -> tuple[str, ...]:
        """By which each of `said` is given to a store: of the answer what it is before it is encoded."""
        return SAID_AS[self.answer], *(output.name for output in self.more)

    @property
    def fields(self) -> dict[str, Field]:
        """The columns beside `sample_key`, by their names in the files."""
        return {name: field for output in self.said for name, field in output.fields.items()}

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """{name: {kind, shape, dtype}} of what the teacher said."""
        values = {output.name: (output, output.encodes.fields(output.width)[0]) for output in self.said}
        return {
            name: {"kind": output.encoding, "shape": list(output.shape or value.shape), "dtype": value.dtype.name}
            for name, (output, value) in values.items()
        }

    @property
    def layers(self) -> dict[str, Output]:
        """What layers give, by name."""
        return {output.name: output for output in self.more if output.answer == "features"}

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.rows_per_shard)

    def shard_rows(self, number: int) -> tuple[int, int]:
        """First row and number of rows of a shard. IndexError for a shard that the store does not have."""
        if not 0 <= number < self.num_shards:
            raise IndexError(f"shard {number} of {self.num_shards}")
        first_row = number * self.rows_per_shard
        return first_row, min(self.rows_per_shard, self.num_rows - first_row)

    def rows_of(self, numbers: Sequence[int]) -> int:
        """Of these shards together."""
        short = self.num_shards * self.rows_per_shard - self.num_rows if self.num_shards - 1 in numbers else 0
        return len(numbers) * self.rows_per_shard - short

    def schema(self) -> pa.Schema:
        """The Arrow schema of every shard: `sample_key` and one non-null column a field."""
        columns = [pa.field(KEY, pa.uint64(), nullable=False)]
        columns += [pa.field(name, _arrow_type(field), nullable=False) for name, field in self.fields.items()]
        return pa.schema(columns, metadata={"collegium.format": str(FORMAT), "collegium.encoding": self.encoding})

    def to_json(self) -> dict[str, Any]:
        more = [{**asdict(output), "shape": list(output.shape)} for output in self.more]
        lists = {"names": list(self.names), "more": more}
        named = {name: value for name, value in asdict(self).items() if value or name not in LATER}
        return {"format": FORMAT, **named, **lists, "outputs": self.outputs}

    def identity(self) -> dict[str, Any]:
        """What a digest of the store is made of."""
        return {name: value for name, value in self.to_json().items() if name not in ("teacher", "segment")}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], path: Path) -> Self:
        """Raises StoreError, naming `path`, for another format and for what no version of this program wrote."""
        check_format(document, FORMAT, path)
        try:
            known = {**dict.fromkeys(LATER, 0), **document}
            named = {name: known[name] for name in cls.__dataclass_fields__}
            more = tuple(Output(**{**output, "shape": tuple(output["shape"])}) for output in named["more"])
            spec = cls(**{**named, "names": tuple(named["names"]), "more": more})
            if spec.to_json() != {name: value for name, value in document.items() if name != "digest"}:
                raise ValueError("unknown or contradictory fields")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{path}: not the spec of a store ({error!r}); run the recipe again to rebuild it"
            ) from error
        return spec


@dataclass(frozen=True)
class Commit:
    """The record of one shard: proof that it is whole. `path` is relative to the store."""

    shard: int
    first_row: int
    num_rows: int
    bytes: int
    path: str
    xxh3_128: str
    crc32c: int
    min_key: int
    max_key: int
    unknown_rows: int = 0
    """Of which the teacher knows nothing."""
    unknown_elements: int = 0
    """Classes or numbers of rows that it does not know, these rows' among them."""
    cut_off: int = 0
    """Texts of which the teacher read only the beginning."""

    @property
    def expected(self) -> Expected:
        """Of its file, for who brings it from elsewhere."""
        return Expected(self.bytes, "xxh3_128", self.xxh3_128)

    def to_json(self) -> dict[str, Any]:
        said = {name: value for name, value in vars(self).items() if value or name not in OFTEN_0}
        return {"format": FORMAT, **{"rows" if name == "num_rows" else name: value for name, value in said.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for a document that is no record."""
        if not re.fullmatch("[0-9a-f]{32}", document["xxh3_128"]):
            raise ValueError(f"xxh3_128 {document['xxh3_128']!r}")
        named = {**dict.fromkeys(OFTEN_0, 0), **document}
        return cls(num_rows=document["rows"], **{n: named[n] for n in cls.__dataclass_fields__ if n != "num_rows"})


LATER = ("max_boxes",)
"""Fields of a spec that are left out where they are 0."""
OFTEN_0 = ("unknown_rows", "unknown_elements", "cut_off")
"""Fields of a record that are left out where they are 0."""


def shard_path(number: int, xxh3_128: str) -> str:
    """Where a shard lies: its number and its content name it, so nothing is ever written over."""
    return f"shards/{number:06d}-{xxh3_128[:16]}.arrow"


def spell(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document on disk, with the digest of its fields."""
    whole = {**document, "digest": digest_of(document)}
    if any(isinstance(value, dict | list) for value in whole.values()):
        return json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"
    flat = json.dumps(whole, separators=(",\n ", ": "), ensure_ascii=False)  # the same, ten times as fast
    return f"{{\n {flat[1:-1]}\n}}\n".encode()


def parse(payload: bytes) -> dict[str, Any]:
    """The document that `spell` wrote, without its digest. Raises ValueError when any byte of it has changed."""
    document = json.loads(payload)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    document.pop("digest", None)
    if spell(document) != payload:
        raise ValueError("its bytes do not agree with the digest in it")
    return document


def _arrow_type(field: Field) -> pa.DataType:
    value = pa.from_numpy_dtype(field.dtype)
    return (
        pa.list_(pa.field("item", value, nullable=False), field.nbytes // field.dtype.itemsize)
        if field.shape
        else value
    )
