"""An agent says which configuration it has read: one that was written afterwards is not in effect before a restart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from remus_agent.adapters import digests
from remus_agent.services.requests import Nothing, handlers
from tests.model.loop import run
from tests.model.pair import Pair, on


def test_files_are_named_by_their_content(tmp_path: Path) -> None:
    there, gone = tmp_path / "agent.toml", tmp_path / "disks.toml"
    there.write_bytes(b"[host]\n")
    found = digests.of_files((there, gone))
    assert found == {str(there): hashlib.sha256(b"[host]\n").hexdigest(), str(gone): None}
    there.write_bytes(b"[host] \n")
    assert digests.of_files((there,))[str(there)] != found[str(there)]


def test_the_agent_says_it() -> None:
    async def story() -> None:
        agent = on(Pair().alpha)
        read = {"/etc/remus/agent.toml": "ab12", "/etc/remus/disks.toml": None}
        answer = await handlers(agent, lambda *_: [], configuration=read)["agent"](Nothing(), lambda *_: None)
        assert answer["configuration"] == read

    run(story())
