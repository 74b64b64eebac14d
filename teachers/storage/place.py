"""Where an OUT lies: in a folder, or in an object store with a mirror of it on every machine that works on it.

All code works on paths. A mirror's folder carries the quoted URI as its name, so a path alone says which object it
stands for, in every process and on every node. Knows nothing of how objects are moved.
"""

import getpass
import json
import os
import re
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from ..errors import RecipeError

CACHE = "COLLEGIUM_CACHE"
BEGINNING = re.compile(r"(s3|gs):/{1,2}(?!/)")
"""Of a URI; a `Path` that was made of one has a single slash."""
QUOTED = re.compile(r"(?:s3|gs)%3A%2F%2F[^/\s'\",;:)]+")
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Where Ray keeps the runtime environment of a submitted job."""
SHIPPED = (
    CACHE,
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "STORAGE_EMULATOR_HOST",
)
LONGEST_NAME = 200
"""Of a mirror's folder; file systems take 255 bytes."""


@dataclass(frozen=True)
class Remote:
    """An object, or all objects below a prefix. `key` has no slash at its ends; it is empty for a whole bucket."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, below: str) -> "Remote":
        return Remote(self.scheme, self.bucket, f"{self.key}/{below}".strip("/"))


def is_uri(out: str | Path) -> bool:
    return BEGINNING.match(str(out)) is not None


def cache() -> Path:
    """The folder of all mirrors: COLLEGIUM_CACHE, else the user's own on this machine."""
    if given := os.environ.get(CACHE):
        return Path(given).absolute()
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "collegium"
    if os.access(Path.home(), os.W_OK):
        return Path.home() / ".cache" / "collegium"
    return Path(tempfile.gettempdir()) / f"collegium-{getpass.getuser()}"


def place(out: str | Path) -> Path:
    """The folder to work in for `out`: itself, or the mirror of a URI. Raises RecipeError for a URI that names no place."""
    if not is_uri(out):
        if "://" in str(out):
            raise RecipeError(f"--out {_shown(str(out))}: expected a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")
        return Path(out).resolve()
    uri = BEGINNING.sub(r"\1://", str(out)).rstrip("/")
    parts = urlsplit(uri)
    if "@" in parts.netloc or (":" in parts.netloc and "@" in uri):  # a password may hold a slash
        raise RecipeError(
            "--out: credentials do not belong into a URI; the provider's own environment variables name them"
        )
    steps = PurePosixPath(parts.path).parts[1:]
    if not parts.netloc or ":" in parts.netloc or parts.query or parts.fragment or ".." in steps or "//" in parts.path:
        raise RecipeError(f"--out {_shown(uri)}: names no place; expected {parts.scheme}://BUCKET/PREFIX")
    name = quote(uri, safe="")
    if len(name) > LONGEST_NAME:
        raise RecipeError(f"--out {out}: too long by {len(name) - LONGEST_NAME} bytes; choose a shorter prefix")
    return cache() / name


def _shown(uri: str) -> str:
    from ..config.secrets import without_password  # its patterns take a while to compile, and `--help` imports this

    return without_password(uri)


def remote_of(path: Path) -> Remote | None:
    """What `path` stands for in an object store; None for a path in no mirror."""
    if "%3A%2F%2F" not in str(path):
        return None
    for number, part in enumerate(path.parts):
        if QUOTED.fullmatch(part):
            parts = urlsplit(unquote(part))
            below = "/".join(path.parts[number + 1 :])
            return Remote(parts.scheme, parts.netloc, f"{parts.path.strip('/')}/{below}".strip("/"))
    return None


def root_of(path: Path) -> Path:
    """The mirror's folder that `path` lies in."""
    for folder in (path, *path.parents):
        if QUOTED.fullmatch(folder.name):
            return folder
    raise ValueError(f"{path} lies in no mirror")


def passed(key: str, prefix: str, passing: Collection[str]) -> str:
    """The outermost folder below `prefix` that `key` lies in and that is named one of `passing`; nothing without one."""
    folders = key.removeprefix(prefix).split("/")[:-1]
    at = next((number for number, name in enumerate(folders) if name in passing), None)
    return "" if at is None else prefix + "/".join(folders[: at + 1])


def here(path: Path) -> Path:
    """A path that another process wrote down, whose mirrors may lie elsewhere."""
    return path if remote_of(path) is None else cache() / path.relative_to(root_of(path).parent)


def spoken(text: object) -> str:
    """Text for a person: paths in mirrors as the URIs that they stand for."""
    return re.sub(rf"(?:/[^\s'\",;:()]*)?/({QUOTED.pattern})", lambda found: unquote(found[1]), str(text))


def use_one_cache(out: Path) -> None:
    """From here on all processes of this one's cluster have their mirror of `out` under the same path."""
    if remote_of(out) is not None:
        os.environ[CACHE] = str(root_of(out).parent)


def shipped_environment(out: Path) -> dict[str, str]:
    """What workers elsewhere must know to find the storage of `out`. No credentials: a node has its own."""
    if remote_of(out) is None:
        return {}
    given = json.loads(os.environ.get(RAY_JOB, "{}")).get("runtime_env", {}).get("env_vars", {})  # Ray refuses it twice
    return {name: os.environ[name] for name in SHIPPED if name in os.environ and name not in given}
