"""What the domain of a copy is called until it runs."""

from __future__ import annotations

import re

from remus_agent.protocol.replication.messages import Hello

_WORKING_NAME = re.compile(r".+--incoming-[0-9a-f]{8}")


def working_name(hello: Hello) -> str:
    """What the domain of a copy is called until it runs."""
    return f"{hello.domain}--incoming-{hello.session[:8]}"


def is_working_name(name: str) -> bool:
    """Whether a domain is called as only a copy is."""
    return _WORKING_NAME.fullmatch(name) is not None
