"""The copy's stream reaches xl whole, and its end is noticed however xl ends."""

from __future__ import annotations

import asyncio
import json
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_xen import DOMID, FakeXen
from streams import samples

from remus_agent.adapters.ledger import Ledger
from remus_agent.adapters.xen import feeder as feeder_module
from remus_agent.adapters.xen import target as target_module
from remus_agent.adapters.xen import toolstack
from remus_agent.adapters.xen.feeder import Feeder
from remus_agent.adapters.xen.target import XenTarget
from remus_agent.errors import HypervisorError
from remus_agent.protocol.stream import writer
from remus_agent.protocol.stream.reader import iter_records
from remus_agent.protocol.stream.records import parse_page_data
from tests.burning import burn
from tests.spent import spent

Script = Callable[[str], Path]


@pytest.fixture
def xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts an `xl` of our own first in PATH; what it is fed lands in `fed`, its arguments in `arguments`."""

    def make(body: str) -> Path:
        script = tmp_path / "bin" / "xl"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\ncd {tmp_path}\necho "$@" >>arguments\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        return tmp_path

    return make


def pages(*pfns: int, fill: int = 7) -> bytes:
    content = np.full((len(pfns), 4096), fill, np.uint8)
    return b"".join(b"".join(parts) for parts in writer.page_data(np.array(pfns, np.uint64), content.data))


def test_everything_is_fed_in_order_whatever_the_sizes(xl: Script) -> None:
    folder = xl("cat $3 >fed")
    parts = [bytes([n % 256]) * (n * 997 % 70000) for n in range(1500)]
    feeder = Feeder("web1", 30.0)
    feeder.write(parts)
    feeder.finish(30.0)
    feeder.abort()
    assert (folder / "fed").read_bytes() == b"".join(parts)
    assert (folder / "arguments").read_text() == "restore -p /dev/stdin\n"


def test_an_xl_that_dies_is_noticed_with_its_last_words(xl: Script) -> None:
    xl("echo 'libxl: error: no bridge xenbr9' >&2; exit 3")
    feeder = Feeder("web1", 30.0)
    with pytest.raises(HypervisorError, match="no bridge xenbr9"):
        feeder.write([bytes(8 << 20)])
    feeder.abort()
    feeder.abort()


def test_an_xl_that_fails_at_the_end_is_noticed(xl: Script) -> None:
    xl("cat $3 >/dev/null; echo 'vif-bridge failed'; exit 1")
    feeder = Feeder("web1", 30.0)
    feeder.write([b"x"])
    with pytest.raises(HypervisorError, match="status 1: vif-bridge failed"):
        feeder.finish(30.0)


def test_an_xl_that_stops_reading_is_noticed(xl: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder_module, "_LOOK", 0.05)
    monkeypatch.setattr(feeder_module, "_STOP", 0.05)
    xl("exec sleep 60 <$3")
    feeder = Feeder("web1", 0.2)
    with pytest.raises(HypervisorError, match=r"read nothing for 0\.2 s"):
        feeder.write([bytes(8 << 20)])
    feeder.abort()


def test_an_xl_that_was_frozen_with_its_host_is_not_late(
    xl: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(feeder_module, "_LOOK", 0.05)
    until = "until [ -e %s ]; do sleep 0.02; done"
    awake = [tmp_path / "reads", tmp_path / "ends"]
    xl(f"{until % awake[0]}; cat >/dev/null <$3; {until % awake[1]}")
    feeder = Feeder("web1", 30.0)
    room = select.poll

    class Frozen:
        """Each first wait takes as long as the host was frozen, and nothing has come of it."""

        first = True

        @classmethod
        def missed(cls) -> bool:
            missed, cls.first = cls.first, False
            if missed:
                monkeypatch.setattr(time, "monotonic", lambda: 1e9)
                awake.pop(0).touch()
            return missed

        def __init__(self) -> None:
            self._poll = room()

        def register(self, *args: int) -> None:
            self._poll.register(*args)

        def poll(self, timeout: float) -> object:
            return [] if self.missed() else self._poll.poll(timeout)

    monkeypatch.setattr(select, "poll", Frozen)
    feeder.write([bytes(8 << 20)])
    assert not Frozen.first, "it never waited for room"
    Frozen.first = True
    feeder.finish(30.0)
    assert not Frozen.first, "it never waited for xl's end"
    monkeypatch.undo()
    feeder.abort()


def test_no_xl_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HypervisorError, match="cannot be run"):
        Feeder("web1", 1.0)


async def test_what_it_costs(xl: Script) -> None:
    """xl and what it starts, and the thread that feeds it; a copy that is gone has no memory."""
    xl("cat $3 >fed")
    ledger = Ledger()
    target = XenTarget(FakeXen().libs, "web1--incoming", ledger.open("web1", "copy"))
    await target.start(b"")
    await target.feed([pages(1, 2)])
    await target._run(burn, 0.1)
    open_ = await spent(ledger, "web1", "copy")
    assert open_.cpu_seconds >= 0.05
    assert open_.memory_bytes > 64 << 10
    await target.abort()
    gone = await spent(ledger, "web1", "copy")
    assert gone.cpu_seconds >= open_.cpu_seconds
    assert gone.memory_bytes == 0


async def test_zeros_in_short_are_fed_at_length(xl: Script) -> None:
    folder = xl("cat $3 >fed")
    short = b"".join(b"".join(parts) for parts in writer.page_xalloc(np.array([8, 9], np.uint64)))
    target = XenTarget(FakeXen().libs, "web1--incoming")
    await target.start(b"")
    await target.feed([pages(1, 2) + short, pages(3)])
    await target._run(target._open_feeder().finish, 30.0)
    fed = (folder / "fed").read_bytes()
    found = [parse_page_data(record.body, 0) for record in iter_records(fed)]
    assert [page.pfns.tolist() for page in found] == [[1, 2], [8, 9], [3]]
    assert not found[1].types.any()
    assert bytes(found[1].content) == bytes(8192)
    assert fed.startswith(pages(1, 2))
    assert fed.endswith(pages(3))
    await target.abort()


async def test_the_p2m_table_of_a_pv_guest_passes_as_it_is(xl: Script) -> None:
    """Read as PAGE_DATA it would name more pages than there are, some of them zero."""
    folder = xl("cat $3 >fed")
    table = samples.p2m_frames(2, 0x3FF, (0xE << 60 | 1, 0xE << 60 | 2))
    target = XenTarget(FakeXen().libs, "web1--incoming")
    await target.start(b"")
    await target.feed([table, pages(1)])
    await target._run(target._open_feeder().finish, 30.0)
    assert (folder / "fed").read_bytes() == table + pages(1)
    await target.abort()


@pytest.mark.parametrize("emulator", [[], [writer.emulator_context(b"QEVM")]])
async def test_a_copy_is_built_whole_and_then_runs_under_its_name(xl: Script, emulator: list[bytes]) -> None:
    folder = xl("cat $3 >fed")
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    xen.store[f"/local/domain/{DOMID}/vm"] = "/vm/u"
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.feed([pages(1)])
    assert not target.built
    await target.build([b"tail"], emulator)
    assert target.built
    assert xen.store[f"/local/domain/{DOMID}/name"] == "web1--incoming"
    assert xen.count("xc_domain_unpause") == 0
    assert not target.may_have_run
    await target.build([b"tail"], emulator)  # asked for once more: it stands
    await target.rename("web1")
    domain = await target.run()
    end = writer.end_of_libxc() + b"".join(emulator) + writer.end_of_libxl()
    assert (folder / "fed").read_bytes() == b"preamble" + pages(1) + b"tail" + end
    assert (domain.name, domain.domid, xen.store["/vm/u/name"]) == ("web1", DOMID, "web1")
    assert xen.count("xc_domain_unpause") == 1
    assert target.may_have_run
    await target.abort()
    assert (folder / "arguments").read_text().count("destroy") == 0


async def test_nothing_runs_that_was_not_built(xl: Script) -> None:
    xl("cat $3 >fed")
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    with pytest.raises(HypervisorError, match="was not built"):
        await target.rename("web1")
    assert xen.count("xc_domain_unpause") == 0
    await target.abort()


async def test_the_name_comes_before_the_first_moment(xl: Script) -> None:
    """Who finds it paused knows that it never ran, whatever it is called."""
    xl("cat $3 >fed")
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    names: list[str] = []

    def unpause(*_: object) -> int:
        names.append(xen.store[f"/local/domain/{DOMID}/name"])
        return 0

    xen.xc_domain_unpause = unpause  # type: ignore[attr-defined]
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.build([], [])
    await target.rename("web1")
    await target.run()
    assert names == ["web1"]


async def test_a_copy_that_was_built_and_is_not_wanted_is_destroyed(xl: Script) -> None:
    folder = xl('[ "$1" = destroy ] && exit 0; cat $3 >fed')
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.build([], [])
    await target.abort()
    assert (folder / "arguments").read_text().splitlines()[-1] == f"destroy {DOMID}"
    assert not target.may_have_run


async def test_a_name_in_use_is_not_taken(xl: Script) -> None:
    xl("cat $3 >fed")
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    xen.store["/local/domain/9/name"] = "web1"
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.build([b"tail"], [])
    with pytest.raises(HypervisorError, match="another domain is called web1"):
        await target.rename("web1")
    assert xen.count("xc_domain_unpause") == 0
    assert not target.may_have_run
    await target.abort()


async def test_an_aborted_copy_is_destroyed(xl: Script) -> None:
    folder = xl('[ "$1" = destroy ] && exit 0; cat $3 >fed; exit 1')
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.abort()
    await target.abort()
    assert (folder / "arguments").read_text().splitlines()[-1] == f"destroy {DOMID}"
    with pytest.raises(HypervisorError, match="closed"):
        await target.feed([])


async def test_what_comes_behind_an_abort_is_refused_in_words(xl: Script) -> None:
    """An operator discards a copy while its session goes on: pages wait in the target's thread behind the abort."""
    xl("cat $3 >/dev/null")
    target = XenTarget(FakeXen().libs, "web1--incoming")
    await target.start(b"preamble")
    aborting = asyncio.create_task(target.abort())
    fed = asyncio.create_task(target.feed([pages(1)]))
    with pytest.raises(HypervisorError, match="given up meanwhile"):
        await fed
    await aborting


