"""MLflow's server on the head of a cluster, with a database that outlives the head.

The database is SQLite on the head's own disk (a network file system would corrupt it). A copy goes to `--keep`, a bucket or a
folder that every head sees, and a head without a database begins with that copy. Artifacts lie there as well; they pass
through the server. Started a second time, it does nothing. Its process is named in `lock`; SIGTERM ends it after a last copy.
Knows nothing of Ray or of Collegium.
"""

import argparse
import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from pyarrow.fs import FileSystem, FileType

KEEP_EVERY_S = 300.0
RESTART_AFTER_S = 5.0
PORT = 5000


def restore(database: Path, keep: str) -> bool:
    """Begin with the copy under `keep`, if there is one and `database` is not there yet; whether that was done."""
    files, folder = FileSystem.from_uri(keep)
    copy = f"{folder}/{database.name}"
    if database.exists() or files.get_file_info(copy).type is not FileType.File:
        return False
    draft = database.with_name(f".{database.name}.restored")
    with files.open_input_stream(copy) as source, draft.open("wb") as target:
        while block := source.read(1 << 20):
            target.write(block)
    draft.rename(database)
    return True


def snapshot(database: Path, keep: str) -> None:
    """Copy `database`, which a server may be writing at this moment, to `keep` in one step."""
    files, folder = FileSystem.from_uri(keep)
    with tempfile.TemporaryDirectory(dir=database.parent) as scratch:
        whole = Path(scratch, database.name)
        existing = f"{database.as_uri()}?mode=rw"  # one that is not there is not made
        with closing(sqlite3.connect(existing, uri=True)) as source, closing(sqlite3.connect(whole)) as target:
            source.backup(target)  # a consistent state; a plain copy could tear a transaction
        files.create_dir(folder)
        copy = f"{folder}/{database.name}"
        with whole.open("rb") as source_file, files.open_output_stream(f"{copy}.new") as target_file:
            while block := source_file.read(1 << 20):
                target_file.write(block)
        files.move(f"{copy}.new", copy)


def state_of(database: Path) -> list[tuple[int, int]]:
    """Changes when the database does: size and time of it and of its journals."""
    parts = [path for path in sorted(database.parent.glob(f"{database.name}*")) if path.is_file()]
    return [(path.stat().st_size, path.stat().st_mtime_ns) for path in parts]


def server_command(database: Path, host: str, keep: str) -> list[str]:
    """Answers at `host`, to requests that name it, its address, or loopback, which tunnels do."""
    names = [f"{name}:{PORT}" for name in sorted({host, socket.gethostbyname(host)})]
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(PORT), "--workers", "1"),
        *("--allowed-hosts", ",".join([*names, "localhost:*", "127.0.0.1:*"])),
        *("--backend-store-uri", f"sqlite:///{database}"),
        *("--serve-artifacts", "--artifacts-destination", f"{keep}/artifacts"),
    ]


def serve(database: Path, host: str, keep: str) -> None:
    """Run the server until SIGTERM comes, again when it ends by itself, and keep copies meanwhile."""
    restore(database, keep)
    asked, ended = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    keeper = threading.Thread(target=keep_copies, args=(database, keep, ended))
    keeper.start()
    while not asked.is_set():
        run_server(server_command(database, host, keep), database.parent, asked)
        asked.wait(RESTART_AFTER_S)
    ended.set()
    keeper.join()


def run_server(command: list[str], folder: Path, asked: threading.Event) -> None:
    """Until it ends, or is `asked` to."""
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)  # clients ask the server; it must not ask itself
    server = subprocess.Popen(command, cwd=folder, env=environment)
    while server.poll() is None and not asked.wait(1.0):
        pass
    server.terminate()
    server.wait()


def keep_copies(database: Path, keep: str, ended: threading.Event) -> None:
    """A copy whenever something has changed, every few minutes, and one at the end."""
    kept: list[tuple[int, int]] = []
    last = False
    while not last:
        last = ended.wait(KEEP_EVERY_S)
        if (now := state_of(database)) == kept:
            continue
        try:
            snapshot(database, keep)
            kept = now
        except (OSError, sqlite3.Error) as error:  # the next one may succeed; a server without copies beats none
            print(f"no copy of {database} at {keep}: {error}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="private address of this machine, or a name of it")
    parser.add_argument("--keep", required=True, help="s3://BUCKET/FOLDER or /FOLDER, for artifacts and copies")
    parser.add_argument(
        "--home", type=Path, default=Path.home() / "collegium" / "mlflow", help="folder on a local disk"
    )
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    with open(options.home / "lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # one is running
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)  # whom to send SIGTERM
        serve((options.home / "mlflow.db").resolve(), options.host, options.keep.rstrip("/"))


if __name__ == "__main__":
    main()
