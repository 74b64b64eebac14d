"""A Ray cluster whose nodes are as far apart as one machine can put them: what is a node's own ends with it.

A node is a process namespace with an address of its own on a bridge and a disk of its own: what it writes, nobody else
sees, but for one shared folder. `kill` cuts its cable and kills all of its processes, as a power cut does. Nothing has a
name and everything hangs on the process that started it, so the kernel clears all of it away when that one dies. Where
the kernel refuses namespaces, nodes are process trees on addresses 127.0.0.x, and share the disk.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from orchestrator.tracking.server import ui_command

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""A node that is gone is noticed after 6 s, not after 14 s; a busy machine may be silent for a while."""
PATIENCE_S = 600.0
SWITCH = "10.77.0.254"
"""The address of what is no node."""
BIN = Path(sys.executable).parent
MACHINE = """
set -e
root=$1 shared=$2 log=$3; shift 3
echo here; read -r plugged_in
exec >>"$log" 2>&1 </dev/null
mount -t tmpfs own "$root"
mkdir "$root/upper" "$root/work" "$root/disk"
mount -t overlay own -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/disk"
mount --rbind /dev "$root/disk/dev"
mount --rbind /sys "$root/disk/sys"
mount -t tmpfs own "$root/disk/dev/shm"
mount -t proc own "$root/disk/proc"
mkdir -p "$root/disk/tmp/ray"
mount -t tmpfs own "$root/disk/tmp/ray"
mount --bind "$shared" "$root/disk$shared"
exec chroot "$root/disk" sh -c 'cd "$0" && exec "$@"' "$shared" "$@"
"""
"""Of a process in new namespaces: once its cable is plugged in, it goes on with a disk of its own."""


