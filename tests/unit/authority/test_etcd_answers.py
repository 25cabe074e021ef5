"""An answer that etcd never gives says nothing: a change that was asked for may have been made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remus_agent.adapters.witness import etcd
from remus_agent.adapters.witness.etcd import EtcdWitness
from remus_agent.adapters.witness.gateway import EtcdAccess
from remus_agent.config import Tls
from remus_agent.errors import WitnessError, WitnessUnknown
from remus_agent.machines.authority import Ownership
from remus_agent.witness_ports import Recorded

GUEST = "7b0b2a1e-0d6c-4f7a-9d51-0c6f3f3f0001"
OWNED = Ownership("alpha", 2, "protected", "beta", "web1", "", "alpha")
NO_NUMBERS = ["", "x", "-1", "1.5", " 7", "1_0", "\u0667", "9" * 40]
BYTES = [b"", b"no JSON", b"[" * 100_000, b'{"header":{"revision":"\xff"},"kvs":[{"mod_revision":"\xff"}]}']


@pytest.fixture
def witness() -> EtcdWitness:
    path = Path("unused")
    return EtcdWitness(EtcdAccess(("https://witness:1",), Tls(path, path, path)))


def answering(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
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
