"""The witness on a real etcd, with TLS: who may change the record, and what is known when an answer does not come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from remus_agent.adapters.witness import etcd as etcd_witness
from remus_agent.adapters.witness import ready_connection
from remus_agent.adapters.witness.etcd import PREFIX, EtcdWitness
from remus_agent.adapters.witness.gateway import EtcdAccess
from remus_agent.config import Tls
from remus_agent.errors import WitnessConflict, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership
from tests.certificates import Authority
from tests.etcd_server import Node, etcd

GUEST = "6a3b5c2e-0d54-4c3a-9a52-b5d5a3f1c001"
FIRST = Ownership("alpha", 1, "solo", None, "web1", "protected for the first time", "alpha")
SECOND = Ownership("alpha", 2, "protected", "beta", "web1", "the backup holds a copy", "alpha")
SECOND_FLIGHT = 300
"""Bytes that a client sends at least when it shows its certificate, which is the end of its handshake."""
THIRD = Ownership("beta", 3, "solo", None, "web1", "the primary is silent", "beta")


@dataclass
class Site:
    """A cluster and who may ask it."""

    folder: Path
    authority: Authority
    client: Tls
    nodes: Sequence[Node]

    def access(self, *endpoints: str, timeout: float = 20.0) -> EtcdAccess:
        return EtcdAccess(endpoints or tuple(node.endpoint for node in self.nodes), self.client, timeout)

    def etcdctl(self, *words: str) -> str:
        options = [f"--endpoints={self.nodes[0].endpoint}", f"--cacert={self.client.ca}"]
        options += [f"--cert={self.client.certificate}", f"--key={self.client.key}"]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(
            ["etcdctl", *options, *words], capture_output=True, text=True, timeout=60, check=True, env=environment
        ).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("etcd")
    authority = Authority(folder)
    client = authority.issue("alpha")
    with etcd(folder, authority, client) as nodes:
        yield Site(folder, authority, client, nodes)


@pytest.fixture
def witness(site: Site) -> EtcdWitness:
    """An empty witness."""
    site.etcdctl("del", "", "--from-key=true")
    return EtcdWitness(site.access())


@contextlib.asynccontextmanager
async def deafened(node: Node, ends_when: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[str]:
    """An endpoint that passes everything on to a node, and nothing back from the moment on in which a request may be in.
    ends_when: the client's connection breaks when this is so; without it there is only silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", node.port)
        spoken = deaf = False

        async def back() -> None:
            nonlocal spoken
            while data := await server_reader.read(65536):
                spoken = True
                if not deaf:
                    writer.write(data)

        async def forth() -> None:
            nonlocal deaf
            while data := await reader.read(65536):
                deaf = deaf or (spoken and len(data) > SECOND_FLIGHT)
                server_writer.write(data)

        async def end() -> None:
            while ends_when is not None and not await ends_when():  # noqa: ASYNC110 - the witness tells nobody
                await asyncio.sleep(0.05)
            if ends_when is not None:
                writer.transport.abort()

        with contextlib.suppress(OSError):
            await asyncio.gather(forth(), back(), end())
        server_writer.close()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


async def test_a_record_is_made_changed_and_forgotten(witness: EtcdWitness) -> None:
    assert await witness.read(GUEST) is None
    first = await witness.change(GUEST, None, FIRST)
    assert await witness.read(GUEST) == first
    second = await witness.change(GUEST, first, SECOND)
    assert await witness.read(GUEST) == second
    assert second.ownership == SECOND
    await witness.forget(GUEST, second)
    assert await witness.read(GUEST) is None


async def test_only_one_of_two_who_compare_with_the_same_record_changes_it(witness: EtcdWitness, site: Site) -> None:
    record = await witness.change(GUEST, None, SECOND)
    rivals = [EtcdWitness(site.access()) for _ in range(8)]
    wanted = [replace(THIRD, owner=f"host{number}") for number in range(8)]
    tries = (rival.change(GUEST, record, want) for rival, want in zip(rivals, wanted, strict=True))
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(won) == 1
    assert [type(lost) for lost in outcomes if isinstance(lost, BaseException)] == [WitnessConflict] * 7
    assert await witness.read(GUEST) == won[0]


