"""Ways to a host for the looks at its agent: ssh by paramiko, independent of Ansible's own connections, or this machine.

ssh is used as the inventory says: address, port, user, key, and the file that `-F` of `ansible_ssh_common_args` names. Keys of
hosts are checked against the known ones, unless that file says not to.
"""

from __future__ import annotations

import select
import shlex
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SOURCE = Path(__file__).with_name("on_host.py")
CONNECT = 5.0
BEGIN = 15.0
"""Seconds for a host to say that it has begun what it was told to; paramiko itself would wait for ever."""


class Unreachable(Exception):
    """No way to the host, or not any more. The message says why."""


class Way(Protocol):
    """An open conversation with on_host.py."""

    def ask(self, patience: float) -> str:
        """The answer to one line, in so many seconds. Raises Unreachable."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Target:
    """How a host is reached. config: a file as ssh_config(5), or empty. become: through sudo, which must not ask."""

    name: str
    local: bool
    address: str = ""
    port: int = 22
    user: str = ""
    key: str = ""
    config: str = ""
    become: bool = False
    python: str = "/usr/bin/python3"

    @classmethod
    def of(cls, name: str, said: dict[str, Any]) -> Target:
        """From the variables of a host in the inventory."""
        words = shlex.split(str(said.get("ansible_ssh_common_args") or ""))
        config = next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "-F"), "")
        python = str(said.get("ansible_python_interpreter") or "")
        return cls(
            name=name,
            local=said.get("ansible_connection") == "local",
            address=str(said.get("ansible_host") or name),
            port=int(said.get("ansible_port") or 0),
            user=str(said.get("ansible_user") or ""),
            key=str(said.get("ansible_ssh_private_key_file") or ""),
            config=config,
            become=str(said.get("ansible_become") or "").lower() in ("true", "yes", "1"),
            python=python if python.startswith("/") else "/usr/bin/python3",
        )


def command(target: Target, arguments: list[str]) -> list[str]:
    """What is run there."""
    words = [target.python, "-c", SOURCE.read_text(), *arguments]
    return ["sudo", "-n", *words] if target.become else words


class Local:
    """This machine."""

    def __init__(self, target: Target, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            command(target, arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._received = b""

    def ask(self, patience: float) -> str:
        """See Way."""
        if self._process.stdin is None or self._process.stdout is None:
            raise Unreachable("no pipes")
        deadline = time.monotonic() + patience
        try:
            self._process.stdin.write(b"\n")
            while b"\n" not in self._received:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                    raise Unreachable(f"no answer within {patience:g} s")
                piece = self._process.stdout.read(65536)
                if not piece:
                    raise Unreachable("what looks at the agent ended")
                self._received += piece
        except OSError as error:
            raise Unreachable(str(error)) from error
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """See Way."""
        self._process.kill()
        self._process.wait()


class Ssh:
    """Another one."""

    def __init__(self, target: Target, arguments: list[str]) -> None:
        self._client = connect(target)
        import paramiko  # noqa: PLC0415 - where no host is reached by ssh, nobody has to have it

        lost = threading.Timer(BEGIN, self._client.close)
        lost.start()
        try:
            transport = self._client.get_transport()
            if transport is None:
                raise Unreachable("the connection has ended")
            transport.set_keepalive(2)
            self._channel = transport.open_session(timeout=CONNECT)
            self._channel.exec_command(shlex.join(command(target, arguments)))
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._client.close()
            raise Unreachable(str(error)) from error
        finally:
            lost.cancel()
        self._received: bytes = b""

    def ask(self, patience: float) -> str:
        """See Way."""
        deadline = time.monotonic() + patience
        try:
            self._channel.sendall(b"\n")
            while b"\n" not in self._received:
                self._channel.settimeout(max(0.01, deadline - time.monotonic()))
                piece: bytes = self._channel.recv(65536)
                if not piece:
                    raise Unreachable("what looks at the agent ended: " + self._words())
                self._received += piece
        except TimeoutError as error:
            raise Unreachable(f"no answer within {patience:g} s") from error
        except OSError as error:
            raise Unreachable(str(error)) from error
        line, _, self._received = self._received.partition(b"\n")
        return str(line, "utf-8")

    def _words(self) -> str:
        self._channel.settimeout(0.5)
        try:
            return str(self._channel.recv_stderr(400), "utf-8", "replace").strip()
        except OSError:
            return ""

    def close(self) -> None:
        """See Way."""
        self._client.close()


def connect(target: Target) -> Any:
    """A paramiko.SSHClient that is logged in. Raises Unreachable."""
    try:
        import paramiko  # noqa: PLC0415
    except ImportError as error:
        raise Unreachable(
            "paramiko is not installed for the controller's Python. Next: pip install paramiko (requirements/dev.txt has it)"
        ) from error
    said = settings(target)
    client = paramiko.SSHClient()
    if said["checked"]:
        client.load_system_host_keys()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
    else:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - ssh_config of this host says so
    try:
        client.connect(
            said["address"],
            port=said["port"],
            username=said["user"],
            key_filename=said["keys"] or None,
            sock=paramiko.ProxyCommand(said["proxy"]) if said["proxy"] else None,
            timeout=CONNECT,
            banner_timeout=CONNECT,
            auth_timeout=CONNECT,
        )
    except (paramiko.SSHException, OSError, EOFError) as error:
        client.close()
        raise Unreachable(f"ssh: {error or type(error).__name__}") from error
    return client


def settings(target: Target) -> dict[str, Any]:
    """What ssh is told: what the inventory says comes before what the file says. Raises Unreachable."""
    import paramiko  # noqa: PLC0415

    config = _expanded(target.config)
    path = Path(config or Path.home() / ".ssh" / "config")
    found: dict[str, Any] = {}
    if path.is_file():
        found = dict(paramiko.SSHConfig.from_path(str(path)).lookup(target.address))
    proxy = str(found.get("proxycommand") or "")
    if found.get("proxyjump") and not proxy:
        proxy = shlex.join(["ssh", *(["-F", config] if config else []), "-W", "%h:%p", str(found["proxyjump"])])
    address = str(found.get("hostname") or target.address)
    port = target.port or int(found.get("port") or 22)
    return {
        "address": address,
        "port": port,
        "user": target.user or found.get("user") or None,
        "keys": [_expanded(target.key)] if target.key else list(found.get("identityfile") or []),
        "checked": str(found.get("stricthostkeychecking") or "").lower() not in ("no", "off"),
        "proxy": proxy.replace("%h", address).replace("%p", str(port)) if proxy.lower() != "none" else "",
    }


def _expanded(path: str) -> str:
    """A file that the inventory names, whose `~` paramiko and ssh would take for a folder's name. Raises Unreachable."""
    try:
        return str(Path(path).expanduser()) if path else ""
    except RuntimeError as error:
        raise Unreachable(f"{path}: no such user here. Next: correct the path in the inventory") from error


def way_to(target: Target, arguments: list[str]) -> Way:
    """Open one. Raises Unreachable."""
    return Local(target, arguments) if target.local else Ssh(target, arguments)
