# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Files of interfaces(5) as ifupdown reads them, and how what they say of a port becomes the same of a bridge over it. Pure."""

from __future__ import annotations

import re

BEGINS = ("iface", "auto", "mapping", "source", "source-directory", "no-auto-down", "no-scripts", "template", "rename")
"""Words that begin a stanza; so does every word that begins with C(allow-)."""
OF_THE_ADDRESS = (
    "address", "netmask", "gateway", "broadcast", "network", "metric", "pointopoint", "scope", "mtu", "hostname", "leasetime",
    "leasehours", "vendor", "client", "accept_ra", "autoconf", "privext", "dad-attempts", "dad-interval", "preferred-lifetime",
    "request_prefix", "dns-nameserver", "dns-nameservers", "dns-search", "dns-domain", "dns-sortlist", "dns-options",
    "pre-up", "up", "post-up", "pre-down", "down", "post-down",
)  # fmt: skip
"""Options that say the same of a bridge as of its port. Any other could be the hardware's, or another package's."""


class Refused(Exception):
    """Why the files are left as they are; the message goes on with the next step."""


def starts(line):
    """Does a stanza begin here? (not with a comment, nor with an option)"""
    words = line.split()
    return bool(words) and (words[0] in BEGINS or words[0].startswith("allow-"))


def logical_lines(text):
    """Lines as ifupdown reads them: each as (first number, number behind it, text), continued ones as one, comments left out."""
    lines = text.splitlines()
    found, number = [], 0
    while number < len(lines):
        first, whole = number, lines[number]
        number += 1
        while whole.endswith("\\") and number < len(lines):
            whole = whole[:-1] + " " + lines[number]
            number += 1
        if whole.strip() and not whole.lstrip().startswith("#"):
            found.append((first, number, whole.strip()))
    return found


def stanzas(text):
    """All stanzas: each a list of logical lines, the first of which begins it."""
    found = []
    for line in logical_lines(text):
        if starts(line[2]) or not found:
            found.append([line])
        else:
            found[-1].append(line)
    return found


def headed(text, name):
    """Stanzas C(iface) of an interface."""
    return [stanza for stanza in stanzas(text) if stanza[0][2].split()[:2] == ["iface", name]]


def brought_up(text, name):
    """Logical lines C(auto) and C(allow-…) that name an interface."""
    lines = [stanza[0] for stanza in stanzas(text)]
    return [line for line in lines if re.match(r"(auto|allow-\S+)\s", line[2]) and name in line[2].split()[1:]]


def sources(text):
    """What the file takes in: (word, pattern or folder)."""
    lines = [stanza[0][2].split() for stanza in stanzas(text)]
    return [(words[0], words[1]) for words in lines if words[0] in ("source", "source-directory") and len(words) > 1]


def ports_of(text, bridge):
    """Ports that the files give to a bridge, or None where they know no such interface."""
    found = headed(text, bridge)
    if not found:
        return None
    options = [line[2].split() for stanza in found for line in stanza[1:]]
    return [port for words in options if words[0].replace("-", "_") == "bridge_ports" for port in words[1:]]


def mentions(line, name):
    """Is an interface named? eth0 is in its alias eth0:1, not in the VLAN eth0.5 nor in veth0."""
    return re.search(r"(?<![\w.:-])" + re.escape(name) + r"(?![\w.-])", line) is not None


def bridge_lines(port):
    """Options that make an interface a bridge over PORT. Its own address is the port's, or DHCP would give it another one."""
    return [f"    bridge_ports {port}", f"    bridge_hw {port}", "    bridge_stp off", "    bridge_fd 0"]


def fresh(bridge, port):
    """A file for a bridge over a port that has no address."""
    return "\n".join([f"auto {bridge}", f"iface {bridge} inet manual", *bridge_lines(port), ""])


def moved(text, bridge, port):
    """The file TEXT, in which PORT has its stanzas, with these as BRIDGE's."""
    refuse_what_stays(text, port)
    lines = text.splitlines()
    replaced = {}
    automatic = brought_up(text, port)
    for position, (first, behind, whole) in enumerate(automatic):
        word, *names = whole.split()
        others = [name for name in names if name != port]
        kept = [" ".join([word, *others])] if others else []
        replaced[first] = (behind, [*kept, *([f"auto {bridge}"] if position == 0 else [])])
    for position, stanza in enumerate(headed(text, port)):
        first, behind, whole = stanza[0]
        header = ["iface", bridge, *whole.split()[2:]]
        begin = [f"auto {bridge}"] if position == 0 and not automatic else []
        replaced[first] = (behind, [*begin, " ".join(header), *(bridge_lines(port) if position == 0 else [])])
    result, number = [], 0
    while number < len(lines):
        behind, new = replaced.get(number, (number + 1, [lines[number]]))
        result += new
        number = behind
    return "\n".join(result) + "\n"


def refuse_what_stays(text, port):
    """Raise Refused where something of the port could not be the bridge's."""
    for stanza in stanzas(text):
        words = stanza[0][2].split()
        own = words[:2] == ["iface", port]
        if own and len(words) > 4:
            raise Refused(
                f"'{stanza[0][2]}' builds on another stanza. Next: write it out, or set the bridge up by hand"
            )
        if not own and words[0] not in ("auto", "source", "source-directory") and not words[0].startswith("allow-"):
            named = [line[2] for line in stanza if mentions(line[2], port)]
        else:
            named = [line[2] for line in stanza[1:] if mentions(line[2], port)]
        if named:
            raise Refused(
                f"'{named[0]}' names {port}, which will have no address any more. Next: set the bridge up by hand"
            )
        if own:
            for line in stanza[1:]:
                option = line[2].split()[0]
                if option not in OF_THE_ADDRESS:
                    raise Refused(
                        f"'{line[2]}' may be about the port and not about its address. Next: set the bridge up by hand"
                    )


def only(text, name):
    """The stanzas of one interface alone, as a file."""
    lines = text.splitlines()
    found = [line for stanza in headed(text, name) for first, behind, _ in stanza for line in lines[first:behind]]
    return "\n".join([*found, ""])
