"""Real etcd nodes on the loopback address, with TLS and client certificates, for tests."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remus_agent.config import Tls
from tests.certificates import Authority

START = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now, below those that the kernel takes for outgoing connections: it must not take one of them
    before somebody listens there, or while that is started anew."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            one, port = stack.enter_context(socket.socket()), 10000 + secrets.randbelow(20000)
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found


@dataclass
class Node:
    """One node. port: of its clients."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def etcd(folder: Path, authority: Authority, client: Tls, nodes: int = 1, quota: int = 0) -> Iterator[Sequence[Node]]:
    """A cluster that has a leader; gone afterwards. quota: bytes that its database may take; 0: the usual number."""
    program = shutil.which("etcd")
    if program is None:
        raise AssertionError("etcd is not installed: apt-get install etcd-server etcd-client")
    server = authority.issue("etcd", addresses=("127.0.0.1",))
    ports = free_ports(2 * nodes)
    peers = [f"http://127.0.0.1:{port}" for port in ports[nodes:]]
    cluster = ",".join(f"n{number}={url}" for number, url in enumerate(peers))
    running: list[Node] = []
    with (folder / "etcd.log").open("wb") as log, contextlib.ExitStack() as stack:
        for number, (port, peer) in enumerate(zip(ports, peers, strict=False)):
            url = f"https://127.0.0.1:{port}"
            options = {
                "name": f"n{number}", "data-dir": str(folder / f"n{number}"), "listen-client-urls": url,
                "advertise-client-urls": url, "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
                "initial-cluster": cluster, "cert-file": str(server.certificate), "key-file": str(server.key),
                "trusted-ca-file": str(server.ca), "client-cert-auth": "true", "unsafe-no-fsync": "true",
                "quota-backend-bytes": str(quota),
            }  # fmt: skip
            words = [program, *(f"--{key}={value}" for key, value in options.items())]
            process = subprocess.Popen(words, stdout=log, stderr=log)
            running.append(Node(process, port))
            stack.callback(running[-1].kill)
        for node in running:
            _wait(node, client, folder / "etcd.log")
        yield running


def _wait(node: Node, client: Tls, log: Path) -> None:
    words = ["etcdctl", f"--endpoints={node.endpoint}", f"--cacert={client.ca}", f"--cert={client.certificate}"]
    words += [f"--key={client.key}", "endpoint", "health"]
    deadline = time.monotonic() + START
    while subprocess.run(
        words, capture_output=True, timeout=30, check=False, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
    ).returncode:
        if time.monotonic() > deadline or node.process.poll() is not None:
            raise AssertionError(f"etcd does not start: {log.read_text()[-3000:]}")
        time.sleep(0.1)
