"""`remusctl stream` on streams that stock Xen wrote: what it accepts, shows and converts, stock `xl restore` brings to life.

Takes the guest to alpha; afterwards it runs there again, unprotected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pair import redis, stock_remus
from pair.guest import answers, come_home
from pair.hosts import GUEST, on
from pair.protection import ensure_unprotected
from pair.wait import until

pytestmark = [pytest.mark.lab, pytest.mark.long, pytest.mark.timeout(3600)]

FOLDER = "/var/tmp/remus-test-streams"  # noqa: S108 - on a lab host
CAPTURED = f"{FOLDER}-captured"
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
    redis.answers(*(f"SET key{number} value{number}" for number in range(KEYS)))
    yield
    on("alpha", f"rm -rf {FOLDER} {CAPTURED}")
    come_home()


def tool(words: str) -> tuple[int, str]:
    """Exit code and output of `remusctl stream` on alpha."""
    said = on("alpha", f'remusctl stream {words} 2>&1; echo "exit=$?"', timeout=600)
    text, _, code = said.rpartition("exit=")
    return int(code), text


def revive(name: str) -> None:
    """The guest from a stream in a file, by stock xl, with the data that it had."""
    on("alpha", f"xl destroy {GUEST} 2>/dev/null; xl restore {FOLDER}/{name}", timeout=300)
    until("the guest answers", answers, timeout=120)
    found = redis.answers(*(f"GET key{number}" for number in range(KEYS)))
    assert found == [f"value{number}" for number in range(KEYS)]


def test_a_saved_domain() -> None:
    on("alpha", f"xl save -c {GUEST} {FOLDER}/saved", timeout=300)
    code, said = tool(f"verify {FOLDER}/saved")
    assert code == 0, said
    code, said = tool(f"-o json inspect {FOLDER}/saved")
    assert code == 0, said
    assert json.loads(said)
    revive("saved")


def test_a_stream_of_stock_remus_becomes_a_saved_domain() -> None:
    stock_remus.start(CAPTURED, f"echo '{stock_remus.BANNER}'\ncat >{CAPTURED}/remus")
    stock_remus.wait_for_checkpoints(CAPTURED, 10, 400)
    on("alpha", f"{stock_remus.KILL}; xl destroy {GUEST}", timeout=120)
    until(
        "the taker has ended",
        lambda: on("alpha", "pgrep -x take || true"),
        lambda pids: not pids.strip(),
        timeout=60,
    )
    # The kill may come in a pause or while an epoch is sent; the last bytes say which of the two it was.
    last = on("alpha", f"tail -c 8 {CAPTURED}/remus | od -An -v -tx1").strip()
    code, said = tool(f"verify {CAPTURED}/remus")
    assert code == (CUT_BETWEEN_EPOCHS if last == CHECKPOINT_END else CUT_INSIDE_EPOCH), f"...{last}\n{said}"
    code, said = tool(f"convert {CAPTURED}/remus {FOLDER}/plain")
    assert code == 0, said
    code, said = tool(f"verify {FOLDER}/plain")
    assert code == 0, said
    revive("plain")
