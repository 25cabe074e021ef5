"""`witness_ports.Witness` on etcd, through the JSON gateway of its v3 API (/v3/kv/range, /v3/kv/txn).

Reads are linearizable, which is etcd's default. A change is one transaction that compares the key's mod_revision (0: there is no
such key). Several endpoints are one cluster. Another one is asked for a change only while it is sure that the one before did not
take the request in, so that no change is asked for twice without anybody knowing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from remus_agent.adapters.witness.gateway import EtcdAccess, NoAnswer, NoSpace, NotAsked, connected, post
from remus_agent.adapters.witness.ready_connection import KEPT, ReadyConnection
from remus_agent.adapters.witness.record import decode, encode
from remus_agent.errors import WitnessConflict, WitnessError, WitnessUnknown, WitnessUnreachable
from remus_agent.machines.authority import Ownership
from remus_agent.witness_ports import Recorded

PREFIX: Final = "/remus/v1/guests/"
_HINT: Final = "check etcd on the witness, the network to it, and [witness] in the agent's configuration"
T = TypeVar("T")

log = logging.getLogger(__name__)

_Revision = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{1,19}\Z")]
"""A 64-bit number, which the gateway writes as text."""


class _KeyValue(msgspec.Struct, frozen=True):
    """As the gateway writes it. value: in base64."""

    mod_revision: _Revision
    value: str = ""


class _Range(msgspec.Struct, frozen=True):
    kvs: tuple[_KeyValue, ...] = ()


class _Header(msgspec.Struct, frozen=True):
    revision: _Revision


class _Txn(msgspec.Struct, frozen=True):
    """succeeded is left out of the answer when it is false."""

    header: _Header
    succeeded: bool = False


class EtcdWitness:
    """One host's access. Requests go through a thread, one after the other, so that the agent's loop never waits."""

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._turn = asyncio.Lock()
        self._first = 0
        """The endpoint that answered last."""
        self._ready = ReadyConnection()
        self._unused: asyncio.TimerHandle | None = None
        """When that is closed."""

    async def expect(self) -> None:
        """As the port says."""
        async with self._turn:
            if self._ready.stands:
                return
            for number, endpoint in self._endpoints():
                try:
                    self._ready.hold(await _finished(functools.partial(connected, self._access, endpoint)), endpoint)
                except NotAsked as error:
                    log.debug("the witness is not ready to be asked: %s: %s", endpoint, error)
                    continue
                self._first = number
                break
            self._close_when_unused()

    async def read(self, guest: str) -> Recorded | None:
        """As the port says."""
        answer = await self._request("range", {"key": _base64(_key(guest))}, _Range, changes=False)
        if not answer.kvs:
            return None
        found = answer.kvs[0]
        try:
            return Recorded(decode(base64.b64decode(found.value, validate=True)), int(found.mod_revision))
        except ValueError as error:
            raise WitnessError(
                f"the record {_key(guest).decode()} cannot be used: {error}",
                operation="read the witness",
                left="nothing was changed",
                hint=f"look at it with `etcdctl get {_key(guest).decode()}`; before it is deleted, make sure who runs the guest",
            ) from error

    async def change(self, guest: str, was: Recorded | None, now: Ownership) -> Recorded:
        """As the port says."""
        put = {"request_put": {"key": _base64(_key(guest)), "value": _base64(encode(now))}}
        try:
            return Recorded(now, await self._transaction(guest, was, put))
        except NoSpace as full:
            found = await self._after(full, guest, was)
            if found is not None and found.ownership == now:
                return found
            raise _conflict(guest) from full

    async def forget(self, guest: str, was: Recorded) -> None:
        """As the port says."""
        try:
            await self._transaction(guest, was, {"request_delete_range": {"key": _base64(_key(guest))}})
        except NoSpace as full:
            if await self._after(full, guest, was) is not None:
                raise _conflict(guest) from full

    async def close(self) -> None:
        """As the port says."""
        if self._unused is not None:
            self._unused.cancel()
        self._ready.close()

    async def _after(self, full: NoSpace, guest: str, was: Recorded | None) -> Recorded | None:
        """What stands there when a change has ended for want of space: that it was made, where it is not `was` any more. Raises
        WitnessError where it was not, WitnessUnknown where that cannot be read."""
        try:
            found = await self.read(guest)
        except WitnessError as error:
            raise _unknown("etcd", f"{full}, and then: {error}") from error
        if (found and found.revision) != (was and was.revision):
            return found
        raise WitnessError(
            f"etcd takes in no change: {full}",
            operation="change the witness",
            left="nothing was changed",
            hint="give it space again: docs/operations.md, Alarm NOSPACE",
        ) from full

    async def _transaction(self, guest: str, was: Recorded | None, action: dict[str, Any]) -> int:
        """The revision of a transaction whose comparison held."""
        compare = {
            "key": _base64(_key(guest)),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": str(was.revision if was else 0),
        }
        answer = await self._request("txn", {"compare": [compare], "success": [action]}, _Txn, changes=True)
        if not answer.succeeded:
            raise _conflict(guest)
        return int(answer.header.revision)

    def _endpoints(self) -> list[tuple[int, str]]:
        """In the order in which they are asked, with their numbers."""
        known = list(enumerate(self._access.endpoints))
        return known[self._first :] + known[: self._first]

    def _close_when_unused(self) -> None:
        if self._unused is not None:
            self._unused.cancel()
        self._unused = asyncio.get_running_loop().call_later(KEPT, self._ready.close)

    async def _post(self, endpoint: str, path: str, payload: bytes) -> bytes:
        """One request, through the connection that is ready or one of its own. Raises as `post` does."""
        taken = self._ready.take(endpoint)

        def ask() -> bytes:
            with contextlib.closing(connected(self._access, endpoint)) as own:
                return post(own, path, payload)

        if taken is None:
            return await _finished(ask)
        try:
            said = await _finished(functools.partial(post, taken, path, payload))
        except asyncio.CancelledError:
            taken.close()
            raise
        self._ready.give_back(taken)
        return said

    async def _request(self, what: str, body: dict[str, Any], kind: type[T], *, changes: bool) -> T:
        """The answer of the first endpoint that takes the request in."""
        payload = msgspec.json.encode(body)
        failed: list[str] = []
        async with self._turn:
            for number, endpoint in self._endpoints():
                try:
                    said = await self._post(endpoint, f"/v3/kv/{what}", payload)
                except NotAsked as error:
                    failed.append(f"{endpoint}: {error}")
                    continue
                except NoSpace as error:
                    if changes:
                        raise
                    failed.append(f"{endpoint}: {error}")
                    continue
                except NoAnswer as error:
                    if changes:
                        raise _unknown(endpoint, str(error)) from error
                    failed.append(f"{endpoint}: {error}")
                    continue
                self._first = number
                return _answer(said, endpoint, kind, changes=changes)
        raise WitnessUnreachable(
            f"the witness cannot be asked: {'; '.join(failed)}",
            operation="ask the witness",
            left="nothing was changed",
            hint=_HINT,
        )


def _key(guest: str) -> bytes:
    return f"{PREFIX}{guest}".encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def _finished(work: Callable[[], T]) -> T:
    """The outcome of what blocks. A caller that is cancelled waits for it: a request that goes on unseen could be overtaken by
    the next one."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _answer(said: bytes, endpoint: str, kind: type[T], *, changes: bool) -> T:
    try:
        return msgspec.json.decode(said, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if changes:
            raise _unknown(endpoint, f"an answer that is not etcd's: {error}") from error
        raise WitnessError(
            f"{endpoint} answers with something that is not etcd's: {error}",
            operation="ask the witness",
            left="nothing was changed",
            hint=_HINT,
        ) from error


def _conflict(guest: str) -> WitnessConflict:
    return WitnessConflict(
        f"the record {_key(guest).decode()} was changed by somebody else meanwhile",
        operation="change the witness",
        left="nothing was changed",
    )


def _unknown(endpoint: str, why: str) -> WitnessUnknown:
    return WitnessUnknown(
        f"{endpoint} was asked for a change and did not say whether it was made: {why}",
        operation="change the witness",
        left="it may have been made, and may still be",
        hint=_HINT,
    )