@pytest.mark.parametrize("what", ["create", "change", "forget"])
async def test_nothing_changes_on_another_record_than_was_read(witness: EtcdWitness, what: str) -> None:
    first = await witness.change(GUEST, None, FIRST)
    second = await witness.change(GUEST, first, SECOND)
    with pytest.raises(WitnessConflict):
        if what == "create":
            await witness.change(GUEST, None, THIRD)
        elif what == "change":
            await witness.change(GUEST, first, THIRD)
        else:
            await witness.forget(GUEST, first)
    assert await witness.read(GUEST) == second


async def test_a_record_that_came_back_to_the_same_content_is_another_one(witness: EtcdWitness) -> None:
    first = await witness.change(GUEST, None, FIRST)
    again = await witness.change(GUEST, first, FIRST)
    with pytest.raises(WitnessConflict):
        await witness.change(GUEST, first, SECOND)
    assert (await witness.change(GUEST, again, SECOND)).ownership == SECOND


async def stands(witness: EtcdWitness, wanted: Ownership) -> bool:
    found = await witness.read(GUEST)
    return found is not None and found.ownership == wanted


async def test_a_lost_answer_leaves_the_outcome_open(witness: EtcdWitness, site: Site) -> None:
    """The change was made; only reading tells. Another endpoint is not asked for the same change."""
    first = await witness.change(GUEST, None, FIRST)
    async with deafened(site.nodes[0], lambda: stands(witness, SECOND)) as endpoint:
        deaf = EtcdWitness(site.access(endpoint, site.nodes[0].endpoint))
        with pytest.raises(WitnessUnknown, match="did not say whether"):
            await deaf.change(GUEST, first, SECOND)
    assert await stands(witness, SECOND)


async def test_silence_ends_and_leaves_the_outcome_open(witness: EtcdWitness, site: Site) -> None:
    first = await witness.change(GUEST, None, FIRST)
    async with deafened(site.nodes[0]) as endpoint:
        deaf = EtcdWitness(site.access(endpoint, timeout=1.0))
        with pytest.raises(WitnessUnknown):
            await deaf.change(GUEST, first, SECOND)
        with pytest.raises(WitnessUnreachable):
            await deaf.read(GUEST)


