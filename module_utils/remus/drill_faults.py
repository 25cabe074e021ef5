# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""What each fault of a drill does to one host, as lines for its shell: how it begins, how it is undone, how that is seen.

Pure functions. What undoes a fault may run twice, and where it never began.
"""

from __future__ import annotations

import math
import shlex

from ansible.module_utils.remus import drill_fences

FAULTS = (
    "agent_kill",
    "agent_freeze",
    "slow_link",
    "link_cut",
    "one_way_cut",
    "disk_stall",
    "witness_loss",
    "host_freeze",
    "host_panic",
    "host_power_loss",
)
DEFERRED = ("host_freeze", "host_panic", "host_power_loss")
"""They take away what would answer: they begin a moment after everybody has been told that they will."""
REBOOTS = ("host_panic", "host_power_loss")
"""Nothing has to undo them: the host boots, and what it kept below /run is gone."""
FROZEN = ("system.slice", "user.slice")
"""Everything in a host's own domain besides systemd itself, which is in init.scope, and what this drill runs."""
SLICE = "remusdrill.slice"
CGROUPS = "/sys/fs/cgroup"
LEAST_WRITES = 2
"""Bytes a second: the kernel refuses a limit of one, and systemd only logs that."""


class Work:
    """begin, undo: lines of sh, in order. look: one line that succeeds when the fault is over. needs: programs. longest: seconds
    that its beginning may take, during which nothing must undo it."""

    def __init__(self, begin, undo, look, needs=("systemctl",), longest=0):
        self.begin = list(begin)
        self.undo = list(undo)
        self.look = look
        self.needs = tuple(needs)
        self.longest = longest


def _q(*words):
    return " ".join(shlex.quote(str(word)) for word in words)