async def test_an_activation_that_is_given_up_leaves_no_guest_running(xl: Script) -> None:
    folder = xl('[ "$1" = destroy ] && exit 0; cat $3 >fed')
    xen = FakeXen()
    xen.store[f"/local/domain/{DOMID}/name"] = "web1--incoming"
    reached, go_on = threading.Event(), threading.Event()

    def unpause(*_: object) -> int:
        reached.set()
        go_on.wait(10)
        return 0

    xen.xc_domain_unpause = unpause  # type: ignore[attr-defined]
    target = XenTarget(xen.libs, "web1--incoming")
    await target.start(b"preamble")
    await target.build([], [])
    await target.rename("web1")
    activation = asyncio.create_task(target.run())
    assert await asyncio.to_thread(reached.wait, 10)
    activation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await activation
    go_on.set()  # too late to stop it: the guest runs under its name, until abort finds it
    await target.abort()
    assert (folder / "arguments").read_text().splitlines()[-1] == f"destroy {DOMID}"


async def test_a_copy_that_hangs_at_the_end_is_given_up(xl: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "FINISH", 0.1)
    monkeypatch.setattr(feeder_module, "_STOP", 0.05)
    xl("cat $3 >fed; exec sleep 60")
    target = XenTarget(FakeXen().libs, "web1--incoming")
    await target.start(b"preamble")
    with pytest.raises(HypervisorError, match="did not finish the domain"):
        await target.build([], [])
    assert not target.built
    await target.abort()


