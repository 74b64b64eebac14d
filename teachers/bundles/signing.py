"""Ed25519 keys in PEM files, and signatures by them. Knows nothing of what is signed."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..errors import RecipeError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC = ".pub"
"""Ends the name of a public key's file."""


@dataclass(frozen=True)
class Signer:
    """Who signs, by a private key."""

    private: "Ed25519PrivateKey"

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises RecipeError for a file that is no private Ed25519 key without a passphrase."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RecipeError(
                f"{path}: no private key that can be read without a passphrase; `collegium bundle keygen FILE` makes one"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise RecipeError(
                f"{path}: a {type(key).__name__}, an Ed25519 key expected; `collegium bundle keygen FILE` makes one"
            )
        return cls(key)

    def sign(self, payload: bytes) -> bytes:
        return self.private.sign(payload)


def make_keys(path: Path) -> Path:
    """Write a new private key to `path`, for its owner's eyes alone, and the public one beside it, whose path is returned.

    Raises RecipeError where one of the files is there already: a key that was overwritten is lost.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    public = path.with_name(path.name + PUBLIC)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for file in (path, public):
        if file.exists():
            raise RecipeError(f"{file} is there already, and a key that is overwritten is lost; take another name")
    for file, payload, mode in ((public, shown, 0o644), (path, private, 0o600)):
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                target.write(payload)
        except FileExistsError:
            raise RecipeError(
                f"{file} is there already, and a key that is overwritten is lost; take another name"
            ) from None
        except OSError as error:
            raise RecipeError(f"{file}: cannot be written ({error.strerror})") from error
    return public


def check_signature(payload: bytes, signature: bytes, key: Path, signed: Path) -> None:
    """Raise StoreError unless the owner of the public key in `key` has signed `payload`, the bytes of `signed`."""
    from cryptography.exceptions import InvalidSignature

    try:
        _public(key).verify(signature, payload)
    except InvalidSignature:
        raise StoreError(
            f"{signed}: not signed by the owner of {key}: it was changed on its way, or another key signed it; ask its sender "
            f"for the bundle and for the public key, each by a way of its own"
        ) from None


def _public(path: Path) -> "Ed25519PublicKey":
    """Raises RecipeError for a file that is no public Ed25519 key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise RecipeError(
            f"{path}: no public key (PEM); the sender's `collegium bundle keygen` wrote one, NAME{PUBLIC}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise RecipeError(f"{path}: a {type(key).__name__}, an Ed25519 key expected")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(65_536)
    except OSError as error:
        raise RecipeError(f"{path}: the key cannot be read ({error.strerror})") from error
