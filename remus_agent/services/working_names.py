"""What the domain of a copy is called until it runs."""

from __future__ import annotations

import re

from remus_agent.protocol.replication.messages import Hello

_WORKING_NAME = re.compile(r"(.+)--incoming-[0-9a-f]{8}")


def working_name(hello: Hello) -> str:
    """What the domain of a copy is called until it runs."""
    return f"{hello.domain}--incoming-{hello.session[:8]}"


def guest_of(name: str) -> str | None:
    """The guest or group of which a domain of this name is a copy; None where it is called as no copy is."""
    found = _WORKING_NAME.fullmatch(name)
    return None if found is None else found[1]
