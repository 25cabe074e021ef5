"""What users and networks get wrong, on the live pair: a clear refusal, and a guest that noticed nothing.

Takes the guest to alpha and leaves it there, unprotected.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_hosts import Host
from pair import agent, faults, protection
from pair.guest import answers, copies
from pair.hosts import ADDRESSES, GUEST, on
from pair.protection import SEED_TIMEOUT, ensure_protected, ensure_unprotected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

PORT = 7789
HERE = Path(__file__).parent
ROGUE = "/run/remus-rogue"
PYTHON = "/opt/remus/current/bin/python3"
JOURNAL = "/var/lib/remus/journal"


@pytest.fixture(scope="module", autouse=True)
def _lab(lab: dict[str, Any]) -> Iterator[None]:
    """Skips with the lab's own reason when there is none. Puts the rogue peer on alpha."""
    alpha = Host("alpha")
    alpha.put(ROGUE, {name: (HERE / name).read_bytes() for name in ("rogue_peer.py", "peer_socket.py")})
    yield
    alpha.run(f"rm -rf {ROGUE}")


@pytest.fixture
def unprotected() -> None:
    """The guest on alpha, protected by nobody."""
    ensure_unprotected()


@pytest.fixture
def protected() -> agent.Status:
    """The guest on alpha, protected to beta."""
    return ensure_protected()


def domid() -> int:
    """The guest's domain on alpha; it must run."""
    found = [copy for copy in copies("alpha") if copy.name == GUEST]
    assert [copy.runs for copy in found] == [True], found
    return found[0].domid


@contextlib.contextmanager
def guest_untouched() -> Iterator[None]:
    """The same domain runs before and after, answers, and nobody protects it or holds anything of it."""
    before = domid()
    yield
    assert domid() == before
    until("the guest answers", answers, timeout=60)
    until(
        "no protection is left over",
        lambda: agent.status("alpha"),
        protection.unprotected,
        timeout=120,
    )
    until("no copy is left over", lambda: copies("beta"), lambda found: not found, timeout=120)


def refused(**params: Any) -> agent.AgentError:
    """The error of a protect request, which must be one a person can use."""
    with pytest.raises(agent.AgentError) as caught:
        agent.ask("alpha", "protect", timeout=SEED_TIMEOUT, **{"domain": GUEST, "peer": "beta", **params})
    error = caught.value
    assert error.message
    assert "Traceback" not in error.message
    return error


def test_a_name_that_does_not_exist(unprotected: None) -> None:
    with guest_untouched():
        error = refused(domain="redis9")
    assert error.code == "domain-not-found"
    assert GUEST in f"{error.message} {error.facts.get('hint')}", "the message names what exists"


def test_a_peer_that_is_not_configured(unprotected: None) -> None:
    with guest_untouched():
        error = refused(peer="gamma")
    assert error.code == "config"
    assert "gamma" in error.message
    assert "beta" in error.message


def test_a_guest_that_is_protected_already(protected: agent.Status) -> None:
    before = domid()
    error = refused()
    assert error.code == "already-protected"
    after = agent.status("alpha")
    assert (domid(), agent.session(after), after["state"]) == (before, agent.session(protected), "protected")


@pytest.fixture
def pv_guest() -> Iterator[str]:
    """A paused PV guest on alpha beside the lab's own."""
    name = "pvtest"
    change = f's/^name = .*/name = "{name}"/; s/00:16:3e:77:00:64/00:16:3e:77:00:97/'
    on(
        "alpha",
        f"sed '{change}' /etc/xen/{GUEST}-pv.cfg >/run/{name}.cfg && xl create -q -p /run/{name}.cfg",
        timeout=300,
    )
    yield name
    on("alpha", f"xl destroy {name}; rm /run/{name}.cfg", timeout=120)


def test_a_pv_guest_where_xen_has_no_shadow_paging(pv_guest: str) -> None:
    reasons = agent.probe_reasons("alpha", "beta", domain=pv_guest)
    assert reasons
    offers = "shadow" in on("alpha", "xl info virt_caps").split()
    assert ("built without shadow paging" in str(reasons)) is not offers, reasons


@pytest.fixture
def ballast() -> Iterator[None]:
    """A paused domain on beta that leaves less memory free than a copy needs."""
    free = int(on("beta", "xl info free_memory").strip())
    text = (
        'name = "ballast"\ntype = "pvh"\nvcpus = 1\n'
        'kernel = "/var/lib/remus-lab/guest/vmlinuz"\n'
        f"memory = {free - 90}\nmaxmem = {free - 90}\n"
    )
    on("beta", "cat > /run/ballast.cfg && xl create -q -p /run/ballast.cfg", stdin=text, timeout=300)
    yield
    on("beta", "xl destroy ballast; rm /run/ballast.cfg")


def test_a_backup_without_free_memory(unprotected: None, ballast: None) -> None:
    reasons = agent.probe_reasons("alpha", "beta")
    assert "MiB" in reasons["memory"]
    with guest_untouched():
        error = refused()
    assert error.code == "peer-refused"
    assert "memory" in error.message


