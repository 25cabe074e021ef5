"""A pair for drills that is this machine: two agents, a guest that answers like Redis, and the programs that a fault runs.

The guest's answers are held until the next commit, as a primary's plugs would. A file `killed` in the folder is the agent's
death: `systemctl kill` of the stand-ins makes it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.modules.test_protection import status

AWAY = 3.0
"""Seconds without an agent after it was killed; it is silent for half of that again."""
COMMIT = 0.05

SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> {folder}/log
case "$1" in kill) touch {folder}/killed; test ! -e {folder}/takes-the-host || touch {folder}/gone-alpha;; esac
exit 0
"""
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run $*" >> {folder}/log
for word; do case "$word" in --on-active=*) seconds=${{word#*=}};; esac; script=$word; done
(sleep "$seconds"; test ! -e "$script" || /bin/sh "$script") < /dev/null > /dev/null 2>&1 &
"""
TC = """#!/bin/sh
echo "tc $*" >> {folder}/log
case "$*" in *-json*) echo '[]';; *filter*) echo 'no such classifier' >&2; exit 2;; esac
"""
FENCE = """#!/bin/sh
action=$(sed -n 's/^action=//p')
echo "fence $action" >> {folder}/log
case "$action" in
on) test ! -e {folder}/broken || exit 0; rm -rf {folder}/gone-alpha {folder}/marks;;
status) test ! -e {folder}/gone-alpha || exit 2;;
esac
"""
IP = """#!/bin/sh
echo '[{{"ifname": "eth7"}}]'
"""


@dataclass
class World:
    """What is true at this moment. leaks: the guest's answers go out although nobody has acknowledged them. returns: the agent
    protects the guest again."""

    folder: Path
    leaks: bool = False
    returns: bool = True
    acked: int = 10
    counter: int = 0
    keys: dict[bytes, bytes] = field(default_factory=dict)
    died: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: list[tuple[socket.socket, bytes]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    listeners: list[socket.socket] = field(default_factory=list)
    port: int = 0

    def state(self) -> str:
        """Of the primary's agent: protected, silent, or empty while there is none."""
        if self.died is None:
            return "protected"
        since = time.monotonic() - self.died
        if since < AWAY:
            return ""
        return "protected" if since > 1.5 * AWAY and self.returns else "silent"

    def start(self) -> None:
        """Begin to answer."""
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-run", SYSTEMD_RUN), ("tc", TC), ("ip", IP)):
            path = self.folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(folder=self.folder))
            path.chmod(0o755)
        self.configuration.touch()
        for host in ("alpha", "beta"):
            (self.folder / host).mkdir()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.folder / host / "agent.sock"))
            self._listen(listener, lambda link, host=host: self._agent(link, host))
        guest = socket.create_server(("127.0.0.1", 0))
        self.port = guest.getsockname()[1]
        self._listen(guest, self._guest)
        threading.Thread(target=self._commit, daemon=True).start()

    def stop(self) -> None:
        """End all of it."""
        self.over.set()
        for listener in self.listeners:
            listener.close()

    @property
    def configuration(self) -> Path:
        """Of both hosts' agents."""
        return self.folder / "agent.toml"

    def fences(self, works: bool = True) -> None:
        """beta has a fence agent for alpha. works: it switches alpha on, which boots and has forgotten what was below /run."""
        program = self.folder / "bin" / "fence_alpha"
        program.write_text(FENCE.format(folder=self.folder))
        program.chmod(0o755)
        self.configuration.write_text(f'[timeouts]\ndetect = 0.1\n[fencing.alpha]\nagent = "{program}"\ntimeout = 1\n')
        if not works:
            (self.folder / "broken").touch()

    def log(self) -> list[str]:
        """What the faults ran, in order."""
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def _listen(self, listener: socket.socket, serve: Any) -> None:
        listener.listen(8)
        self.listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(link,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def _commit(self) -> None:
        while not self.over.wait(COMMIT):
            if (self.folder / "killed").exists() and self.died is None:
                self.died = time.monotonic()
            with self.lock:
                if self.state() == "protected":
                    self.acked += 1
                    record = {"epoch": self.acked, "started": time.clock_gettime(time.CLOCK_BOOTTIME), "pages": 100}
                    self.epochs.append(record | {"bytes": 4096, "down_ns": 2_000_000, "send_ns": 1, "ack_ns": 1})
                if self.state() == "protected" or self.leaks:
                    for link, data in self.held:
                        link.sendall(data)
                    self.held.clear()

    def _agent(self, link: socket.socket, host: str) -> None:
        with link, link.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                if host == "alpha" and not self.state():
                    return
                answer = self._answer(host, request["method"], request["params"])
                link.sendall(json.dumps({"id": request["id"], "result": answer}).encode() + b"\n")

    def _answer(self, host: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        primary = status(state=self.state(), peer="beta", acked_epoch=self.acked, committed_epoch=self.acked)
        said = primary if host == "alpha" else status("backup", "ready", "alpha")
        if method == "agent":
            return {"host": host, "version": "0.1.0", "xen_version": "4.20", "peers": {}, "watchdog": None}
        if method == "records":
            return {"epochs": self.epochs[-params["limit"] :]}
        if method == "events":
            return {"events": []}
        return {"domains": [said]} if method == "list" else said

    def _guest(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as lines:
            while head := lines.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int(lines.readline()[1:])
                    words.append(lines.read(size))
                    lines.read(2)
                with self.lock:
                    self.held.append((link, self._reply(words)))

    def _reply(self, words: list[bytes]) -> bytes:
        if words[0] == b"INCR":
            self.keys[words[1]] = b"%d" % (int(self.keys.get(words[1], b"0")) + 1)
            return b":" + self.keys[words[1]] + b"\r\n"
        if words[0] == b"SET":
            self.keys[words[1]] = words[2]
            return b"+OK\r\n"
        if words[0] == b"DEL":
            return b":%d\r\n" % sum(self.keys.pop(key, None) is not None for key in words[1:])
        value = self.keys.get(words[1])
        return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
