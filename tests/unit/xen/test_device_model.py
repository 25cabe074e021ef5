"""QMP with a device model that behaves, is deaf, refuses, or is not there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_qemu import FakeQemu

from remus_agent.adapters.xen import device_model
from remus_agent.adapters.xen.device_model import DeviceModel, socket_of
from remus_agent.errors import HypervisorError


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[FakeQemu]:
    with FakeQemu(socket_of(7, tmp_path)) as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Iterator[DeviceModel]:
    made = DeviceModel(7, "web1", tmp_path)
    yield made
    made.close()
    made.close()


def test_one_checkpoint(qemu: FakeQemu, model: DeviceModel) -> None:
    with model.line():
        model.prepare()
        model.stop()
        assert not qemu.running
        assert model.save() == qemu.state
        model.cont()
    assert qemu.running
    assert qemu.names == ["add-fd", "stop", "xen-save-devices-state", "cont"]
    assert dict(qemu.commands)["xen-save-devices-state"]["live"] is False


def test_a_smaller_state_leaves_nothing_of_the_one_before(qemu: FakeQemu, model: DeviceModel) -> None:
    for state in (b"long" * 100, b"short"):
        qemu.state = state
        with model.line():
            model.prepare()
            assert model.save() == state


def test_what_qemu_gets_is_write_only(qemu: FakeQemu, model: DeviceModel) -> None:
    with model.line():
        model.prepare()
        (fd,) = qemu._fds.values()
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY


def test_the_socket_is_free_between_checkpoints(qemu: FakeQemu, model: DeviceModel, tmp_path: Path) -> None:
    with model.line():
        model.dirty_log(on=True)
    other = DeviceModel(7, "web1", tmp_path)
    with other.line():
        other.cont()
    other.close()
    assert qemu.commands[0] == ("xen-set-global-dirty-log", {"enable": True})


def test_a_refusal_says_why(qemu: FakeQemu, model: DeviceModel) -> None:
    qemu.refuses.add("stop")
    with model.line(), pytest.raises(HypervisorError, match=r"stop: .*does not work today") as caught:
        model.stop()
    assert caught.value.domain == "web1"
    assert "qemu-dm" in (caught.value.hint or "")


def test_a_deaf_device_model_is_not_waited_for_long(
    qemu: FakeQemu, model: DeviceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_model, "PATIENCE", 0.2)
    qemu.deaf.add("stop")
    with model.line():
        with pytest.raises(HypervisorError, match=r"stop: no answer within 0\.2 s"):
            model.stop()
        model.cont()
    assert qemu.names[-1] == "cont"


def test_no_state_is_an_error(qemu: FakeQemu, model: DeviceModel) -> None:
    qemu.state = b""
    with model.line():
        model.prepare()
        with pytest.raises(HypervisorError, match="saved nothing"):
            model.save()


def test_no_device_model(model: DeviceModel) -> None:
    with pytest.raises(HypervisorError, match=r"qmp-libxl-7: No such file"), model.line():
        pytest.fail("it is held")
