"""What pyarrow's file system cannot do on Google Cloud Storage: writes under a condition, copies, clear errors.

Credentials come from Google's own chain (application default credentials). STORAGE_EMULATOR_HOST names another server.
"""

import io
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import EnvironmentUnfit, StorageError
from .at_once import at_once
from .place import passed

EMULATOR = "STORAGE_EMULATOR_HOST"
PATIENCE_S = 120.0
"""In which one request is tried again, with a pause that grows."""


class Conditions:
    """One bucket. A version is a generation."""

    def __init__(self, bucket: str) -> None:
        self.name, self.bucket = bucket, client().bucket(bucket)

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its version, or None where there is none."""
        while True:
            try:
                with told(self.name):
                    if (blob := self.bucket.get_blob(key, retry=retry())) is None:
                        return None
                    version = blob.generation
                    payload: bytes = blob.download_as_bytes(if_generation_match=version, retry=retry())
                    return payload, str(version)
            except (FileNotFoundError, FileExistsError):  # written or removed between the two questions
                continue

    def chunks(self, key: str, size: int) -> Iterator[bytes]:
        """An object, `size` bytes at a time. Raises FileNotFoundError."""
        with file_system(self.name).open_input_stream(f"{self.name}/{key}") as source:
            while chunk := source.read(size):
                yield chunk

    def create(self, key: str, body: BinaryIO) -> str | None:
        """Create-only: the version written, or None when there is one."""
        return self._put(key, body, 0)

    def swap(self, key: str, payload: bytes, version: str) -> str | None:
        """Write over `version` alone: the new version, or None when another one is there."""
        return self._put(key, io.BytesIO(payload), int(version))

    def _put(self, key: str, body: BinaryIO, generation: int) -> str | None:
        blob, size = self.bucket.blob(key), body.seek(0, os.SEEK_END)
        try:
            with told(self.name):
                blob.upload_from_file(
                    body, rewind=True, size=size, if_generation_match=generation, checksum="crc32c", retry=retry()
                )
        except FileExistsError:
            return None
        return str(blob.generation)

    def remove(self, keys: Iterable[str]) -> None:
        """Objects that may be gone already, several side by side: Google removes one by a request."""
        for _ in at_once(self._remove, keys):
            pass

    def _remove(self, key: str) -> None:
        with suppress(FileNotFoundError), told(self.name):
            self.bucket.delete_blob(key, retry=retry())

    def list(self, prefix: str, passing: Collection[str] = ()) -> Iterator[tuple[str, int, float]]:
        """As `s3.Conditions.list`."""
        within, after = (f"{prefix}/" if prefix else ""), ""
        with told(self.name):
            while True:
                for blob in self.bucket.list_blobs(prefix=within, start_offset=after or None, retry=retry()):
                    if folder := passed(blob.name, within, passing):
                        after = f"{folder}/~"
                        break
                    if not blob.name.endswith("/"):
                        yield blob.name, blob.size, blob.updated.timestamp()
                else:
                    return

    def copy(self, source: str, target: str) -> None:
        with told(self.name):
            self.bucket.copy_blob(self.bucket.blob(source), self.bucket, target, retry=retry())

    def check(self, prefix: str) -> None:
        """Raise EnvironmentUnfit for a bucket that does not exist or refuses, and for credentials that are missing."""
        try:
            with told(self.name):
                next(iter(self.bucket.list_blobs(prefix=f"{prefix}/", max_results=1, retry=retry())), None)
        except FileNotFoundError:
            raise EnvironmentUnfit(
                f"gs://{self.name}: there is no such bucket; create it, or name another in --out"
            ) from None
        except StorageError as error:
            raise EnvironmentUnfit(str(error)) from error


def retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(PATIENCE_S)


@cache
def client() -> Any:
    """The client of this process. Raises EnvironmentUnfit without the package, or without credentials."""
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ImportError:
        raise EnvironmentUnfit("--out gs://…: google-cloud-storage is missing; pip install collegium[gcs]") from None
    try:
        return storage.Client.create_anonymous_client() if os.environ.get(EMULATOR) else storage.Client()
    except (DefaultCredentialsError, OSError) as error:
        raise EnvironmentUnfit(
            f"gs://…: there are no credentials ({str(error).splitlines()[0]}); set GOOGLE_APPLICATION_CREDENTIALS, or "
            f"give this machine a service account"
        ) from error


@cache
def file_system(bucket: str) -> Any:
    """pyarrow's file system of the same server, with retries of its own."""
    from pyarrow import fs

    patience = timedelta(seconds=PATIENCE_S)
    if not (emulator := os.environ.get(EMULATOR)):
        return fs.GcsFileSystem(retry_time_limit=patience)
    parts = urlsplit(emulator)
    return fs.GcsFileSystem(
        anonymous=True, endpoint_override=parts.netloc, scheme=parts.scheme, retry_time_limit=patience
    )


@contextmanager
def told(bucket: str) -> Iterator[None]:
    """What Google's client raises, as ours: FileNotFoundError, FileExistsError, or one clear line."""
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except NotFound as error:
        raise FileNotFoundError(str(error)) from error
    except PreconditionFailed as error:
        raise FileExistsError(str(error)) from error
    except (Forbidden, Unauthorized, GoogleAuthError) as error:
        raise EnvironmentUnfit(
            f"gs://{bucket}: refused ({str(error).splitlines()[0]}); these credentials need to list, read, write and "
            f"delete objects there"
        ) from error
    except (GoogleAPIError, RequestException) as error:
        raise StorageError(
            f"gs://{bucket}: {str(error).splitlines()[0]}; the same command goes on from here"
        ) from error
