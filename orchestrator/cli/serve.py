"""`collegium serve`: a delivered model as a JSON server on this machine."""

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from teachers.errors import EnvironmentUnfit

from .interrupts import Interrupted
from .out import Out, brought

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
THIS_MACHINE = {"localhost", LOOPBACK, "::1"}
"""Names by which a loopback address may be asked, beside its own."""
BACKLOG = 128


@click.command()
@click.argument("model")
@click.option("--out", type=Out(exists=True), help="Where a MODEL that is named lies.  [default: out/<recipe>]")
@click.option("--port", type=click.IntRange(0, 65535), default=8100, show_default=True, help="0: any that is free.")
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Any other lets other machines ask; nobody is asked who he is."
)
@click.option("--most-rows", type=click.IntRange(1), default=4096, show_default=True, help="Of a request.")
@click.option("--most-bytes", type=click.IntRange(1), default=64 * 2**20, show_default=True, help="Of a request.")
@click.option("--trust", multiple=True, metavar="MODULE:NAME", help="Code of yours that the folder may name.")
def serve(
    model: str, out: Path | None, port: int, host: str, most_rows: int, most_bytes: int, trust: tuple[str, ...]
) -> None:
    """Answer requests with MODEL, a folder or a name as digits-small (the newest): {"rows": [{column: value}, ...]} in JSON.

    A `kind: endpoint` teacher speaks the same, so a student can teach so. On this machine alone, until Ctrl-C.
    """
    from students.delivering.serving import application
    from teachers.models.folder import load_model
    from teachers.users_code.imports import use_user_path

    from .named_model import folder_of

    use_user_path(Path.cwd())
    loaded = load_model(brought(folder_of(model, out)), trust=trust, vouching="command")
    name = Path(model).resolve().name
    try:
        with _listening(host, port) as listener:
            at = f"[{host}]" if ":" in host else host
            click.echo(f"{name} answers at http://{at}:{listener.getsockname()[1]}/\nCtrl-C stops the server")
            _run(application(loaded, name, most_rows=most_rows, most_bytes=most_bytes), host, listener)
    except Interrupted as stop:  # which is how it is meant to end
        stop.is_heard = True
        click.echo("server stopped")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (socket.gaierror, UnicodeError) as error:
        raise EnvironmentUnfit(
            f"--host {host}: {getattr(error, 'strerror', 'no name')}; give an address of this machine"
        ) from None
    except OSError as error:
        raise EnvironmentUnfit(f"{host}:{port}: {error.strerror}; choose another with --port or --host") from None


def _run(served: "ASGIApp", host: str, listener: socket.socket) -> None:
    import uvicorn

    if _is_loopback(host):
        served = CalledByName(served, THIS_MACHINE | {host.lower()})
    config = uvicorn.Config(served, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class CalledByName:
    """Answers requests whose `Host` is one of `names` alone: a page in a browser, whose name was led to this machine, has another."""

    def __init__(self, served: "ASGIApp", names: set[str]) -> None:
        self.served, self.names = served, names

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        named = _host(dict(scope.get("headers", ())).get(b"host", b"").decode("latin-1"))
        if scope["type"] == "http" and named not in self.names:
            await PlainTextResponse("Invalid host header", status_code=400)(scope, receive, send)
            return
        await self.served(scope, receive, send)


def _host(header: str) -> str | None:
    """Of `Host`, without port and brackets; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
