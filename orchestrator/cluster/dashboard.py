"""The dashboard of a Ray cluster, which takes jobs: is it there, whom does it let in, what does it run?

Everything here is asked before Ray is imported: a wrong address, token or version is told within seconds.
Knows nothing of jobs.
"""

import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from concurrent.futures import Future
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from threading import Thread
from typing import Any

from teachers.errors import EnvironmentUnfit, RecipeError

from .joining import check_versions, not_let_in, token

log = logging.getLogger(__name__)

PATIENCE_S = 8.0
"""For all of the first answer, name look-up included."""
PLACES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def dashboard_address(given: str | None) -> str:
    """`http://HEAD:8265` as given or from the environment. Raises RecipeError for none, or for another kind."""
    address = given or next((value for name in PLACES if (value := os.environ.get(name))), None)
    if not address:
        raise RecipeError(
            "which cluster? give --address http://HEAD:8265, its dashboard (or set RAY_API_SERVER_ADDRESS)"
        )
    scheme, there, _ = address.rpartition("://")
    if address == "auto" or (there and scheme not in ("http", "https")):
        raise RecipeError(
            f"{address} is not where a cluster takes jobs; that is its dashboard: --address http://HEAD:8265"
        )
    return (address if there else f"http://{address}").rstrip("/")


@dataclass(frozen=True)
class Server:
    """A dashboard that has let us in."""

    address: str
    ray: str
    python: str | None
    """None: it does not say."""
    authenticated: bool


def look_at(address: str) -> Server:
    """Ask the dashboard at `address` who it is. Raises EnvironmentUnfit: nothing there, not let in, other versions."""
    authenticated = _mode(address) == "token"
    found, place = token()
    if authenticated and found is None:
        raise not_let_in(address, None, place)
    key = found if authenticated else None
    status, version = _ask(address, "/api/version", key)
    if status in (401, 403):
        raise not_let_in(address, found, place)
    if status != 200 or "ray_version" not in version:
        raise EnvironmentUnfit(f"{address} answers, but not as the dashboard of a Ray cluster; is it HEAD:8265?")
    if not authenticated:
        log.warning("the cluster at %s takes jobs from anybody: start it with RAY_AUTH_MODE=token", address)
    _, about = _ask(address, "/api/v0/cluster_metadata", key)
    data = about.get("data")
    python = data.get("pythonVersion") if isinstance(data, dict) else None
    server = Server(address, version["ray_version"], python, authenticated)
    check_versions(address, server.ray, server.python)
    return server


def nodes_from_dashboard(address: str) -> list[tuple[str, dict[str, float]]]:
    """(address, resources) of every node that is alive. Raises as `look_at`."""
    server = look_at(address)
    _, answer = _ask(address, "/api/v0/nodes?detail=1&limit=10000", token()[0] if server.authenticated else None)
    try:
        nodes = answer["data"]["result"]["result"]
        return [(node["node_ip"], node["resources_total"]) for node in nodes if node["state"] == "ALIVE"]
    except (KeyError, TypeError):
        raise EnvironmentUnfit(f"the dashboard at {address} does not say which nodes there are") from None


def _mode(address: str) -> str:
    """How the dashboard lets people in: `token`, `disabled`."""
    status, answer = _ask(address, "/api/authentication_mode", None)
    if status in (401, 403):
        return "token"
    return str(answer.get("authentication_mode", "disabled"))


def _ask(address: str, path: str, key: str | None) -> tuple[int, dict[str, Any]]:
    """Status and JSON object (empty where it is none) of one GET. Raises EnvironmentUnfit when no answer comes."""
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {key}"} if key else {})
    answer: Future[tuple[int, dict[str, Any]]] = Future()
    Thread(target=_get, args=(request, answer), daemon=True).start()  # a name look-up heeds no time limit
    try:
        return answer.result(PATIENCE_S)
    except OutOfTime:
        reason = f"nothing within {PATIENCE_S:g} s"
    except (http.client.HTTPException, ValueError):
        reason = "what is there speaks no HTTP"
    except OSError as error:
        reason = str(getattr(error, "reason", None) or error or type(error).__name__)
    raise EnvironmentUnfit(
        f"{address} does not answer ({reason}); is the cluster running, and is this its dashboard (HEAD:8265)?"
    )


class _NowhereElse(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the token along, to whatever host it names."""

    def redirect_request(self, *request_and_answer: Any) -> None:
        raise OSError(f"it sends to {request_and_answer[-1]}")


def _get(request: urllib.request.Request, answer: "Future[tuple[int, dict[str, Any]]]") -> None:
    try:
        with urllib.request.build_opener(_NowhereElse).open(request, timeout=PATIENCE_S) as response:
            answer.set_result((response.status, _object(response.read(1 << 20))))
    except urllib.error.HTTPError as error:
        answer.set_result((error.code, {}))
    except Exception as error:
        answer.set_exception(error)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