@contextlib.asynccontextmanager
async def passing(node: Node) -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """An endpoint that passes everything on to a node, and every connection that a client has made to it."""
    clients: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", node.port)

        async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    to.write(data)
            to.close()

        await asyncio.gather(carry(reader, server_writer), carry(server_reader, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}", clients
    finally:
        listener.close()
        for client in clients:
            client.close()


async def test_who_was_expected_asks_over_the_connection_that_is_ready(witness: EtcdWitness, site: Site) -> None:
    first = await witness.change(GUEST, None, FIRST)
    async with passing(site.nodes[0]) as (endpoint, clients):
        hurried = EtcdWitness(site.access(endpoint))
        await hurried.expect()
        await hurried.expect()
        assert await hurried.read(GUEST) == first
        second = await hurried.change(GUEST, first, SECOND)
        with pytest.raises(WitnessConflict):
            await hurried.change(GUEST, first, THIRD)
        assert await hurried.read(GUEST) == second
        assert len(clients) == 1
        await hurried.close()
        assert await hurried.read(GUEST) == second
        assert await hurried.read(GUEST) == second
        assert len(clients) == 3, "without that, each request has its own"
    assert await witness.read(GUEST) == second


async def test_a_connection_that_was_closed_meanwhile_is_not_used(witness: EtcdWitness, site: Site) -> None:
    """Or nobody would know whether a change was made."""
    first = await witness.change(GUEST, None, FIRST)
    async with passing(site.nodes[0]) as (endpoint, clients):
        hurried = EtcdWitness(site.access(endpoint))
        await hurried.expect()
        clients[0].transport.abort()
        await clients[0].wait_closed()
        assert (await hurried.change(GUEST, first, SECOND)).ownership == SECOND
        assert len(clients) == 2


async def test_a_connection_is_ready_for_a_while_only(
    witness: EtcdWitness, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's certificate may be another one then."""
    monkeypatch.setattr(ready_connection, "KEPT", 0.0)
    async with passing(site.nodes[0]) as (endpoint, clients):
        hurried = EtcdWitness(site.access(endpoint))
        await hurried.expect()
        assert await hurried.read(GUEST) is None
        assert len(clients) == 2
    monkeypatch.setattr(etcd_witness, "KEPT", 0.2)
    async with passing(site.nodes[0]) as (endpoint, clients):
        left = EtcdWitness(site.access(endpoint))
        await left.expect()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(clients[0].wait_closed(), 20)


async def test_nobody_is_told_that_a_witness_cannot_be_made_ready(site: Site) -> None:
    async with passing(site.nodes[0]) as (endpoint, clients):
        hurried = EtcdWitness(site.access("https://127.0.0.1:9", endpoint))
        await hurried.expect()
        assert await hurried.read(GUEST) is None
        assert len(clients) == 1, "the endpoint that is there is the one that is ready"
    nobody = EtcdWitness(site.access("https://127.0.0.1:9"))
    await nobody.expect()
    with pytest.raises(WitnessUnreachable):
        await nobody.read(GUEST)


async def test_the_next_endpoint_is_asked_where_nobody_listens(witness: EtcdWitness, site: Site) -> None:
    patient = EtcdWitness(site.access("https://127.0.0.1:9", site.nodes[0].endpoint))
    first = await patient.change(GUEST, None, FIRST)
    assert await witness.read(GUEST) == first


async def test_nobody_listens_anywhere(site: Site) -> None:
    nobody = EtcdWitness(site.access("https://127.0.0.1:9"))
    for call in (nobody.read(GUEST), nobody.change(GUEST, None, FIRST)):
        with pytest.raises(WitnessUnreachable, match=r"127\.0\.0\.1:9: no connection"):
            await call


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"owner": "alpha"}',
        '{"owner":"alpha","generation":0,"state":"solo","backup":null,"name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":"2","state":"solo","backup":null,"name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":2,"state":"both","backup":null,"name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":2,"state":"solo","backup":"beta","name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":2,"state":"protected","backup":null,"name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":2,"state":"protected","backup":"alpha","name":"web1","reason":"","changed_by":"a"}',
        '{"owner":"../x","generation":2,"state":"solo","backup":null,"name":"web1","reason":"","changed_by":"alpha"}',
        '{"owner":"alpha","generation":2,"state":"solo","backup":null,"name":"web1","reason":"","changed_by":"a","x":1}',
    ],
)
async def test_what_is_no_record_is_named(witness: EtcdWitness, site: Site, content: str) -> None:
    site.etcdctl("put", "--", f"{PREFIX}{GUEST}", content)
    with pytest.raises(WitnessError, match=f"the record {PREFIX}{GUEST} cannot be used"):
        await witness.read(GUEST)


def test_a_record_that_nobody_could_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="names its backup"):
        asyncio.run(EtcdWitness.change(object(), GUEST, None, replace(FIRST, backup="beta")))  # type: ignore[arg-type]