def agent_kill(unit, **_rest):
    """SIGKILL to the agent and to nobody else: xl's monitors of guests are in its unit."""
    return Work(
        [_q("systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit)],
        [_q("systemctl", "reset-failed", unit) + " || true", _q("systemctl", "start", unit)],
        _q("systemctl", "is-active", "--quiet", unit),
    )


def agent_freeze(unit, **_rest):
    """The agent stands still, with all that it has open."""
    pid = f"$(systemctl show --property=MainPID --value {_q(unit)})"
    return Work(
        [_q("systemctl", "kill", "--signal=STOP", "--kill-whom=main", unit)],
        [
            _q("systemctl", "kill", "--signal=CONT", "--kill-whom=main", unit) + " || true",
            _q("systemctl", "start", unit),
        ],
        f"systemctl is-active --quiet {_q(unit)} && ! grep -q '^State:[[:space:]]*T' /proc/{pid}/status",
    )


def cut(links, **_rest):
    """What the peers' addresses send is dropped where it comes in, so this host hears nothing of them. links: `interface` and
    `peer`. What this host sends still goes out: cut both sides for a link that is dead."""
    begin, undo, look = [], [], []
    for interface in sorted({link["interface"] for link in links}):
        begin.append(_q("tc", "qdisc", "add", "dev", interface, "ingress"))
        undo.append(_q("tc", "qdisc", "del", "dev", interface, "ingress") + " 2>/dev/null || true")
        look.append(f"! tc qdisc show dev {_q(interface)} | grep -q ' ingress '")
    for link in links:
        begin.append(
            _q("tc", "filter", "add", "dev", link["interface"], "parent", "ffff:", *_match(link["peer"], "src"))
            + " action drop"
        )
    return Work(begin, undo, " && ".join(look), ("tc",))


def slow_link(links, delay_ms, **_rest):
    """What goes to the peers is late by so many milliseconds; nothing else on the interface is."""
    begin, undo, look = [], [], []
    for interface in sorted({link["interface"] for link in links}):
        begin += [
            _q("tc", "qdisc", "add", "dev", interface, "root", "handle", "1:", "prio", "bands", 4),
            _q("tc", "qdisc", "add", "dev", interface, "parent", "1:4", "handle", "40:", "netem", "delay",
               f"{delay_ms}ms", "limit", 100000),
        ]  # fmt: skip
        undo.append(_q("tc", "qdisc", "del", "dev", interface, "root", "handle", "1:") + " 2>/dev/null || true")
        look.append(f"! tc qdisc show dev {_q(interface)} | grep -q ' netem '")
    for link in links:
        begin.append(
            _q("tc", "filter", "add", "dev", link["interface"], "parent", "1:", *_match(link["peer"], "dst"))
            + " flowid 1:4"
        )
    return Work(begin, undo, " && ".join(look), ("tc",))


def _match(address, which):
    kind, name, length = ("ipv6", "ip6", 128) if ":" in address else ("ip", "ip", 32)
    return ("protocol", kind, "u32", "match", name, which, f"{address}/{length}")


def disk_stall(unit, path, **_rest):
    """What the agent writes to the file system of its state comes to a stand: two bytes a second. Nobody else's writes do.

    The kernel goes on counting a file's writes for the group that had the limits when the file was first written. It looks again
    once something new is written from within the unit's group, so that is done here."""
    limit = "IOWriteBandwidthMax="
    group = f"{CGROUPS}$(systemctl show --property=ControlGroup --value {_q(unit)})"
    new = _q(f"{path}/.remus-drill")
    return Work(
        [
            _q("systemctl", "set-property", "--runtime", unit, f"{limit}{path} {LEAST_WRITES}"),
            f"grep -q ' wbps={LEAST_WRITES} ' {group}/io.max || "
            "{ echo 'the kernel has not taken the limit' >&2; exit 1; }",
            f"(echo 0 > {group}/cgroup.procs && echo > {new} && rm -f {new})",
        ],
        [_q("systemctl", "set-property", "--runtime", unit, limit)],
        f"! systemctl show --property=IOWriteBandwidthMax --value {_q(unit)} | grep -q . && "
        f"! grep -qs ' wbps=[0-9]' {group}/io.max",
    )


def witness_loss(unit, **_rest):
    """The witness's service is stopped."""
    return Work(
        [_q("systemctl", "stop", unit)],
        [_q("systemctl", "start", unit)],
        _q("systemctl", "is-active", "--quiet", unit),
    )


def host_freeze(**_rest):
    """Every process of the host's own domain stands still, besides systemd. Guests and the kernel go on. Where nobody looks after
    sessions there is no slice of users."""
    files = [f"{CGROUPS}/{name}/cgroup.freeze" for name in FROZEN]
    return Work(
        [f"test ! -e {name} || echo 1 > {name}" for name in files],
        [f"test ! -e {name} || echo 0 > {name}" for name in files],
        "! grep -qsx 1 {}".format(" ".join(files)),
        ("systemctl",),
    )


def host_panic(**_rest):
    """The kernel of the host's own domain panics, and Xen with it; the machine boots again by itself."""
    return Work(["sysctl -q -w kernel.panic=10", "echo c > /proc/sysrq-trigger"], ["true"], "true", ("sysctl",))


def host_power_loss(fence=None, **_rest):
    """Reset at once, nothing is written out. fence: do it from here to another host, by its fence agent (see `fence_of`)."""
    if not fence:
        return Work(["echo b > /proc/sysrq-trigger"], ["true"], "true", ())
    off, on, status = (drill_fences.told(fence, action) for action in ("off", "on", "status"))
    return Work([off], [on], status, ("timeout", fence["program"]), math.ceil(fence["timeout"]))


MAKERS = {
    "agent_kill": agent_kill,
    "agent_freeze": agent_freeze,
    "slow_link": slow_link,
    "link_cut": cut,
    "one_way_cut": cut,
    "disk_stall": disk_stall,
    "witness_loss": witness_loss,
    "host_freeze": host_freeze,
    "host_panic": host_panic,
    "host_power_loss": host_power_loss,
}


def work(fault, **options):
    """The Work of a fault with the options of remus_drill_fault."""
    return MAKERS[fault](**options)


def begin_script(fault, made, run_dir):
    """What begins the fault, unless its time is over already: nothing would undo it then. The mark comes first: of some faults
    nothing comes back."""
    free = _q("test", "!", "-e", f"{run_dir}/undone")
    lines = ["#!/bin/sh", f"# A drill: {fault} begins.", "set -e", free, _q("touch", f"{run_dir}/begun"), *made.begin]
    return "\n".join(lines) + "\n"


def undo_script(fault, made, run_dir):
    """What undoes it, by the host's own timer or by whoever comes first, and marks it once it is seen undone."""
    return "\n".join(
        [
            "#!/bin/sh",
            f"# A drill: {fault} ends. Safe to run at any time, and twice.",
            "cd /",
            *made.undo,
            f"if {made.look}; then",
            "  {}".format(_q("touch", f"{run_dir}/undone")),
            "  {}".format(_q("rm", "-f", f"{run_dir}/not-undone")),
            "else",
            "  {}".format(_q("touch", f"{run_dir}/not-undone")),
            "  exit 1",
            "fi",
            "",
        ]
    )


def timer(unit, seconds, script):
    """The command with which systemd runs a script after so many seconds, whatever becomes of everybody else."""
    return [
        "systemd-run",
        f"--unit={unit}",
        f"--slice={SLICE}",
        f"--on-active={seconds}",
        "--timer-property=AccuracySec=100ms",
        "--property=StandardOutput=null",
        "--property=StandardError=null",
        "--collect",
        "--quiet",
        "/bin/sh",
        script,
    ]
