"""A stream that stock `xl remus` could have written, relayed to the real backup service, on virtual time."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from streams import builder, samples
from streams.builder import Epoch

from remus_agent.errors import (
    AlreadyProtected,
    ConnectionLost,
    PeerRefused,
    PeerTimeout,
    RefusedError,
    RemusError,
    StreamError,
)
from remus_agent.machines.backup import State
from remus_agent.protocol.replication.frames import FrameType
from remus_agent.protocol.stream import records, writer
from remus_agent.protocol.stream_tools.walk import CutInsideEpoch
from remus_agent.services.relay import RENEW, RESERVE, End
from tests.model.loop import run
from tests.model.pair import Pair, on, quiet, until
from tests.model.relay_scene import CONFIG, EPOCHS, FRONT, STREAM, Scene, ends


@pytest.mark.parametrize("step", [100, 5000, 1 << 20])
def test_every_epoch_is_acknowledged_and_the_last_one_is_activated(step: int) -> None:
    async def story() -> None:
        scene = Scene(*(STREAM[start : start + step] for start in range(0, len(STREAM), step)))
        await scene.relay.run()
        report = scene.relay.report
        assert (report.ended, report.epochs, report.pages) == (End.BETWEEN_EPOCHS, 4, 19)
        assert (report.domain, report.session, report.bytes) == ("web1", scene.copy.hello.session, len(STREAM))
        assert FrameType.STOP not in {frame.type for frame in scene.sent}
        assert (scene.copy.hello.host, scene.copy.hello.memory_kib) == ("alpha", 64)
        guest = await scene.activate()
        assert [guest.read(pfn, 1)[0] for pfn in (0, 3, 5)] == [1, 4, 4]

    run(story())


def test_nothing_is_read_while_an_acknowledgement_is_outstanding() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[0]], closed=False)
        running = asyncio.create_task(scene.relay.run())
        await until(lambda: scene.relay.report.epochs == 1, "epoch 1 is acknowledged")
        await until(lambda: scene.pipe.reads == 2, "more is wanted")
        scene.pair.network.cut()
        scene.pipe.write(STREAM[ends()[0] : ends()[1]])
        scene.pipe.write(STREAM[ends()[1] : ends()[2]])
        await asyncio.sleep(15)
        assert scene.pipe.reads == 2, "the next epoch was read before the one before was acknowledged"
        assert scene.relay.report.epochs == 1
        scene.pair.network.heal()
        await until(lambda: scene.relay.report.epochs == 3, "all that was written is acknowledged")
        scene.pipe.close()
        await running

    run(story())


def test_a_writer_may_take_its_time_between_two_epochs() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[1]], closed=False)
        running = asyncio.create_task(scene.relay.run())
        await asyncio.sleep(1000)
        assert (scene.copy.state, scene.copy.committed_epoch) == (State.READY, 2)
        scene.pipe.write(STREAM[ends()[1] :])
        scene.pipe.close()
        await running
        assert scene.relay.report.epochs == 4

    run(story())


@pytest.mark.parametrize("cut", [ends()[0] + 1, ends()[1] - 1, ends()[1], ends()[1] + 300, ends()[2], ends()[3] - 9])
@pytest.mark.parametrize("tear", ["end", "garbage"])
def test_a_stream_that_breaks_off_leaves_the_last_complete_epoch(cut: int, tear: str) -> None:
    async def story() -> None:
        whole = sum(end <= cut for end in ends())
        scene = Scene(STREAM[:cut] + (b"\xee" * 5000 if tear == "garbage" else b""))
        if tear == "end" and cut in ends():
            await scene.relay.run()
        else:
            error = await scene.failed()
            assert isinstance(error, StreamError)
            assert isinstance(error, CutInsideEpoch) == (tear == "end")
            assert error.operation == "read standard input"
            assert error.left is not None
            assert error.left.startswith(f"the backup holds epoch {whole};")
            assert None not in (error.layer, error.record, error.expected, error.found)
        assert scene.relay.report.epochs == whole
        guest = await scene.activate()
        assert scene.copy.committed_epoch == whole
        assert guest.read(3, 1)[0] == (1 if whole == 1 else 2)

    run(story())


@pytest.mark.parametrize(
    ("stream", "kind", "left"),
    [
        (FRONT[:-4], CutInsideEpoch, "nothing was sent"),
        (STREAM[: ends()[0] - 1], CutInsideEpoch, "the backup holds no epoch"),
        (FRONT + b"\xee" * 64, StreamError, "nothing was sent|the backup holds no epoch"),
        (builder.plain(EPOCHS[:1], FRONT), RefusedError, "the backup holds no epoch"),
        (b"#!/bin/sh\n" + bytes(100), StreamError, "nothing was sent"),
    ],
)
def test_without_a_complete_epoch_the_backup_keeps_nothing(stream: bytes, kind: type[RemusError], left: str) -> None:
    async def story() -> None:
        scene = Scene(stream)
        error = await scene.failed()
        assert isinstance(error, kind)
        assert error.left in left.split("|")
        await until(lambda: not scene.pair.beta.xen.guests, "no copy is left")
        await asyncio.sleep(RESERVE)
        assert not on(scene.pair.alpha)._taken.is_reserved("web1")

    run(story())


def test_a_refusal_lists_every_reason() -> None:
    async def story() -> None:
        scene = Scene(STREAM, closed=False)
        scene.pair.beta.xen.host = type(scene.pair.beta.xen.host)("4.20", "0ther", 1024)
        error = await scene.failed()
        assert isinstance(error, PeerRefused)
        for reason in ("Xen 4.17", "different features", "free memory"):
            assert reason in error.message
        assert error.left == "nothing was sent"
        assert scene.relay.report.epochs == 0

    run(story())


def test_the_state_of_a_device_model_goes_along() -> None:
    async def story() -> None:
        config = CONFIG | {"c_info": CONFIG["c_info"] | {"type": "hvm"}}
        epochs = [Epoch(dict.fromkeys(range(16), 1), emulator=b"QEVM 1"), Epoch({3: 2}, emulator=b"QEVM 2")]
        scene = Scene(builder.checkpointed(epochs, builder.preamble(config)))
        await scene.relay.run()
        assert scene.relay.report.epochs == 2
        guest = await scene.activate()
        assert guest.read(3, 1) == b"\2"
        assert b"QEVM 2" in b"".join(map(bytes, guest.emulator))

    run(story())


def test_a_pv_guest_is_held_against_the_policy_of_pv_guests() -> None:
    async def story() -> None:
        config = CONFIG | {"c_info": CONFIG["c_info"] | {"type": "pv"}}
        front = writer.opening(json.dumps(config).encode()) + samples.libxc_headers(samples.PV, 3) + samples.pv_info()
        memory = samples.policies() + records.pack_record(0x10) + samples.p2m_frames() + samples.page_data([(0, 1)])
        epoch = samples.pv_state() + samples.CHECKPOINT + samples.CHECKPOINT_END
        scene = Scene(front + memory + epoch)
        for host in (scene.pair.alpha, scene.pair.beta):
            host.xen.host = replace(host.xen.host, pv_cpu_policy="pv")
        await scene.relay.run()
        assert scene.relay.report.epochs == 1
        assert (scene.copy.hello.guest_type, scene.copy.hello.cpu_policy) == ("pv", "pv")

    run(story())


def test_a_backup_that_is_not_there() -> None:
    async def story() -> None:
        scene = Scene(STREAM, closed=False)
        scene.pair.network.cut()
        assert isinstance(await scene.failed(), PeerTimeout)

    run(story())


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_acknowledgement_that_does_not_come(epoch: int) -> None:
    async def story() -> None:
        scene = Scene(STREAM, closed=False)
        scene.pair.network.mangler = lambda frame, data: (
            b"" if (frame.type, frame.epoch) == (FrameType.MEMORY_ACK, epoch) else data
        )
        error = await scene.failed()
        assert isinstance(error, PeerTimeout)
        assert f"no acknowledgement of epoch {epoch} within 60 s" in error.message
        held = "no epoch" if epoch == 1 else f"epoch {epoch - 1}"
        assert error.left is not None
        assert error.left.startswith(f"the backup holds {held}, or {epoch} if its acknowledgement was lost")

    run(story())


def test_an_acknowledgement_of_other_bytes_ends_the_session() -> None:
    async def story() -> None:
        scene = Scene(STREAM, closed=False)
        scene.damage(FrameType.MEMORY_ACK, 2)
        error = await scene.failed()
        assert isinstance(error, ConnectionLost)
        assert "acknowledged something that was not sent" in error.message
        assert scene.relay.report.epochs == 1

    run(story())


def test_an_epoch_that_is_damaged_on_its_way_is_refused_by_the_backup() -> None:
    async def story() -> None:
        scene = Scene(STREAM, closed=False)
        scene.damage(FrameType.STREAM, 2)
        assert isinstance(await scene.failed(), PeerRefused)
        await until(lambda: scene.copy.state is State.ORPHANED, "the copy stays")
        assert scene.copy.committed_epoch == 1

    run(story())


def test_the_death_of_the_backup_is_noticed_while_the_writer_is_silent() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[1]], closed=False)
        running = asyncio.create_task(scene.relay.run())
        await until(lambda: scene.relay.report.epochs == 2, "relayed")
        scene.pair.network.cut()
        with pytest.raises(PeerTimeout, match="heard nothing from the backup for 30 s"):
            await running

    run(story())


def test_a_relay_that_is_cancelled_sends_no_stop() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[1] + 100], closed=False)
        running = asyncio.create_task(scene.relay.run())
        await until(lambda: scene.relay.report.epochs == 2, "relayed")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert scene.relay.report.ended is End.BROKEN_OFF
        assert FrameType.STOP not in {frame.type for frame in scene.sent}
        guest = await scene.activate()
        assert guest.read(3, 1)[0] == 2

    run(story())


def test_a_domain_that_the_agent_protects_is_not_relayed() -> None:
    async def story() -> None:
        for domain in ("web1", None):
            scene = Scene(STREAM, domain=domain)
            scene.pair.beta.xen.host = scene.pair.alpha.xen.host
            await scene.pair.protect()
            sessions = len(scene.pair.network.connections)
            error = await scene.failed()
            assert isinstance(error, AlreadyProtected)
            assert (scene.ready, scene.pipe.reads > 0) == ((0, False) if domain else (1, True))
            assert len(scene.pair.network.connections) == sessions, "the backup was not asked"
            assert (await on(scene.pair.alpha).status("web1")).state == "protected"

    run(story())


def test_a_domain_that_is_relayed_is_not_protected() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[0]], closed=False, domain="web1")
        running = asyncio.create_task(scene.relay.run())
        await until(lambda: scene.relay.report.epochs == 1, "relayed")
        await asyncio.sleep(10 * RESERVE)
        alpha = on(scene.pair.alpha)
        with pytest.raises(RefusedError, match="a relay sends its checkpoints"):
            await scene.pair.protect()
        assert [one["code"] for one in (await alpha.probe("web1", "beta"))["reasons"]] == ["refused"]
        assert (await alpha.status("web1")).reason == "left to a relay of its checkpoints"
        scene.pipe.close()
        await running
        assert (await alpha.status("web1")).reason is None

    run(story())


def test_a_relay_that_was_killed_is_forgotten() -> None:
    async def story() -> None:
        pair = Pair()
        await on(pair.alpha).reserve("web1", RESERVE)
        await asyncio.sleep(RESERVE + 1)
        assert (await pair.protect()).state == "protected"

    run(story())


def test_an_agent_that_is_away_does_not_end_a_relay_but_one_that_protects_does() -> None:
    async def story() -> None:
        scene = Scene(STREAM[: ends()[0]], closed=False, domain="web1")
        scene.pair.alpha.xen.host = scene.pair.beta.xen.host
        running = asyncio.create_task(scene.relay.run())
        await until(lambda: scene.relay.report.epochs == 1, "relayed")
        scene.word.answers = False
        await asyncio.sleep(RESERVE + RENEW)
        assert not running.done()
        await on(scene.pair.alpha).protect(
            "web1", "beta", interval_ms=40, output_limit_bytes=1 << 20, wait=False, timeout=1, progress=quiet
        )
        scene.word.answers = True
        with pytest.raises((AlreadyProtected, ConnectionLost)):
            await running

    run(story())


def test_a_host_that_holds_the_copy_does_not_relay() -> None:
    async def story() -> None:
        scene = Scene(STREAM)
        await scene.relay.run()
        with pytest.raises(RefusedError, match="this host holds a copy"):
            await on(scene.pair.beta).reserve("web1", RESERVE)

    run(story())


def test_the_stream_of_another_domain() -> None:
    async def story() -> None:
        scene = Scene(STREAM, domain="web2")
        assert "the stream is of web1, not of web2" in (await scene.failed()).message
        assert not scene.pair.network.connections
        assert not on(scene.pair.alpha)._taken.is_reserved("web2")

    run(story())


def test_a_guest_with_a_disk() -> None:
    async def story() -> None:
        front = builder.preamble(CONFIG | {"disks": [{"vdev": "xvda"}], "nics": [{"mac": "00:16:3e:00:00:01"}]})
        scene = Scene(builder.checkpointed(EPOCHS, front))
        assert "devices that cannot be replicated (disks)" in (await scene.failed()).message
        assert not scene.pair.network.connections

    run(story())


def test_a_stream_that_ends_by_itself() -> None:
    async def story() -> None:
        scene = Scene(STREAM + builder.end(Epoch({3: 7})))
        await scene.relay.run()
        assert (scene.relay.report.ended, scene.relay.report.epochs) == (End.WHOLE, 5)
        assert (await scene.activate()).read(3, 1)[0] == 7

    run(story())


def test_an_end_of_libxl_alone_is_refused() -> None:
    async def story() -> None:
        scene = Scene(STREAM + writer.end_of_libxl())
        assert isinstance(await scene.failed(), StreamError)

    run(story())
