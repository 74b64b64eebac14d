"""What pyarrow's file system cannot do on S3: create-only and compare-and-swap writes, copies, clear errors.

Credentials, region and endpoint come from boto3's own chain: environment, profile, role of the machine.
"""

import io
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import EnvironmentUnfit, StorageError

ATTEMPTS = 10
"""Of one request, with a pause that grows between them."""
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
        from botocore.exceptions import HTTPClientError
        from urllib3.exceptions import HTTPError

        for attempt in range(ATTEMPTS):
            try:
                with told(self.bucket):
                    answer = self.client.get_object(Bucket=self.bucket, Key=key)
                return answer["Body"].read(), answer["ETag"]
            except FileNotFoundError:
                return None
            except (HTTPClientError, HTTPError, OSError) as error:  # boto3 does not begin a body again that broke off
                if attempt + 1 == ATTEMPTS or isinstance(error, StorageError):
                    raise StorageError(f"s3://{self.bucket}/{key}: cannot be read ({error})") from error
            time.sleep(min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
        raise AssertionError

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
        with told(self.bucket):
            for key in keys:
                self.client.delete_object(Bucket=self.bucket, Key=key)

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