def rogue(address: str = ADDRESSES["beta"], **case: Any) -> dict[str, Any]:
    """What the agent answers to a peer that says strange things from alpha."""
    command = f"{PYTHON} {ROGUE}/rogue_peer.py {address} {PORT}"
    whole = {"hello": None, "hex": "", "shut": True, **case}
    said: dict[str, Any] = json.loads(on("alpha", command, stdin=json.dumps(whole), timeout=120))
    return said


def hello(**changes: Any) -> dict[str, Any]:
    """A HELLO that beta would accept for a domain that is none of ours."""
    facts = agent.ask("beta", "agent")
    return {
        "purpose": "probe",
        "domain": "ghost",
        "guest_type": "pvh",
        "memory_kib": 65536,
        "xen_version": facts["xen_version"],
        "cpu_policy": facts["cpu_policy"],
        "host": "alpha",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"xen_version": "4.11.4"}, "xen-version"),
        ({"cpu_policy": "00" * 16}, "cpu-policy"),
        ({"guest_type": "pv"}, "cpu-policy"),  # PV guests are held against a policy of their own
        ({"memory_kib": 1 << 30}, "memory"),
    ],
)
def test_hosts_that_do_not_match(unprotected: None, changes: dict[str, Any], code: str) -> None:
    said = rogue(hello=hello(**changes))
    reasons = {reason["code"]: reason for reason in json.loads(said["answer"])["reasons"]}
    assert list(reasons) == [code]
    assert reasons[code]["hint"]


def test_a_matching_host_is_welcome(unprotected: None) -> None:
    assert json.loads(rogue(hello=hello())["answer"])["host"] == "beta"


@pytest.fixture
def without_plug(unprotected: None) -> Iterator[None]:
    """Alpha's kernel cannot load the plug qdisc."""
    faults.restart("alpha")  # which takes away what tests with killed agents and destroyed guests have left
    on("alpha", "mkdir -p /run/modprobe.d && echo 'install sch_plug /bin/false' > /run/modprobe.d/no-plug.conf")
    try:
        on("alpha", "if lsmod | grep -q ^sch_plug; then rmmod sch_plug; fi")
        yield
    finally:
        on("alpha", "rm -f /run/modprobe.d/no-plug.conf && modprobe sch_plug")


def test_a_kernel_without_the_plug(without_plug: None) -> None:
    with guest_untouched():
        error = refused()
    assert error.code == "output-buffer"
    assert "plug" in f"{error.message} {error.facts.get('hint')}"


@pytest.fixture
def full_journal(unprotected: None) -> Iterator[None]:
    """No byte free under beta's journal."""
    on(
        "beta",
        f"mount -t tmpfs -o size=64k,mode=0700 tmpfs {JOURNAL}"
        f" && dd if=/dev/zero of={JOURNAL}/ballast bs=4k 2>/dev/null; test -s {JOURNAL}/ballast",
    )
    faults.restart("beta")
    yield
    on("beta", "systemctl stop remus-agent.service", timeout=180)
    on("beta", f"umount {JOURNAL}")
    faults.restart("beta")


def test_a_full_disk_under_the_journal(full_journal: None) -> None:
    with guest_untouched():
        error = refused()
    assert error.code in ("peer-refused", "journal")
    assert "journal" in error.message or "space" in error.message
    assert agent.answers("beta")


GARBAGE = {
    "noise": {"hex": "de" * 4096},
    "an HTTP request": {"hex": b"GET / HTTP/1.1\r\n\r\n".hex()},
    "half a header": {"hex": b"RMUS\x01\x00".hex()},
    "a wrong checksum": {"hex": (b"RMUS\x09" + bytes(15) + b"\xff" * 4).hex()},
    "a payload of four GiB": {"hex": (b"RMUS\x05" + bytes(11) + b"\xff" * 8).hex()},
    "nothing at all": {"hex": ""},
}


@pytest.mark.parametrize("case", GARBAGE.values(), ids=GARBAGE)
def test_garbage_on_the_replication_port(protected: agent.Status, case: dict[str, str]) -> None:
    assert rogue(**case)["closed"]
    check_undisturbed(protected)


@pytest.mark.parametrize("case", GARBAGE.values(), ids=GARBAGE)
def test_garbage_after_a_valid_hello(protected: agent.Status, case: dict[str, str]) -> None:
    said = rogue(hello=hello(purpose="protect", memory_kib=4096), **case)
    assert '"session"' in said["answer"], "the HELLO itself is fine"
    assert said["closed"]
    check_undisturbed(protected)
    until("nothing of it is left", lambda: on("beta", "xl list"), lambda text: "ghost" not in text, timeout=60)


def check_undisturbed(before: agent.Status) -> None:
    """The session that was there goes on, and the agent serves."""
    now = until(
        "epochs rise",
        lambda: agent.status("alpha"),
        lambda state: state["committed_epoch"] > before["committed_epoch"],
        timeout=120,
    )
    assert now["state"] == "protected"
    assert agent.session(now) == agent.session(before)
    assert agent.answers("beta")


def test_leaves_the_guest_unprotected(unprotected: None) -> None:
    """Last in this file: the next file finds a defined state."""
    assert domid()