@dataclass(frozen=True)
class Node:
    """One node. `process`, of the host, is what all of the node's processes descend from."""

    number: int
    address: str
    process: "subprocess.Popen[bytes]"

    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def workers(self, name: str) -> list[psutil.Process]:
        """Ray's worker processes on this node whose title has `name`."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                found += [process] if title.startswith("ray::") and name in title else []
        return found


class NodeCluster:
    """A context: a head and nodes that can be added and killed, a shared folder, and an MLflow server when it is asked for."""

    def __init__(self, shared: Path, *, dashboard: bool = False, isolated: bool | None = None, **settings: int) -> None:
        """`settings` are of Ray's own configuration. `isolated`: in namespaces; None: if the kernel allows it."""
        self.shared = shared.resolve()
        self.isolated = namespaces_are_allowed() if isolated is None else isolated
        self.dashboard, self.settings = dashboard, settings
        self.nodes: list[Node] = []
        self.num_started = 0
        self.others: list[subprocess.Popen[bytes]] = []
        self.ray_folder = tempfile.TemporaryDirectory(prefix="cg-", ignore_cleanup_errors=True)  # of a short name
        self.port = 6379 if self.isolated else free_port()
        (self.shared / "logs").mkdir(parents=True, exist_ok=True)
        token = self.shared / "ray-token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(os.urandom(24).hex())
        self.environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | {
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PATH": f"{BIN}:{os.environ['PATH']}",  # a submitted job starts `python`
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> "NodeCluster":
        if self.isolated:
            self.switch = self._popen(["unshare", "--net", "sleep", "infinity"])
            self.others.append(self.switch)
            until(lambda: net_of(self.switch.pid) != net_of(os.getpid()))
            self._ip(
                f"link add bridge type bridge; link set bridge up; link set lo up; addr add {SWITCH}/24 dev bridge"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in [*self.nodes]:
            self.kill(node)
        for process in self.others:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()
        self.ray_folder.cleanup()
        shutil.rmtree(self.shared / "disks", ignore_errors=True)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def address(self) -> str:
        """What `--address` takes."""
        return f"{self.head.address}:{self.port}"

    def add(self, *, cpus: int, resources: Mapping[str, float] | None = None) -> Node:
        """Start a node, the first one as the head, and wait until Ray runs on it."""
        return self.add_all([resources or {}], cpus=cpus)[0]

    def add_all(self, resources: Sequence[Mapping[str, float]], *, cpus: int = 2) -> list[Node]:
        """Several nodes side by side."""
        nodes = [self._begin(cpus, wanted) for wanted in resources]
        return [
            node if self._runs(node) else self._again(node, cpus, wanted)
            for node, wanted in zip(nodes, resources, strict=True)
        ]

    def _again(self, node: Node, cpus: int, resources: Mapping[str, float]) -> Node:
        """In the place of a node that Ray gave up: on a busy machine it does so after 30 s."""
        self.kill(node)
        other = self._begin(cpus, resources)
        assert self._runs(other), self._log_of(other.number).read_text()[-3000:]
        return other

    def _runs(self, node: Node) -> bool:
        """Whether Ray runs on the node, once that is known."""
        log = self._log_of(node.number)
        until(lambda: "Ray runtime started" in log.read_text() or node.process.poll() is not None)
        return node.process.poll() is None

    def _begin(self, cpus: int, resources: Mapping[str, float]) -> Node:
        number = self.num_started = self.num_started + 1
        address = f"10.77.0.{number}" if self.isolated else f"127.0.0.{number + 1}"
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}"]
        command += [f"--num-cpus={cpus}", f"--resources={json.dumps(dict(resources))}"]
        command += ["--object-store-memory=100000000"]
        if self.nodes:
            command += [f"--address={self.address}"]
        else:
            command += ["--head", f"--port={self.port}", f"--include-dashboard={str(self.dashboard).lower()}"]
            command += ["--dashboard-host=0.0.0.0"] * self.dashboard
            command += [f"--system-config={json.dumps(self.settings)}"] * bool(self.settings)
        self._log_of(number).write_text("")
        self.nodes.append(Node(number, address, self._machine(number, address, command)))
        return self.nodes[-1]

    def _log_of(self, number: int) -> Path:
        return self.shared / "logs" / f"node-{number}.log"

    def kill(self, node: Node) -> None:
        """Pull the cable and kill every process of a node; nobody is told."""
        if self.isolated:
            with suppress(subprocess.CalledProcessError):
                self._ip(f"link del node{node.number}")
            node.process.kill()  # the namespace's first process goes with it, and the namespace with that one
        else:
            for process in [*node.processes(), psutil.Process(node.process.pid)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        node.process.wait()
        self.nodes.remove(node)

    def cut_off(self, node: Node, address: str) -> None:
        """Take the route from a node to an address."""
        self._ip(f"route add unreachable {address}/32", of=node.processes()[0].pid)

    def run(self, node: Node, command: Sequence[str], *, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a command on a node, in the shared folder; it dies with the node."""
        entered = []
        if self.isolated:
            first = psutil.Process(node.process.pid).children()[0].pid
            entered = ["nsenter", f"--target={first}", "--net", "--pid", "--mount", "--root", "--wd"]
        with log.open("ab") as file:
            process = self._popen([*entered, *command], stdout=file, stderr=file, **environment)
        self.others.append(process)
        return process

    def mlflow(self) -> str:
        """Start an MLflow server on a machine that is no node; its address."""
        host, port = (SWITCH, 5000) if self.isolated else ("127.0.0.1", free_port())
        command, environment = ui_command(self.shared / "mlflow", port)
        command[command.index("127.0.0.1")] = host
        (self.shared / "mlflow").mkdir()
        entered = ["nsenter", f"--target={self.switch.pid}", "--net"] if self.isolated else []
        alone = ["unshare", "--pid", "--fork", "--kill-child"] if self.isolated else []  # its workers end with it
        with (self.shared / "logs" / "mlflow.log").open("ab") as file:
            server = self._popen([*entered, *alone, *command], stdout=file, stderr=file, **environment)
        self.others.append(server)
        asked = f"until : 2>/dev/null </dev/tcp/{host}/{port}; do sleep 0.3; done"
        subprocess.run([*entered, "bash", "-c", asked], check=True, timeout=PATIENCE_S)
        return f"http://{host}:{port}"

    def listening(self) -> socket.socket:
        """A socket of this process that all nodes reach: it stays in the network that the thread was in that opened it."""
        if not self.isolated:
            return socket.create_server(("127.0.0.1", 0))

        def opened() -> socket.socket:
            with open(f"/proc/{self.switch.pid}/ns/net") as network:
                assert ctypes.CDLL(None).setns(network.fileno(), 0) == 0
            return socket.create_server((SWITCH, 0))

        with ThreadPoolExecutor(1) as aside:
            return aside.submit(opened).result()

    def _machine(self, number: int, address: str, command: list[str]) -> "subprocess.Popen[bytes]":
        if not self.isolated:
            if not self.nodes:  # the others take the head's
                command = [*command, f"--temp-dir={self.ray_folder.name}"]
            with self._log_of(number).open("ab") as file:
                return self._popen(command, stdout=file, stderr=file)
        disk = self.shared / "disks" / str(number)
        disk.mkdir(parents=True)
        unshared = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        script = ["sh", "-c", MACHINE, "sh", str(disk), str(self.shared), str(self._log_of(number)), *command]
        process = self._popen([*unshared, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"here\n"
        name = f"node{number}"
        self._ip(f"link add {name} type veth peer name eth0 netns {process.pid}; link set {name} master bridge up")
        self._ip(f"addr add {address}/24 dev eth0; link set eth0 up; link set lo up", of=process.pid)
        process.stdin.write(b"plugged in\n")
        process.stdin.close()
        return process

    def _popen(self, command: Sequence[str], **how: object) -> "subprocess.Popen[bytes]":
        """It ends with this process, and all that descends from it too."""
        streams = {name: how.pop(name) for name in ("stdin", "stdout", "stderr") if name in how}
        last_will = "KILL" if self.isolated else "TERM"  # `ray start` takes what it has started along
        return subprocess.Popen(
            ["setpriv", f"--pdeathsig={last_will}", *command],
            env={**self.environment, **how},  # type: ignore[dict-item]
            cwd=self.shared,
            **streams,  # type: ignore[call-overload]
        )

    def _ip(self, commands: str, *, of: int | None = None) -> None:
        entered = ["nsenter", f"--target={of or self.switch.pid}", "--net", "ip", "-batch", "-"]
        subprocess.run(entered, input=commands.replace("; ", "\n").encode(), check=True, capture_output=True)


ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI")
"""Of another cluster or server."""


def namespaces_are_allowed() -> bool:
    tried = "ip link add bridge type bridge && mount -t tmpfs own /mnt && mkdir /mnt/u /mnt/w /mnt/d && "
    tried += "mount -t overlay own -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/d"
    command = ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", tried]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def net_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    condition: Callable[[], bool], *, or_dead: "subprocess.Popen[bytes] | None" = None, log: Path | None = None
) -> None:
    """Wait for what must come; fail when it does not, or when the process dies that should bring it."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        alive = or_dead is None or or_dead.poll() is None
        assert alive and time.monotonic() < end, log.read_text()[-3000:] if log else "it did not come"
        time.sleep(0.2)
