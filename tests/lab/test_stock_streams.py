"""`remusctl stream` on streams that stock Xen wrote: what it accepts, shows and converts, stock `xl restore` brings to life.

Takes the guest to alpha; afterwards it runs there again, unprotected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pair.guest import answers, come_home
from pair.hosts import GUEST, REDIS, in_namespace, on, run
from pair.protection import ensure_unprotected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(1800)]

FOLDER = "/var/tmp/remus-test-streams"  # noqa: S108 - on a lab host
BANNER = "xl migration receiver ready, send binary domain data."
KEYS = 50
CUT_INSIDE_EPOCH, CUT_BETWEEN_EPOCHS = 14, 15
"""What `remusctl stream verify` exits with for a stream of `xl remus` whose primary died: it never has an END."""
CHECKPOINT_END = "04 00 00 00 00 00 00 00"
"""libxl's record of that name, in which every epoch ends."""


@pytest.fixture(scope="module", autouse=True)
def folder(lab: dict[str, Any]) -> Iterator[None]:
    """A folder for streams on alpha, where the guest runs, protected by nobody, with keys of known values."""
    ensure_unprotected()
    on("alpha", f"rm -rf {FOLDER} && mkdir -m 0700 {FOLDER}")
    redis("SET", *(f"{word}{number}" for number in range(KEYS) for word in ("key", "value")))
    yield
    on("alpha", f"rm -rf {FOLDER}")
    come_home()


def redis(command: str, *words: str) -> list[str]:
    """Each pair of words (SET), or each word (GET), as one command; the answers."""
    step = 2 if command == "SET" else 1
    lines = [" ".join((command, *words[start : start + step])) for start in range(0, len(words), step)]
    host, _, port = REDIS.partition(":")
    return run(in_namespace("redis-cli", "-h", host, "-p", port), stdin="\n".join(lines) + "\n").split()


def tool(words: str) -> tuple[int, str]:
    """Exit code and output of `remusctl stream` on alpha."""
    said = on("alpha", f'remusctl stream {words} 2>&1; echo "exit=$?"', timeout=600)
    text, _, code = said.rpartition("exit=")
    return int(code), text


def revive(name: str) -> None:
    """The guest from a stream in a file, by stock xl, with the data that it had."""
    on("alpha", f"xl destroy {GUEST} 2>/dev/null; xl restore {FOLDER}/{name}", timeout=300)
    until("the guest answers", answers, timeout=120)
    assert redis("GET", *(f"key{number}" for number in range(KEYS))) == [f"value{number}" for number in range(KEYS)]


def test_a_saved_domain() -> None:
    on("alpha", f"xl save -c {GUEST} {FOLDER}/saved", timeout=300)
    code, said = tool(f"verify {FOLDER}/saved")
    assert code == 0, said
    code, said = tool(f"-o json inspect {FOLDER}/saved")
    assert code == 0, said
    assert json.loads(said)
    revive("saved")


def test_a_stream_of_stock_remus_becomes_a_saved_domain() -> None:
    take = f"#!/bin/sh\necho '{BANNER}'\ncat >{FOLDER}/remus\n"
    on("alpha", f"cat >{FOLDER}/take && chmod 0700 {FOLDER}/take", stdin=take)
    on(
        "alpha",
        f"setsid xl -vvv remus -F -n -d -i 100 -s '' {GUEST} {FOLDER}/take >{FOLDER}/log 2>&1 </dev/null & echo $!",
    )
    until(
        "ten checkpoints",
        lambda: int(on("alpha", f"grep -c 'Checkpointed save' {FOLDER}/log || true").strip()),
        lambda count: count >= 10,
        timeout=400,
    )
    on("alpha", f"pkill -KILL -x xl; pkill -KILL -x libxl-save-help; xl destroy {GUEST}", timeout=120)
    until(
        "the taker has ended",
        lambda: on("alpha", "pgrep -x take || true"),
        lambda pids: not pids.strip(),
        timeout=60,
    )
    # The kill may come in a pause or while an epoch is sent; the last bytes say which of the two it was.
    last = on("alpha", f"tail -c 8 {FOLDER}/remus | od -An -v -tx1").strip()
    code, said = tool(f"verify {FOLDER}/remus")
    assert code == (CUT_BETWEEN_EPOCHS if last == CHECKPOINT_END else CUT_INSIDE_EPOCH), f"...{last}\n{said}"
    code, said = tool(f"convert {FOLDER}/remus {FOLDER}/plain")
    assert code == 0, said
    code, said = tool(f"verify {FOLDER}/plain")
    assert code == 0, said
    revive("plain")