async def test_the_configuration_comes_from_xl(xl: Script) -> None:
    entry = {"domid": DOMID, "config": {"c_info": {"name": "web1"}}}
    folder = xl(f"echo '{json.dumps([entry])}'")
    assert await toolstack.configuration("web1", DOMID) == entry["config"]
    assert (folder / "arguments").read_text() == f"list -l {DOMID}\n"
    with pytest.raises(HypervisorError, match="another domain"):
        await toolstack.configuration("web2", DOMID)


@pytest.mark.parametrize("output", ["", "[]", "{}", "nonsense"])
async def test_an_unexpected_configuration_is_refused(xl: Script, output: str) -> None:
    xl(f"echo '{output}'")
    with pytest.raises(HypervisorError, match="unexpected"):
        await toolstack.configuration("web1", DOMID)


async def test_an_xl_that_fails_or_hangs_is_reported(xl: Script) -> None:
    xl('[ "$1" = hang ] && exec sleep 60; echo broken >&2; exit 2')
    words: dict[str, Any] = {
        "operation": "destroy the domain",
        "domain": "web1",
        "left": "it is there",
        "hint": "do it by hand",
    }
    with pytest.raises(HypervisorError, match=r"xl destroy 3 failed: broken") as said:
        await toolstack.run("destroy", "3", **words)
    assert {key: getattr(said.value, key) for key in words} == words
    with pytest.raises(HypervisorError, match="took longer"):
        await toolstack.run("hang", seconds=0.1, operation="hang", domain="web1", left="nothing was changed")