@pytest.mark.parametrize("whose", ["foreign", "expired", "none"])
async def test_only_the_sites_own_certificates_get_in(
    witness: EtcdWitness, site: Site, tmp_path: Path, whose: str
) -> None:
    access = site.access()
    if whose == "none":
        access = replace(access, files=replace(access.files, key=tmp_path / "missing.key"))
    else:
        signer = Authority(tmp_path, "other") if whose == "foreign" else site.authority
        files = signer.issue("alpha", start=-9, days=19 if whose == "foreign" else 8, into=whose)
        access = replace(access, files=replace(files, ca=access.files.ca))
    stranger = EtcdWitness(access)
    with pytest.raises(WitnessUnreachable):
        await stranger.read(GUEST)
    # A server that hangs up on a certificate may do so before it is heard to say why.
    with pytest.raises((WitnessUnreachable, WitnessUnknown)):
        await stranger.change(GUEST, None, FIRST)
    assert await witness.read(GUEST) is None


async def test_a_witness_of_another_site_is_not_believed(site: Site, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").issue("alpha").ca
    fooled = EtcdWitness(replace(site.access(), files=replace(site.client, ca=other)))
    with pytest.raises(WitnessUnreachable, match=r"(?i)certificate verify failed"):
        await fooled.read(GUEST)


async def test_a_certificate_that_is_replaced_is_used_at_once(witness: EtcdWitness, site: Site, tmp_path: Path) -> None:
    expired = site.authority.issue("alpha", start=-9, days=8, into="old")
    certificate, key = tmp_path / "host.pem", tmp_path / "host.key"
    for path, source in ((certificate, expired.certificate), (key, expired.key)):
        path.write_bytes(source.read_bytes())
    host = EtcdWitness(replace(site.access(), files=Tls(site.client.ca, certificate, key)))
    with pytest.raises(WitnessUnreachable):
        await host.read(GUEST)
    fresh = site.authority.issue("alpha", into="fresh")
    for path, source in ((certificate, fresh.certificate), (key, fresh.key)):
        path.write_bytes(source.read_bytes())
    assert await host.read(GUEST) is None


async def test_a_caller_that_gives_up_leaves_no_request_behind(witness: EtcdWitness) -> None:
    first = await witness.change(GUEST, None, FIRST)
    task = asyncio.ensure_future(witness.change(GUEST, first, SECOND))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    before = await witness.read(GUEST)
    assert await witness.read(GUEST) == before


async def test_three_nodes_outlive_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("alpha")
    with etcd(tmp_path, authority, client, nodes=3) as nodes:
        access = EtcdAccess(tuple(node.endpoint for node in nodes), client, 30.0)
        witness = EtcdWitness(access)
        record = await witness.change(GUEST, None, FIRST)
        nodes[0].kill()
        found = await _until_known(witness)
        assert found == FIRST
        record = await witness.read(GUEST) or record
        with contextlib.suppress(WitnessUnknown):
            await witness.change(GUEST, record, SECOND)
        assert await _until_known(witness) in (FIRST, SECOND)
        nodes[1].kill()
        with pytest.raises(WitnessError):
            await EtcdWitness(replace(access, timeout=2.0)).read(GUEST)


async def test_an_etcd_that_is_full_says_so_and_what_is_known_of_a_change_is_known(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("alpha")
    with etcd(tmp_path, authority, client, quota=1 << 20) as nodes:
        site = Site(tmp_path, authority, client, nodes)
        witness = EtcdWitness(site.access())
        first = await witness.change(GUEST, None, FIRST)
        with pytest.raises(subprocess.CalledProcessError) as full:
            for number in range(100):
                site.etcdctl("put", f"/filler/{number}", "x" * 65536)
        assert "database space exceeded" in full.value.stderr
        with pytest.raises(WitnessError, match="takes in no change") as said:
            await witness.change(GUEST, first, SECOND)
        assert not isinstance(said.value, WitnessUnknown)
        assert await witness.read(GUEST) == first


async def _until_known(witness: EtcdWitness) -> Ownership:
    """The record, once the cluster has a leader again."""
    for _ in range(60):
        with contextlib.suppress(WitnessUnreachable):
            found = await witness.read(GUEST)
            assert found is not None
            return found.ownership
    raise AssertionError("the cluster never found a leader")
