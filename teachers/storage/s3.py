"""What pyarrow's file system cannot do on S3: create-only and compare-and-swap writes, copies, clear errors.

Credentials, region and endpoint come from boto3's own chain: environment, profile, role of the machine.
"""

import io
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import EnvironmentUnfit, StorageError
from .place import passed

ATTEMPTS = 10
"""Of one request, with a pause that grows between them."""
MOST_READ = 1 << 30
"""Of a body by one call."""
MOST_AT_ONCE = 1000
"""Objects that one request removes."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Before an object whose body broke off is asked for again: boto3 does not."""
LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
NONE = {"NoSuchKey", "404", "NotFound"}
UNKNOWN = {"NotImplemented", "501", "InvalidArgument", "MalformedTrailerError"}
REFUSED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem"}
BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
}


class Conditions:
    """One bucket. A version is an ETag."""

    def __init__(self, bucket: str) -> None:
        self.bucket, self.client = bucket, client()

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its version, or None where there is none."""
        version: list[str] = []
        try:
            return b"".join(self.chunks(key, MOST_READ, version)), version[0]
        except FileNotFoundError:
            return None

    def chunks(self, key: str, size: int, version: list[str] | None = None) -> Iterator[bytes]:
        """An object by one request, `size` bytes at a time; where it broke off it is gone on with. `version` gets its own.

        Raises FileNotFoundError.
        """
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        begun, at, attempt = list[str](), 0, 0
        while True:
            rest = {"Range": f"bytes={at}-", "IfMatch": begun[0]} if at else {}
            try:
                with told(self.bucket):
                    answer = self.client.get_object(Bucket=self.bucket, Key=key, **rest)
                begun = begun or [answer["ETag"]]
                whole = at + answer["ContentLength"]
                while at < whole and (chunk := answer["Body"].read(size)):
                    at += len(chunk)
                    yield chunk
                if at >= whole:
                    (version if version is not None else []).extend(begun)
                    return
                raise OSError(f"broke off after {at} bytes")
            except (FileNotFoundError, GeneratorExit):
                raise
            except FileExistsError:  # written over meanwhile
                raise StorageError(f"s3://{self.bucket}/{key}: was written anew while it was read") from None
            except (BotoCoreError, HTTPError, OSError) as error:  # boto3 does not begin a body again that broke off
                attempt += 1
                if attempt == ATTEMPTS or isinstance(error, StorageError):
                    raise StorageError(f"s3://{self.bucket}/{key}: cannot be read ({error})") from error
            time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))

    def create(self, key: str, body: BinaryIO) -> str | None:
        """Create-only: the version written, or None when there is one. Raises NotImplementedError where S3 cannot."""
        return self._put(key, body, {"IfNoneMatch": "*"})

    def swap(self, key: str, payload: bytes, version: str) -> str | None:
        """Write over `version` alone: the new version, or None when another one is there."""
        return self._put(key, io.BytesIO(payload), {"IfMatch": version})

    def _put(self, key: str, body: BinaryIO, condition: dict[str, str]) -> str | None:
        try:
            with told(self.bucket):
                answer = self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **condition)
        except (FileExistsError, FileNotFoundError):
            return None
        return str(answer["ETag"])

    def remove(self, keys: Iterable[str]) -> None:
        """Objects that may be gone already: a thousand by one request, where S3 can."""
        left = iter(keys)
        while some := list(islice(left, MOST_AT_ONCE)):
            self._remove(some)

    def _remove(self, keys: Sequence[str]) -> None:
        with told(self.bucket):
            try:
                named = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
                answer = self.client.delete_objects(Bucket=self.bucket, Delete=named) if len(keys) > 1 else None
            except self.client.exceptions.ClientError as error:
                if not isinstance(_named(self.bucket, error.response), NotImplementedError):
                    raise
                answer = None
            if answer is None:
                for key in keys:
                    self.client.delete_object(Bucket=self.bucket, Key=key)
        if failed := [each for each in (answer or {}).get("Errors", ()) if each.get("Code") not in NONE]:
            raise _named(self.bucket, {"Error": failed[0]})

    def list(self, prefix: str, passing: Collection[str] = ()) -> Iterator[tuple[str, int, float]]:
        """Key, bytes and time of what lies below `prefix`, in order, a page at a time; folders named `passing` are leapt over."""
        within, after = (f"{prefix}/" if prefix else ""), ""
        while True:
            with told(self.bucket):
                beyond = {"StartAfter": after} if after else {}
                page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=within, **beyond)
            for entry in page.get("Contents", ()):
                if (key := entry["Key"]) > after:
                    folder = passed(key, within, passing)
                    after = f"{folder}/~" if folder else key
                    if not folder and not key.endswith("/"):
                        yield key, entry["Size"], entry["LastModified"].timestamp()
            if not page["IsTruncated"]:
                return

    def copy(self, source: str, target: str) -> None:
        with told(self.bucket):
            self.client.copy({"Bucket": self.bucket, "Key": source}, self.bucket, target)

    def check(self, prefix: str) -> None:
        """Raise EnvironmentUnfit for a bucket that does not exist or refuses, and for credentials that are missing."""
        try:
            with told(self.bucket):
                self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{prefix}/", MaxKeys=1)
        except StorageError as error:
            raise EnvironmentUnfit(str(error)) from error


@cache
def client() -> Any:
    """The boto3 client of this process. Raises EnvironmentUnfit without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise EnvironmentUnfit("--out s3://…: boto3 is missing; pip install collegium[s3]") from None
    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
    )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    session = boto3.session.Session()
    return session.client("s3", config=config, region_name=region or session.region_name or "us-east-1")


def file_system(bucket: str) -> Any:
    """pyarrow's file system of the same endpoint and region, with retries of its own."""
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        "connect_timeout": 10,
        "request_timeout": 60,
        "allow_delayed_open": True,  # a small object is one request, not three
    }
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme, "region": client().meta.region_name}
    else:
        options |= {"region": fs.resolve_s3_region(bucket)}
    return fs.S3FileSystem(**options)


@contextmanager
def told(bucket: str) -> Iterator[None]:
    """What botocore raises, as ours: FileNotFoundError, FileExistsError, NotImplementedError, or one clear line."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise EnvironmentUnfit(
            f"s3://{bucket}: there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
            f"or give this machine a role"
        ) from error
    except ClientError as error:
        raise _named(bucket, error.response) from error
    except BotoCoreError as error:
        raise StorageError(
            f"s3://{bucket}: {str(error).splitlines()[0]}; the same command goes on from here"
        ) from error


def _named(bucket: str, response: Any) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in NONE:
        return FileNotFoundError(code)
    if code in LOST or status == 412:
        return FileExistsError(code)
    if code == "NoSuchBucket":
        return EnvironmentUnfit(f"s3://{bucket}: there is no such bucket; create it, or name another in --out")
    if code in BAD_CREDENTIALS:
        return EnvironmentUnfit(f"s3://{bucket}: these credentials are not accepted ({code}); give others")
    if code in REFUSED:
        return EnvironmentUnfit(
            f"s3://{bucket}: refused ({code}); these credentials need s3:ListBucket, s3:GetObject, s3:PutObject and "
            f"s3:DeleteObject there"
        )
    if code in UNKNOWN or status == 501:
        return NotImplementedError(f"s3://{bucket} answers {code}")
    return StorageError(f"s3://{bucket}: answered {code or status}; the same command goes on from here")
