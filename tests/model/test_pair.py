"""The whole path on virtual time: two agents, their services and machines, with simulated Xen, plugs, disks and link."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from remus_agent.errors import (
    JournalError,
    OutputBufferError,
    PeerRefused,
    RefusedError,
)
from remus_agent.ports import GuestType
from remus_agent.protocol.replication.frames import Frame, FrameType
from tests.model.hanging import hang_commits
from tests.model.loop import run
from tests.model.pair import DEAD, UUID, Pair, committed, on, quiet, until


def test_a_guest_survives_the_death_of_its_host() -> None:
    async def story() -> None:
        pair = Pair()
        status = await pair.protect()
        assert (status.role, status.state) == ("primary", "protected")
        pair.guest.write(3, b"told to a client")
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "the reply leaves the host")
        await pair.orphan()
        status = await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert (status.role, status.state, status.generation) == ("primary", "active", 2)
        assert list(pair.beta.xen.guests) == ["web1"]
        assert pair.beta.xen.guests["web1"].read(3, 16) == b"told to a client"
        await until(lambda: pair.beta.announcer.announced == ["web1"], "announced")
        assert pair.beta.events.noted[-1] == ("web1", "announced")
        again = await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        assert again.generation == 2

    run(story())


@pytest.mark.parametrize("kind", [GuestType.PV, GuestType.HVM])
def test_guests_of_other_types_survive_as_well(kind: GuestType) -> None:
    async def story() -> None:
        pair = Pair()
        pair.alpha.xen.guests.clear()
        pair.guest = pair.alpha.xen.create("web1", UUID, guest_type=kind)
        await pair.protect()
        pair.guest.write(3, b"told to a client")
        pair.output.emit("reply")
        await until(lambda: "reply" in pair.output.out, "the reply leaves the host")
        await pair.orphan()
        await on(pair.beta).failover("web1", generation=None, session=None, fenced=DEAD)
        survivor = pair.beta.xen.guests["web1"]
        assert (survivor.domain.guest_type, survivor.read(3, 16)) == (kind, b"told to a client")
        assert bool(survivor.emulator) == (kind is GuestType.HVM)

    run(story())


def test_output_leaves_only_after_the_acknowledgement() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.network.cut()
        await asyncio.sleep(0.5)
        before = list(pair.output.out)
        for frame in ("ipv4", "arp"):
            pair.output.emit(frame)
        await asyncio.sleep(20)
        assert pair.output.out == before
        pair.network.heal()
        await until(lambda: pair.output.out[-2:] == ["ipv4", "arp"], "held frames leave after healing")
        assert (await on(pair.alpha).status("web1")).state == "protected"

    run(story())


def test_a_journal_that_hangs_is_named_on_both_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        hanging = hang_commits(monkeypatch)
        await until(lambda: ("web1", "copy-hangs") in pair.beta.events.noted, "said on the backup", 200)
        assert "does not answer" in str((await on(pair.beta).status("web1")).reason)
        primary = on(pair.alpha)._primaries["web1"]
        await until(lambda: "the session before does not end" in str(primary.reason), "said on the primary", 200)
        assert "taking in epoch" in str(primary.reason)
        await asyncio.sleep(300)
        assert pair.beta.events.noted.count(("web1", "copy-hangs")) == 1
        hanging.answers.set()
        await until(lambda: primary.state.value == "protected", "protected again", 200)
        assert (await on(pair.beta).status("web1")).reason is None

    run(story())


def test_a_longer_cut_leaves_the_guest_silent_until_a_full_resend() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        first = (await on(pair.alpha).status("web1")).session
        pair.network.cut()
        pair.output.emit("held")
        await asyncio.sleep(200)
        status = await on(pair.alpha).status("web1")
        assert status.state == "silent"
        assert "held" not in pair.output.out
        assert pair.guest.running
        assert not pair.guest.suspended
        pair.network.heal()
        await until(lambda: "held" in pair.output.out, "the held frame leaves after the new commit")
        status = await on(pair.alpha).status("web1")
        assert status.state == "protected"
        assert status.session != first
        await until(lambda: len(pair.beta.xen.guests) == 1, "the old copy is destroyed")

    run(story())


def test_an_hour_of_silence_leaves_a_handful_of_events() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        before = len(pair.alpha.events.details("web1"))
        pair.network.cut()
        await asyncio.sleep(3600)
        kinds = [kind for kind, _ in pair.alpha.events.details("web1")[before:]]
        assert kinds[0] == "silent"
        assert kinds[-1] == "silent", "the last event says where it stands"
        assert len(kinds) < 8
        pair.network.heal()
        await until(lambda: pair.alpha.events.details("web1")[-1][0] == "protected", "protected again")
        *_, (kind, detail), _ = pair.alpha.events.details("web1")
        assert kind == "reseeding"
        assert int(str(detail["attempts"])) > 3600 / (15 + 5)

    run(story())


def test_the_old_copy_stands_until_the_new_one_is_committed() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.guest.write(5, b"first")
        reached = committed(pair) + 2
        await until(lambda: committed(pair) >= reached, "committed")
        await pair.network.drop_all()

        def drop_during_seeding(frame: Frame, data: bytes) -> bytes:
            if frame.type is FrameType.STREAM:
                for connection in pair.network.connections:
                    connection.arrive(None)
            return data

        pair.network.mangler = drop_during_seeding
        await asyncio.sleep(30)
        await pair.kill_host()
        await asyncio.sleep(40)
        status = await on(pair.beta).failover("web1", generation=1, session=None, fenced=DEAD)
        assert status.state == "active"
        assert pair.beta.xen.guests["web1"].read(5, 5) == b"first"

    run(story())


def test_unprotect_frees_output_only_after_the_copy_is_gone() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.output.emit("last")
        status = await on(pair.alpha).unprotect("web1", force=False, timeout=100, progress=quiet)
        assert status.state == "unprotected"
        assert "last" in pair.output.out
        assert not pair.output.installed
        assert not pair.beta.xen.guests
        assert not pair.guest.in_log_dirty
        assert not pair.alpha.disk.guests

    run(story())


def test_a_guest_is_not_called_unprotected_before_its_output_is_free() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.output.emit("held")
        pair.output.stuck = True
        with pytest.raises(OutputBufferError, match=r"still held.*the plug is stuck"):
            await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        status = await on(pair.alpha).status("web1")
        assert (status.role, status.state) == ("primary", "stopping")
        assert "stuck" in (status.reason or "")
        assert "held" not in pair.output.out
        assert "web1" in pair.alpha.disk.guests, "an agent that starts anew must not forget what is held"
        pair.output.stuck = False
        status = await on(pair.alpha).unprotect("web1", force=False, timeout=30, progress=quiet)
        assert (status.role, status.state, status.reason) == ("none", "unprotected", None)
        assert "held" in pair.output.out
        assert not pair.alpha.disk.guests

    run(story())


def test_output_that_is_stuck_after_a_failed_attempt_is_freed_by_itself() -> None:
    async def story() -> None:
        pair = Pair()
        pair.alpha.outputs.of(pair.guest.domain, 1 << 20).stuck = True
        pair.beta.disk.full = True
        with pytest.raises(PeerRefused, match="no space left"):
            await pair.protect()
        assert (await on(pair.alpha).status("web1")).state == "stopping"
        pair.output.stuck = False
        await until(lambda: not pair.alpha.disk.guests, "given up")
        status = await on(pair.alpha).status("web1")
        assert (status.role, status.state) == ("none", "failed")
        assert "no space left" in (status.reason or "")

    run(story())


def test_unprotect_without_a_backup_needs_force() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.network.cut()
        pair.output.emit("held")
        await asyncio.sleep(200)
        with pytest.raises(RefusedError, match="nobody knows"):
            await on(pair.alpha).unprotect("web1", force=False, timeout=100, progress=quiet)
        assert "held" not in pair.output.out
        await on(pair.alpha).unprotect("web1", force=True, timeout=100, progress=quiet)
        assert "held" in pair.output.out

    run(story())


def test_a_restarted_agent_goes_on_by_itself_with_output_held() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.kill_agent(pair.alpha)
        pair.output.emit("while dead")
        await asyncio.sleep(1)
        assert "while dead" not in pair.output.out
        assert pair.guest.running
        assert not pair.guest.suspended
        await pair.boot(pair.alpha).resume()
        await until(lambda: "while dead" in pair.output.out, "released after the new commit")
        assert (await on(pair.alpha).status("web1")).state == "protected"

    run(story())


def test_a_restarted_agent_drops_what_is_held_of_a_guest_that_is_gone() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        other = pair.alpha.xen.create("web2", UUID.replace("0001", "0002"))
        await pair.alpha.outputs.of(other.domain, 1 << 20).install(closed=True)
        output = pair.output
        await pair.kill_agent(pair.alpha)
        output.emit("of the dead")
        await pair.alpha.xen.destroy("web1")
        await pair.boot(pair.alpha).resume()
        assert list(pair.alpha.outputs.by_name) == ["web2"]
        assert "of the dead" not in output.out
        assert ("?", "output-of-gone-guest-dropped") in pair.alpha.events.noted

    run(story())


def test_a_sweep_that_fails_keeps_no_agent_from_protecting() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        await pair.kill_agent(pair.alpha)
        pair.output.emit("while dead")
        pair.alpha.outputs.broken = True
        await pair.boot(pair.alpha).resume()
        assert ("?", "sweep-failed") in pair.alpha.events.noted
        await until(lambda: "while dead" in pair.output.out, "protected again")

    run(story())


def test_a_record_that_cannot_be_removed_keeps_no_other_guest_from_being_protected() -> None:
    """The file system of the records has become read-only."""

    async def story() -> None:
        pair = Pair()
        await pair.protect()
        record = pair.alpha.disk.guests["web1"]
        gone = replace(record, name="app1", uuid=UUID.replace("0001", "0002"))
        pair.alpha.disk.guests = {"app1": gone, "web1": record}
        await pair.kill_agent(pair.alpha)
        pair.output.emit("while dead")

        async def read_only(name: str) -> bool:
            raise JournalError("read-only file system", domain=name)

        pair.alpha.disk.remove = read_only  # type: ignore[method-assign]
        await pair.boot(pair.alpha).resume()
        await until(lambda: "while dead" in pair.output.out, "protected again")
        assert ("app1", "guest-gone") in pair.alpha.events.noted

    run(story())


def test_a_guest_that_powers_off_is_not_kept_for_failover() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.guest.ended = True
        await until(lambda: not pair.beta.xen.guests, "the copy is discarded")
        assert not pair.alpha.disk.guests

    run(story())


def test_a_damaged_epoch_is_never_acknowledged_or_applied() -> None:
    async def story() -> None:
        pair = Pair()
        await pair.protect()
        pair.guest.write(2, b"good")
        reached = committed(pair) + 2
        await until(lambda: committed(pair) >= reached, "committed")

        def damage(frame: Frame, data: bytes) -> bytes:
            if frame.type is FrameType.STREAM and frame.epoch > 1:
                return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
            return data

        pair.network.mangler = damage
        old = on(pair.beta).backup.copy_of("web1")
        assert old is not None
        await until(lambda: old.state.value != "ready", "the session is ended")
        pair.network.mangler = None
        assert "damaged" in (old.reason or "") or "stream" in (old.reason or "").lower()
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "protected", "protected again")

    run(story())


def test_a_full_disk_under_the_journal() -> None:
    async def story() -> None:
        pair = Pair()
        pair.beta.disk.full = True
        with pytest.raises(PeerRefused, match="no space left"):
            await pair.protect()
        assert not pair.beta.xen.guests
        pair.beta.disk.full = False
        await pair.protect()
        pair.beta.disk.full = True
        await until(lambda: on(pair.alpha)._primaries["web1"].state.value == "silent", "no commit without the journal")
        pair.output.emit("held")
        await asyncio.sleep(30)
        assert "held" not in pair.output.out
        pair.beta.disk.full = False
        await until(lambda: "held" in pair.output.out, "protected again")
        pair.alpha.disk.full = True

    run(story())
