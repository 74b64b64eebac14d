"""Jobs on a Ray cluster through its Jobs API: handing one in, following its log, stopping it. Knows nothing of recipes."""

import asyncio
import logging
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teachers.errors import CollegiumError, EnvironmentUnfit, RecipeError

from ..cluster.dashboard import look_at
from ..cluster.joining import token

if TYPE_CHECKING:
    from .submission import Submission

ANSWER_S = 30.0
"""So long a cluster that has answered before may take for one answer."""
QUIET_S = 15.0
"""Without a line of its log, after which a job is asked whether it still lives."""
LOST_S = 120.0
"""Without any answer, after which a cluster counts as gone."""
STOP_S = 60.0
"""For a job that is stopped: longer than Ray leaves it."""
TAILS = 3
"""Attempts at the rest of the log of a job that has ended."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
INTERRUPTED = 143
NEVER_BEGAN = (
    *("RUNTIME_ENV_SETUP_FAILURE", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_START_FAILURE"),
    *("JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "JOB_ENTRYPOINT_COMMAND_START_ERROR"),
)
"""Ray's words for a cluster on which a job's command could not be started."""
NO_PYTHON = (126, 127)
"""Exit codes of a shell that finds no `python` that it can start; ours are others."""
OUT, VERSION = "collegium_out", "collegium_version"


@dataclass(frozen=True)
class Job:
    """One job of a cluster. `exit_code` is known of one whose command has ended by itself; `out` of ours."""

    id: str
    status: str
    exit_code: int | None
    started: float | None
    seconds: float | None
    out: str | None
    error: str | None
    """Ray's word for why it failed."""
    message: str

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def record(self) -> dict[str, Any]:
        """For `--json`; without entry point and environment, which may hold what is nobody's business."""
        return {name: value for name, value in vars(self).items() if name != "message"}


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`. Raises EnvironmentUnfit where it cannot be reached."""

    def __init__(self, address: str) -> None:
        server = look_at(address)
        os.environ["RAY_AUTH_MODE"] = "token" if server.authenticated else "disabled"
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS would win over what is given
        _use_token(server.authenticated)
        self.address = address
        self._client = _client(address)

    def submit(self, submission: "Submission") -> tuple[Job, bool]:
        """Hand it in; the job, and whether it is new. One of the same content that is under way is left to go on."""
        mine = self._attempts(submission.name)
        if running := [job for job in mine if not job.ended]:
            return running[-1], False
        number = max((_number(job.id) for job in mine), default=0) + 1
        name = submission.name if number == 1 else f"{submission.name}-{number}"
        self._upload(submission.uri, submission.zipped)
        self._told(
            self._client.submit_job,
            entrypoint=submission.entrypoint,
            submission_id=name,
            runtime_env=submission.runtime_env(),
            metadata={OUT: submission.out, VERSION: submission.environment["COLLEGIUM_VERSION"]},
            entrypoint_num_cpus=0,  # the driver only waits; a head without CPUs runs it
        )
        return self.job(name), True

    def _attempts(self, name: str) -> list[Job]:
        mine = re.compile(rf"{re.escape(name)}(-\d+)?")
        return sorted((job for job in self.list() if mine.fullmatch(job.id)), key=lambda job: _number(job.id))

    def _upload(self, uri: str, zipped: bytes) -> None:
        """Ray takes folders, modules and wheels (which it installs by pip, on every node); a zip has to be put there."""
        if self._told(self._client._package_exists, uri):
            return
        with tempfile.TemporaryDirectory(prefix="collegium-") as folder:
            file = Path(folder) / "package.zip"
            file.write_bytes(zipped)
            self._told(self._client._upload_package, uri, str(file), include_gitignore=False, is_file=True)

    def list(self) -> list[Job]:
        """Every job that was handed in, the oldest first."""
        found = [_job(details) for details in self._told(self._client.list_jobs) if details.submission_id]
        return sorted(found, key=lambda job: job.started or 0)

    def job(self, name: str) -> Job:
        """Raises RecipeError when there is none of that name."""
        return _job(self._told(self._client.get_job_info, name))

    def stop(self, name: str, patience_s: float = STOP_S) -> Job:
        """Ask a job to end, and wait until it has. Raises CollegiumError when it has not after `patience_s`."""
        if not (job := self.job(name)).ended:
            self._told(self._client.stop_job, name)
        end = time.monotonic() + patience_s
        while not job.ended:
            if time.monotonic() > end:
                raise CollegiumError(
                    f"{name} was asked to end, and has not within {patience_s:g} s; look again: "
                    f"collegium jobs list --address {self.address}"
                )
            time.sleep(0.5)
            job = self.job(name)
        return job

    def log(self, name: str) -> str:
        """All that a job has said up to now."""
        self.job(name)
        return str(self._told(self._client.get_job_logs, name))

    def follow(self, name: str, write: Callable[[str], None]) -> Job:
        """Write what a job says, as it says it, until it has ended; a connection that is lost is made again."""
        self.job(name)
        written, heard, left = 0, time.monotonic(), TAILS
        while True:
            try:
                written = asyncio.run(self._tail(name, written, write))
                left = 0
            except _Lost as lost:
                written, heard, left = lost.written, max(heard, lost.heard), left - 1
            job = self._still(name)
            if job is not None:
                heard = time.monotonic()
                if job.ended and left <= 0:
                    return job
            elif time.monotonic() - heard > LOST_S:
                raise EnvironmentUnfit(
                    f"the cluster at {self.address} has not answered for {LOST_S:.0f} s; when it is back: "
                    f"collegium jobs logs -f {name} --address {self.address}"
                )
            time.sleep(0 if job is not None and job.ended else 1)

    def _still(self, name: str) -> Job | None:
        """The job as it stands; None when no answer comes. Raises EnvironmentUnfit when the cluster is another one."""
        try:
            return self.job(name)
        except RecipeError:
            raise EnvironmentUnfit(
                f"the cluster at {self.address} has been started anew and does not know {name} any more; "
                f"submit again: what is sealed under --out is kept"
            ) from None
        except CollegiumError:
            return None

    async def _tail(self, name: str, written: int, write: Callable[[str], None]) -> int:
        """Write from character `written` on; how many there are at the end. Raises _Lost."""
        seen, heard = 0, time.monotonic()
        chunks = self._client.tail_job_logs(name)
        try:
            async for text in _or_none(chunks, QUIET_S):
                if text is None:
                    await asyncio.to_thread(self.job, name)
                else:
                    write(text[max(0, written - seen) :])
                    seen += len(text)
                heard = time.monotonic()
        except Exception as error:  # whatever a connection that breaks gives: aiohttp's, Ray's, the system's
            raise _Lost(max(written, seen), heard) from error
        return max(written, seen)

    def _told(self, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """What the call returns; what it raises in our words."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return call(*arguments, **keywords)
        except AuthenticationError:
            raise EnvironmentUnfit(f"the cluster at {self.address} does not take the token from {token()[1]}") from None
        except (requests.RequestException, ConnectionError) as error:
            raise EnvironmentUnfit(
                f"the cluster at {self.address} does not answer any more ({_line(error)})"
            ) from error
        except RuntimeError as error:
            if "status code 404" in str(error):
                raise RecipeError(
                    f"the cluster at {self.address} knows no such job; `collegium jobs list --address {self.address}`"
                ) from None
            raise CollegiumError(f"the cluster at {self.address} refused: {_line(error)}") from error


class _Lost(Exception):
    def __init__(self, written: int, heard: float) -> None:
        super().__init__(written, heard)
        self.written, self.heard = written, heard


def exit_code(job: Job) -> int:
    """What the command that follows a job ends with: the job's own code; where there is none, what comes nearest."""
    if job.exit_code in NO_PYTHON:
        return EnvironmentUnfit.exit_code
    if job.exit_code is not None:
        return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code
    return {"SUCCEEDED": 0, "STOPPED": INTERRUPTED}.get(job.status, 4 if job.error in NEVER_BEGAN else 1)


def _use_token(authenticated: bool) -> None:
    """Ray looks in the same places, but takes a file at another than the usual only when told."""
    if authenticated:
        found, _ = token()
        assert found is not None
        os.environ["RAY_AUTH_TOKEN"] = found


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    class Patient(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, *arguments: Any, **keywords: Any) -> Any:
            return super()._do_request(*arguments, **{"timeout": ANSWER_S, **keywords})  # the default waits for ever

    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return Patient(address)


def _job(details: Any) -> Job:
    began = details.start_time / 1000 if details.start_time else None
    ended = details.end_time / 1000 if details.end_time else time.time()
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id or details.job_id,
        status=str(getattr(details.status, "value", details.status)),
        exit_code=details.driver_exit_code,
        started=began,
        seconds=round(ended - began, 1) if began else None,
        out=metadata.get(OUT),
        error=details.error_type,
        message=details.message or "",
    )


def _number(job_id: str) -> int:
    """Which attempt: 3 of `digits-3fa9c1ab-3`."""
    last = job_id.rpartition("-")[2]
    return int(last) if last.isdigit() and len(last) < 8 else 1


async def _or_none(chunks: AsyncIterator[str], quiet_s: float) -> AsyncIterator[str | None]:
    """What comes, and None whenever nothing has for a while."""
    while True:
        coming = asyncio.ensure_future(anext(chunks))
        while not (await asyncio.wait([coming], timeout=quiet_s))[0]:
            yield None
        try:
            yield coming.result()
        except StopAsyncIteration:
            return


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
