"""An answer that etcd never gives says nothing: a change that was asked for may have been made."""

from __future__ import annotations

import base64
import http.client
import json
from pathlib import Path

import pytest

from remus_agent.adapters.witness import etcd
from remus_agent.adapters.witness.etcd import EtcdWitness
from remus_agent.adapters.witness.gateway import EtcdAccess, NoAnswer, NoSpace, NotAsked, judged
from remus_agent.adapters.witness.record import encode
from remus_agent.config import Tls
from remus_agent.errors import WitnessConflict, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership
from remus_agent.witness_ports import Recorded

GUEST = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
OWNED = Ownership("alpha", 2, "protected", "beta", "web1", "", "alpha")
UNCONNECTED = http.client.HTTPSConnection("witness", 1)
NO_NUMBERS = ["", "x", "-1", "1.5", " 7", "1_0", "\u0667", "9" * 40]
BYTES = [b"", b"no JSON", b"[" * 100_000, b'{"header":{"revision":"\xff"},"kvs":[{"mod_revision":"\xff"}]}']


@pytest.fixture
def witness() -> EtcdWitness:
    path = Path("unused")
    return EtcdWitness(EtcdAccess(("https://witness:1",), Tls(path, path, path)))


def answering(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(etcd, "connected", lambda *_: UNCONNECTED)
    monkeypatch.setattr(etcd, "post", lambda *_: said)


def answers(revision: object) -> bytes:
    value = "e30="
    kvs = [{"mod_revision": revision, "value": value}]
    return json.dumps({"header": {"revision": revision}, "succeeded": True, "kvs": kvs}).encode()


@pytest.mark.parametrize("said", [*map(answers, [*NO_NUMBERS, 7, None]), *BYTES])
async def test_whether_a_change_was_made_is_not_known(
    witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    answering(monkeypatch, said)
    with pytest.raises(WitnessUnknown, match="did not say whether it was made"):
        await witness.change(GUEST, None, OWNED)
    with pytest.raises(WitnessUnknown, match="did not say whether it was made"):
        await witness.forget(GUEST, Recorded(OWNED, 7))


@pytest.mark.parametrize("said", [*map(answers, [*NO_NUMBERS, 7, None]), *BYTES])
async def test_nothing_is_read_from_it(witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    answering(monkeypatch, said)
    with pytest.raises(WitnessError):
        await witness.read(GUEST)


async def test_a_revision_is_a_number(witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, answers("9223372036854775807"))
    assert await witness.change(GUEST, None, OWNED) == Recorded(OWNED, 2**63 - 1)


FULL = b'{"error":"etcdserver: mvcc: database space exceeded","code":8}'
BUSY = b'{"error":"etcdserver: too many requests","code":8,"message":"etcdserver: too many requests"}'
LATE = b'{"error":"etcdserver: request timed out","code":14,"message":"etcdserver: request timed out"}'


@pytest.mark.parametrize(
    ("status", "body", "means"),
    [
        (401, b"", NotAsked),
        (403, b"", NotAsked),
        (429, BUSY, NotAsked),
        (429, FULL, NoSpace),
        (429, b"a proxy has had enough", NoAnswer),
        (503, LATE, NoAnswer),
        (503, FULL, NoAnswer),
        (500, b"", NoAnswer),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, means: type[Exception]) -> None:
    assert judged(200, b"yes") == b"yes"
    with pytest.raises(means) as said:
        judged(status, body)
    assert type(said.value) is means


def standing(record: Recorded | None) -> bytes:
    value = "" if record is None else base64.b64encode(encode(record.ownership)).decode()
    kvs = [] if record is None else [{"mod_revision": str(record.revision), "value": value}]
    return json.dumps({"header": {"revision": "9"}, "kvs": kvs}).encode()


def full(monkeypatch: pytest.MonkeyPatch, stands: Recorded | Exception | None) -> None:
    """An etcd without space, in which this is read."""

    def post(_: http.client.HTTPSConnection, path: str, __: bytes) -> bytes:
        if path.endswith("txn"):
            return judged(429, FULL)
        if isinstance(stands, Exception):
            raise stands
        return standing(stands)

    monkeypatch.setattr(etcd, "connected", lambda *_: UNCONNECTED)
    monkeypatch.setattr(etcd, "post", post)


BEFORE = Recorded(Ownership("alpha", 1, "solo", None, "web1", "", "alpha"), 7)


async def test_without_space_nothing_is_changed_and_that_is_known(
    witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or who asks for a takeover would ask for ever, and let its living primary in no more."""
    full(monkeypatch, BEFORE)
    for call in (witness.change(GUEST, BEFORE, OWNED), witness.forget(GUEST, BEFORE)):
        with pytest.raises(WitnessError, match="takes in no change") as said:
            await call
        assert not isinstance(said.value, WitnessUnknown | WitnessUnreachable)
    full(monkeypatch, None)
    with pytest.raises(WitnessError, match="takes in no change"):
        await witness.change(GUEST, None, OWNED)


async def test_the_change_that_has_used_the_last_space_was_made(
    witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, Recorded(OWNED, 8))
    assert await witness.change(GUEST, BEFORE, OWNED) == Recorded(OWNED, 8)
    with pytest.raises(WitnessConflict):
        await witness.change(GUEST, BEFORE, Ownership("beta", 2, "solo", None, "web1", "", "beta"))
    with pytest.raises(WitnessConflict):
        await witness.forget(GUEST, BEFORE)
    full(monkeypatch, None)
    await witness.forget(GUEST, BEFORE)


async def test_where_that_cannot_be_read_nobody_knows(witness: EtcdWitness, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch, NotAsked("no connection"))
    with pytest.raises(WitnessUnknown, match=r"database space exceeded.*, and then"):
        await witness.change(GUEST, BEFORE, OWNED)
