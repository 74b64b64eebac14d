"""Asking over HTTP: many requests at once, each answer handed over as it comes, what failed asked again.

A server that is away or has too much to do costs a row nothing; an answer that is none does, and after `max_attempts` of these
the row is unknown. Belongs to one event loop.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ...config.endpoint import EndpointTeacher
from ...errors import BudgetSpent, CollegiumError, EnvironmentUnfit, RecipeError, TeacherError
from ...process.variables import masked, resolved
from .apis import PATHS, Question, counted
from .asked import Asked, Away, Failure, Lost, Refused, Unit, seconds_of
from .pace import Pace, jittered
from .purse import Purse, Tokens
from .rows import Fields
from .words import NoAnswer

if TYPE_CHECKING:
    import httpx

BUSY = {408, 425, 429, 502, 503, 504}
"""The server has not looked at the request; another time it may."""
NEVER = {401, 403, 404, 405, 407, 410}
"""Whatever the row."""
NAMED = 5


class Client:
    """One server. `num_rows`: of which `max_failed_share` may be unknown, `num_failed` are already; None: as many as are asked about."""

    def __init__(
        self, question: Question, fields: Fields, digest: str, purse: Purse, num_rows: int | None, num_failed: int = 0
    ) -> None:
        self.question, self.fields, self.digest, self.purse = question, fields, digest, purse
        self.config: EndpointTeacher = question.config
        self.beat: Callable[[], None] = lambda: None
        self.pace = Pace(self.config.limits)
        self.ended: CollegiumError | None = None
        """Why nothing more is asked."""
        self.num_rows, self.num_failed, self.num_asked = num_rows, num_failed, 0
        self.failures: list[str] = []
        self._away_since: float | None = None
        self._settled = asyncio.Condition()
        httpx = _httpx()
        most = self.config.limits.concurrency
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._http = httpx.AsyncClient(timeout=self.config.timeout_s, limits=limits, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        if self.config.key is None:
            return {}
        key = resolved({"key": self.config.key})["key"].strip()  # files and secrets of clusters end with a new line
        if not (key and key.isascii() and key.isprintable()):
            raise EnvironmentUnfit(
                f"key: what the environment has as {self.config.key} is empty, or has other characters than a header can hold "
                f"(printable ASCII); set it to the key alone"
            )
        return {self.config.key_header: f"Bearer {key}" if self.config.key_header == "Authorization" else key}

    async def ask(self, asked: Asked) -> None:
        """Until all is said of each row, or it is unknown. Raises why nothing more is asked, when all that was under way has come."""
        self.num_asked += len(asked.keys)
        size = self.config.rows_per_request if self.config.api == "json" else 1
        for first in range(0, len(asked.keys), size):  # the same ones together, which a server may know again
            places = np.arange(first, min(first + size, len(asked.keys)))
            if len(left := places[[not asked.kept.has(int(key)) for key in asked.keys[places]]]):
                asked.units.append(Unit(left))
        workers = [self._work(asked) for _ in range(min(self.config.limits.concurrency, len(asked.units)))]
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
        if unforeseen := [each for each in outcomes if isinstance(each, BaseException)]:
            raise unforeseen[0]
        if self.ended is not None:
            async with self._settled:
                await self._settled.wait_for(lambda: not self.purse.under_way.requests)
            raise self.ended

    async def _work(self, asked: Asked) -> None:
        num_away = 0
        while asked.units and self.ended is None:
            unit = asked.units.popleft()
            try:
                failed = await self._try(asked, unit)
                num_away = 0
            except Away as away:
                asked.units.appendleft(unit)
                self._note_away(away)
                num_away += 1
                await asyncio.sleep(jittered(num_away))
                continue
            except CollegiumError as error:
                self._end(error)
                return
            if failed:
                await self._again(asked, unit, failed)

    async def _again(self, asked: Asked, unit: Unit, failed: Mapping[int, Failure]) -> None:
        """Rows that were not answered: in halves where the whole request failed, which blames none of its rows."""
        if len(failed) == len(unit.places) > 1:
            await asyncio.sleep(jittered(unit.attempt))
            asked.units.extend(Unit(half, unit.attempt) for half in np.array_split(unit.places, 2))
            return
        is_last = unit.attempt + 1 >= self.config.max_attempts
        left = [place for place, failure in failed.items() if not is_last and not failure.is_final]
        for place in failed.keys() - left:
            self._unknown(asked, place, failed[place].why)
        if left:
            await asyncio.sleep(jittered(unit.attempt))
            asked.units.append(Unit(np.array(left), unit.attempt + 1))

    def _unknown(self, asked: Asked, place: int, why: str) -> None:
        asked.unknown[place] = why
        self.num_failed += 1
        self.failures.append(f"{int(asked.keys[place]):016x}: {why}")
        share = self.config.max_failed_share
        allowed = int(share * self.num_rows) if self.num_rows is not None else -int(-share * self.num_asked // 1)
        if self.num_failed > allowed:
            first = "; ".join(self.failures[:NAMED])
            self._end(
                TeacherError(
                    f"{self.config.url} did not answer {self.num_failed:,} rows, and max_failed_share = {share:g} lets {allowed:,} be "
                    f"unknown; by sample_key: {first}. What was answered is kept, and the same command goes on"
                )
            )

    async def _try(self, asked: Asked, unit: Unit) -> dict[int, Failure]:
        """Ask about the rows of a unit; those that were not answered, and why. Raises Away, or what ends all asking."""
        places, keys = unit.places, asked.keys[unit.places]
        votes_left = self.config.votes - asked.kept.votes(int(keys[0]))
        rows = self.fields.rows({name: values[places] for name, values in asked.batch.items()}, self.question.columns)
        request = self.question.request(rows, votes_left)
        asked_for = xxhash.xxh3_128_hexdigest(keys.tobytes() + json.dumps(request).encode())
        known_by = f"{self.digest[:16]}-{asked_for}-{unit.attempt}-{votes_left}"
        expected = self.question.expected(request)
        async with self.pace.turn(expected.input + expected.output):
            held = await self._taken(expected)
            if held is None:
                return {}
            number, used = 0, Tokens()
            try:
                number = asked.kept.sent(held)
                document, used = await self._post(request, known_by, expected)
                told = self.question.told(document, len(places))
                answers = {int(key): each for key, each in zip(keys, told, strict=True) if not each.why_not}
                asked.kept.answered(number, answers, used)
            except NoAnswer as error:
                used = error.used if isinstance(error, Lost) else used
                asked.kept.failed(number, str(error), used)
                is_final = isinstance(error, Refused) and len(places) == 1
                return dict.fromkeys(places.tolist(), Failure(str(error), is_final))
            except (Away, CollegiumError) as error:
                if number:
                    asked.kept.failed(number, str(error), used)
                raise
            finally:
                await self._settle(held, used)
        self.beat()
        again = {at: Failure(each.why_not) for at, each in zip(places.tolist(), told, strict=True) if each.why_not}
        if not again and any(not asked.kept.has(int(key)) for key in keys):  # votes that are still to come
            asked.units.append(unit)
        return again

    async def _post(self, request: Any, idempotency_key: str, expected: Tokens) -> tuple[Any, Tokens]:
        """(the answer's JSON, what it cost)."""
        httpx = _httpx()
        sent_at = time.monotonic()
        url = self.config.url.rstrip("/") + PATHS[self.config.api]
        try:
            response = await self._http.post(url, json=request, headers={"Idempotency-Key": idempotency_key})
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Away(f"{type(error).__name__}: {error}") from error
        except httpx.TimeoutException as error:
            self.pace.was_too_much(sent_at, None)
            raise Lost(f"no answer within timeout_s = {self.config.timeout_s:g}", expected) from error
        except httpx.InvalidURL as error:
            raise RecipeError(f"url: {url!r} is no address: {error}") from None
        except httpx.RequestError as error:
            raise Lost(f"{type(error).__name__}: {error}", expected) from error
        self._check_status(response, sent_at)
        try:
            document = response.json()
        except ValueError as error:
            raise Lost(f"{response.text[:80]!r} is no JSON ({error})", expected) from None
        self.pace.went_well()
        return document, counted(document) or expected

    def _check_status(self, response: "httpx.Response", sent_at: float) -> None:
        status = response.status_code
        self._away_since = self._away_since if status in BUSY else None
        if status < 300:
            return
        told = masked(f"HTTP {status}: {' '.join(response.text.split())[:200]}")
        if status in BUSY:
            after_s = seconds_of(response.headers.get("Retry-After", ""))
            self.pace.was_too_much(sent_at, after_s)
            raise Away(told, after_s)
        if status in NEVER or status < 400:
            raise TeacherError(
                f"{self.config.url} refuses what it is asked: {told}; look at `url`, `key` and `model_name`"
            )
        raise (Refused if status < 500 else NoAnswer)(told)

    async def _taken(self, expected: Tokens) -> Tokens | None:
        """Take what a request will cost out of the budget; None when nothing more is asked."""
        async with self._settled:
            await self._settled.wait_for(
                lambda: self.ended is not None or self.purse.has(expected) or not self.purse.under_way.requests
            )
            if self.ended is None and not self.purse.has(expected):
                self._end(
                    BudgetSpent(f"the budget is spent: {self.purse.spent.told(self.config.price, self.config.budget)}")
                )
            if self.ended is not None:
                return None
            held = self.purse.held(expected)
            self.purse.take(held)
        return held

    async def _settle(self, held: Tokens, used: Tokens) -> None:
        async with self._settled:
            self.purse.settle(held, used)
            self._settled.notify_all()

    def _note_away(self, away: Away) -> None:
        now, patience_s = time.monotonic(), self.config.patience_s
        self._away_since = self._away_since or now
        if now - self._away_since + (away.after_s or 0.0) >= patience_s:
            when = "" if away.after_s is None else f", and asks for {away.after_s:g} s more"
            self._end(
                TeacherError(
                    f"{self.config.url} has not answered for {now - self._away_since:.3g} s{when}, and patience_s is {patience_s:g}: {away}. "
                    f"What was answered is kept, and the same command goes on"
                )
            )

    def _end(self, error: CollegiumError) -> None:
        self.ended = self.ended or error
        self.pace.is_over = True


def _httpx() -> Any:
    """Of an extra, so not everybody has it."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise RecipeError(f"`kind: endpoint` needs httpx ({error}): pip install collegium[endpoint]") from None
    return httpx
