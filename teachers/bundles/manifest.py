"""What a bundle says of itself, and the proof that it is whole: every byte is vouched for by one signature (Ed25519).

    manifest.json   what this module says; the SHA-256 of every other file
    manifest.sig    64 bytes, of manifest.json
    NAME.arrow      what one voice says: `sample_key` u64 and its answers

Nothing in a bundle is run, and no name in it may lead out of its folder.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from ..config.any_teacher import OutputKind
from ..config.strict import Config, Name
from ..config.task import TaskName
from ..errors import StoreError
from ..storage.seal import canonical_json, sha256_file
from .columns import Keeps
from .signing import Signer, check_signature

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
SIGNATURE_BYTES = 64
MOST_BYTES = 64 << 20
"""Of a manifest, which is read before anything vouches for it."""
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,95}\.arrow$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,200}$")]
Text = Annotated[
    str,
    StringConstraints(
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
    ),
]
"""What a terminal shows as it is: a name from elsewhere cannot move its cursor, nor add a line to a recipe."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Voice(Config):
    """Whoever answers: a teacher, or several together."""

    name: Name
    """Of the teacher, or `ensemble`, or `votes`."""
    teachers: int = Field(ge=1)
    """How many it speaks for."""
    file: FileName
    """In the bundle's folder."""
    bytes: int = Field(ge=0)
    """Of the file."""
    sha256: Sha256
    """Of the file."""
    rows: int = Field(ge=0)
    """About which it answers."""
    names: list[str] = Field(min_length=1)
    """Of the classes or numbers, in the order of its columns."""
    keeps: Keeps
    """All scores, the largest probabilities, or the class alone."""
    output: OutputKind | Literal["classes"]
    """What its numbers are."""


class Privacy(Config):
    """What noise promises: whoever sees the answers learns this little of any one teacher's training rows."""

    mechanism: Literal["gnmax"]
    """Papernot et al., 2018."""
    sigma: float = Field(gt=0)
    """Standard deviation of the noise on each class's votes."""
    epsilon: float = Field(gt=0)
    """Of (epsilon, delta)-differential privacy for the training rows of any one teacher, over all answers of this bundle together, if no
    two teachers have learnt of one row."""
    delta: float = Field(gt=0, lt=1)
    """The probability that it does not hold."""
    answers: int = Field(ge=0)
    """That were counted."""


class Manifest(Config):
    """Of one bundle."""

    format: Literal[1]
    """Of bundles."""
    name: Line
    """What its sender calls it."""
    task: TaskName
    """What is said of a row."""
    keys: Literal["xxh3_64(key_salt + id)"]
    """What `sample_key` is: whoever has the ids and the salt finds the rows, and nobody else learns an id from it."""
    temperature: float | None = Field(None, gt=0)
    """At which scores were softened before they left; null: they are as they were said."""
    voices: list[Voice] = Field(min_length=1)
    """Who answers."""
    licence: Text
    """Under which the receiver may use the answers."""
    privacy: Privacy | None = None
    """Null: the bundle is weights-free, and nothing is promised of what its answers tell."""


def write_manifest(folder: Path, manifest: Manifest, signer: Signer) -> None:
    payload = canonical_json(manifest.model_dump(mode="json"))
    (folder / MANIFEST).write_bytes(payload)
    (folder / SIGNATURE).write_bytes(signer.sign(payload))


def verify(folder: Path, key: Path) -> Manifest:
    """The manifest of a bundle of which every byte is as the owner of `key` (a public key) has signed it.

    Raises StoreError for anything else: a file that is missing, of other bytes, a link, or one that nobody vouches for.
    """
    if not folder.is_dir():
        raise StoreError(
            f"{folder}: there is no such folder; a bundle is the folder that `collegium bundle export` writes"
        )
    manifest = _manifest(folder, key)
    listed = {MANIFEST, SIGNATURE, *(voice.file for voice in manifest.voices)}
    if len(listed) != 2 + len(manifest.voices):
        raise StoreError(f"{folder / MANIFEST}: two voices name one file; ask its sender for another bundle")
    if strange := sorted({path.name for path in folder.iterdir()} - listed):
        raise StoreError(f"{folder}: nobody vouches for {strange[0]!r}, which the manifest does not name; remove it")
    for voice in manifest.voices:
        check_file(folder / voice.file, voice)
    return manifest


def check_file(path: Path, voice: Voice) -> None:
    """Raise StoreError unless `path` has the bytes that the manifest vouches for."""
    _check_plain(path)
    if (size := path.stat().st_size) != voice.bytes:
        raise StoreError(
            f"{path}: {size:,} bytes, {voice.bytes:,} expected; ask the sender of the bundle for this file again"
        )
    if (found := sha256_file(path)) != voice.sha256:
        raise StoreError(
            f"{path}: SHA-256 {found[:12]}, {voice.sha256[:12]} expected: it is not what was signed; ask its sender again"
        )


def _manifest(folder: Path, key: Path) -> Manifest:
    path = folder / MANIFEST
    for each in (path, folder / SIGNATURE):
        _check_plain(each)
    if path.stat().st_size > MOST_BYTES:
        raise StoreError(f"{path}: {path.stat().st_size:,} bytes, at most {MOST_BYTES:,} expected; this is no manifest")
    payload = path.read_bytes()
    with (folder / SIGNATURE).open("rb") as file:
        check_signature(payload, file.read(SIGNATURE_BYTES + 1), key, path)
    try:
        return Manifest.model_validate(json.loads(payload))
    except (ValidationError, ValueError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, first["loc"])) or "it"
        raise StoreError(
            f"{path}: {where}: {first['msg']}; it is signed, and of another version of this program, or made otherwise"
        ) from error


def _check_plain(path: Path) -> None:
    """A file of its own: a link could lead anywhere."""
    if path.is_symlink() or not path.is_file():
        what = "is a link" if path.is_symlink() else "there is no such file"
        raise StoreError(f"{path}: {what}; a bundle is a folder of plain files, as `collegium bundle export` writes it")
