# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a bridge over a port is there, can be made, or what speaks against it. Decided from what was read; changes nothing."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from ansible.module_utils.remus import interfaces
from ansible.module_utils.remus.files import readable
from ansible.module_utils.remus.interfaces import Refused

BY_HAND = "Next: set the bridge up by hand and leave xen_host_bridge empty"


class Plan:
    """One file with its content before (None where there is none) and after, and the bridge's stanzas by themselves."""

    def __init__(self, path, before, after, bridge, known):
        self.path = path
        self.before = before
        self.after = after
        self.alone = interfaces.only(after, bridge)
        self.known = known
        """Does ifupdown know the port, so that it can take its address away?"""

    def as_diff(self):
        """The `diff` value of a module's result."""
        before, after = readable(self.before or ""), readable(self.after)
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}


def plan(bridge, port, main, files, live):
    """What is to be changed, or None where the bridge is there now and after a boot. Raises Refused.

    main: path of /etc/network/interfaces. files: {path: text} of it and all it takes in. live: what the kernel has, a dict of
    port (is it there?), master (of the port, or None), bridge (is it there?), addressed (has the port an address of its own?)."""
    for name in (bridge, port):
        if not re.match(r"^[A-Za-z][\w.-]{0,14}$", name):
            raise Refused(
                f"'{name}' is not the name of an interface. Next: correct xen_host_bridge or xen_host_bridge_port"
            )
    if not files:
        raise Refused(f"there is no {main}: this host's network is not ifupdown's. {BY_HAND}")
    for path, text in sorted(files.items()):
        given = interfaces.ports_of(text, bridge)
        if given is not None:
            return refuse_half(bridge, port, path, given, live)
    if not live["port"]:
        raise Refused(
            f"there is no interface {port}. Next: correct xen_host_bridge_port; 'ip -brief link' on the host lists them"
        )
    if live["master"]:
        raise Refused(f"{port} belongs to {live['master']}, and {main} does not know {bridge}. {BY_HAND}")
    if live["bridge"]:
        raise Refused(f"there is an interface {bridge} that {main} does not know. {BY_HAND}")
    return made(bridge, port, main, files, live)


def refuse_half(bridge, port, path, given, live):
    """The bridge is in a file: nothing is to be done where it is up as well."""
    if port not in given:
        raise Refused(
            f"{bridge} is in {path} over {' '.join(given) or 'no port'}, not over {port}. Next: correct the one or the other"
        )
    if live["master"] != bridge:
        raise Refused(
            f"{bridge} is in {path}, but {port} is not in it now. Next: run 'ifup {bridge}' on the host, or boot it"
        )


def made(bridge, port, main, files, live):
    """The plan for a bridge that nobody has made yet."""
    for path, text in sorted(files.items()):
        try:
            interfaces.refuse_what_stays(text, port)
        except Refused as refused:
            raise Refused(f"{path}: {refused}") from None
    named = [
        path
        for path, text in sorted(files.items())
        if interfaces.headed(text, port) or interfaces.brought_up(text, port)
    ]
    if len(named) > 1:
        raise Refused(
            f"{port} is in {' and in '.join(named)}. Next: put all of it into one file, which can be replaced in one step"
        )
    if named:
        text = files[named[0]]
        if not interfaces.headed(text, port):
            raise Refused(f"{named[0]} brings {port} up without saying how. Next: complete it, or take it out")
        return Plan(named[0], text, interfaces.moved(text, bridge, port), bridge, True)
    if live["addressed"]:
        raise Refused(f"{port} has an address, but {main} does not know it: something else configures it. {BY_HAND}")
    path = f"{main}.d/{bridge}"
    if not taken_in(path, main, files[main]):
        raise Refused(f"{main} does not read {main}.d. Next: add the line 'source {main}.d/*', as Debian has it")
    return Plan(path, None, interfaces.fresh(bridge, port), bridge, False)


def taken_in(path, main, text):
    """Would the file MAIN with TEXT take in a file PATH?"""
    for word, pattern in interfaces.sources(text):
        whole = Path(main).parent / pattern
        if fnmatch.fnmatch(path, str(whole if word == "source" else whole / "*")):
            return True
    return False
