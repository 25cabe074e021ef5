"""Real NBD clients are served: libnbd's (nbdinfo, nbdsh, nbdcopy) and QEMU's (qemu-io, qemu-img)."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import nbd_tools
import pytest
from nbd_server import TRIMMED, MemoryServer
from nbd_tools import run

from remus_agent.protocol.nbd.messages import Disconnect, Export, Flush, Read, Trim, Write, WriteZeroes

MIB = 1 << 20
SIZE = 80 * MIB
EXPORT = Export("xvda", SIZE, 512)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MemoryServer]:
    with MemoryServer(tmp_path, EXPORT) as running:
        yield running
        if not running.refused:
            return
    pytest.fail(f"the server gave up a client: {running.refused}")


def shell(server: MemoryServer, script: str, *, connect: bool = True) -> str:
    """Run a script in nbdsh, where `h` is a handle (connected unless told otherwise). refused(call, …) is the name of the errno
    with which a call fails; the client's own checks are off, so that it is the server that refuses."""
    before = f"""
        import os
        import nbd
        uri, socket, name = {server.uri!r}, {str(server.path)!r}, {EXPORT.name!r}
        def refused(call, *arguments, **named):
            try:
                call(*arguments, **named)
            except nbd.Error as error:
                return error.errno
            raise AssertionError(f"{{call.__name__}} was not refused")
        h.set_strict_mode(0)
    """
    connecting = "h.connect_uri(uri)\n" if connect else ""
    code = textwrap.dedent(before) + connecting + textwrap.dedent(script)
    said = run("nbdsh", "-c", code)
    server.settle()
    return said


def test_without_a_tool_a_test_fails_unless_it_is_left_out_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(nbd_tools.LEFT_OUT, raising=False)
    with pytest.raises(pytest.fail.Exception, match="`make setup` does that"):
        nbd_tools.find("nbd-tool-of-nowhere")
    monkeypatch.setenv(nbd_tools.LEFT_OUT, "1")
    with pytest.raises(pytest.skip.Exception, match="left out"):
        nbd_tools.find("nbd-tool-of-nowhere")


def test_nbdinfo_is_told_what_the_export_is(server: MemoryServer) -> None:
    about = json.loads(run("nbdinfo", "--no-content", "--json", server.uri))
    (export,) = about["exports"]
    assert (about["protocol"], about["TLS"], about["structured"]) == ("newstyle-fixed", False, False)
    assert export["export-name"] == "xvda"
    assert export["export-size"] == SIZE
    assert (export["block_size_minimum"], export["block_size_preferred"], export["block_size_maximum"]) == (
        512,
        4096,
        32 * MIB,
    )
    can = {key: value for key, value in export.items() if key.startswith(("can_", "is_"))}
    assert {key for key, value in can.items() if value} == {
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
    }
    assert not export["is_read_only"]
    assert run("nbdinfo", "--size", server.uri).strip() == str(SIZE)


@pytest.mark.parametrize(
    ("capability", "offered"),
    [
        *[(name, True) for name in ("connect", "read", "write", "flush", "fua", "trim", "zero")],
        *[(name, False) for name in ("cache", "df", "fast-zero", "multi-conn", "structured-reply")],
    ],
)
def test_nbdinfo_can(server: MemoryServer, capability: str, offered: bool) -> None:
    assert run("nbdinfo", "--can", capability, server.uri, code=0 if offered else 2) == ""


@pytest.mark.parametrize("kind", ["read-only", "rotational", "tls"])
def test_nbdinfo_is(server: MemoryServer, kind: str) -> None:
    run("nbdinfo", "--is", kind, server.uri, code=2)


def test_nbdinfo_lists_the_export(server: MemoryServer) -> None:
    about = json.loads(run("nbdinfo", "--no-content", "--list", "--json", f"nbd+unix://?socket={server.path}"))
    assert [export["export-name"] for export in about["exports"]] == ["xvda"]


def test_another_export_is_refused(server: MemoryServer) -> None:
    assert "xvdb" in run("nbdinfo", f"nbd+unix:///xvdb?socket={server.path}", code=1)
    assert run("nbdinfo", "--size", server.uri).strip() == str(SIZE)


def test_block_size_of_4096_is_told(tmp_path: Path) -> None:
    with MemoryServer(tmp_path, Export("xvda", SIZE, 4096)) as server:
        (export,) = json.loads(run("nbdinfo", "--no-content", "--json", server.uri))["exports"]
        assert (export["block_size_minimum"], export["block_size_preferred"]) == (4096, 4096)
        shell(server, "assert refused(h.pread, 512, 0) == 'EINVAL'; assert len(h.pread(4096, 4096)) == 4096")


def test_what_libnbd_writes_is_read_back(server: MemoryServer) -> None:
    shell(
        server,
        """
        data = os.urandom(1 << 20)
        h.pwrite(data, 4096)
        assert h.pread(1 << 20, 4096) == data
        h.pwrite(data[:512], 0, nbd.CMD_FLAG_FUA)
        h.flush()
        h.trim(8192, 4096)
        h.trim(512, 1 << 20, nbd.CMD_FLAG_FUA)
        h.zero(4096, 16384)
        h.zero(512, 32768, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
        assert h.pread(4096, 16384) == bytes(4096)
        assert h.pread(512, 0) == data[:512]
        assert h.pread(512, 12288) == data[8192:8704]
        h.shutdown()
        """,
    )
    assert bytes(server.content[4096:12288]) == bytes([TRIMMED]) * 8192
    kinds = [type(request) for request in server.seen]
    assert kinds[-1] is Disconnect
    facts = [(type(r), r.offset, r.length, r.fua) for r in server.seen if isinstance(r, Write | Trim | WriteZeroes)]
    assert facts == [
        (Write, 4096, MIB, False),
        (Write, 0, 512, True),
        (Trim, 4096, 8192, False),
        (Trim, MIB, 512, True),
        (WriteZeroes, 16384, 4096, False),
        (WriteZeroes, 32768, 512, True),
    ]
    assert [r.no_hole for r in server.seen if isinstance(r, WriteZeroes)] == [False, True]
    assert kinds.count(Flush) == 1


def test_the_largest_requests_are_served(server: MemoryServer) -> None:
    shell(
        server,
        """
        data = os.urandom(1 << 20) * 32
        h.pwrite(data, 512)
        assert h.pread(len(data), 512) == data
        h.zero(h.get_size(), 0)
        h.trim(h.get_size(), 0)
        """,
    )
    assert max(r.length for r in server.seen if isinstance(r, Read | Write)) == 32 * MIB


def test_requests_that_break_the_rules_are_refused_and_the_client_goes_on(server: MemoryServer) -> None:
    shell(
        server,
        """
        end = h.get_size()
        assert refused(h.pread, 512, 1) == "EINVAL"
        assert refused(h.pread, 511, 0) == "EINVAL"
        assert refused(h.pwrite, bytes(512), 100) == "EINVAL"
        assert refused(h.pwrite, bytes(100), 0) == "EINVAL"
        assert refused(h.trim, 512, 1) == "EINVAL"
        assert refused(h.zero, 1, 512) == "EINVAL"
        assert refused(h.pread, 512, end) == "EINVAL"
        assert refused(h.pread, 1024, end - 512) == "EINVAL"
        assert refused(h.trim, 1024, end - 512) == "EINVAL"
        assert refused(h.pwrite, bytes(1024), end - 512) == "ENOSPC"
        assert refused(h.pwrite, bytes(1 << 20), end) == "ENOSPC"
        assert refused(h.zero, 1024, end - 512) == "ENOSPC"
        assert refused(h.pread, 33 << 20, 0) == "EINVAL"
        assert refused(h.pwrite, bytes(33 << 20), 0) == "EINVAL"
        assert refused(h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO) == "EINVAL"
        assert refused(h.cache, 512, 0) == "EINVAL"
        assert refused(h.pread, 512, 0, nbd.CMD_FLAG_DF) == "EINVAL"
        h.pwrite(b"x" * 512, 0)
        assert h.pread(512, 0) == b"x" * 512
        """,
    )
    assert [type(r) for r in server.seen if not isinstance(r, Disconnect)] == [Write, Read]


def test_an_error_of_the_disk_reaches_the_client(server: MemoryServer) -> None:
    server.bad = MIB
    shell(
        server,
        """
        assert refused(h.pread, 512, 1 << 20) == "EIO"
        assert refused(h.pwrite, bytes(512), 1 << 20) == "EIO"
        assert h.pread(512, 0) == bytes(512)
        """,
    )


def test_many_requests_are_under_way_at_once(server: MemoryServer) -> None:
    shell(
        server,
        """
        want = [os.urandom(512 * (1 + n % 40)) for n in range(400)]
        cookies = []
        for n, data in enumerate(want):
            cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), n * 65536))
        while h.aio_in_flight():
            h.poll(-1)
        assert all(h.aio_command_completed(cookie) for cookie in cookies)
        for n, data in enumerate(want):
            assert h.pread(len(data), n * 65536) == data
        """,
    )


def test_options_one_by_one(server: MemoryServer) -> None:
    shell(
        server,
        """
        h.set_opt_mode(True)
        h.set_export_name(name)
        h.connect_unix(socket)
        found = []
        assert h.opt_list(lambda name, description: found.append((name, description)) or 0) == 1
        assert found == [(name, "")]
        h.set_export_name("other")
        assert refused(h.opt_info) == "ENOENT"
        assert refused(h.opt_go) == "ENOENT"
        h.set_export_name("n" * 4096)
        assert refused(h.opt_info) == "ENOENT"
        h.set_export_name(name)
        h.opt_info()
        assert h.get_size() == 80 << 20
        assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
        assert not h.get_structured_replies_negotiated()
        h.opt_go()
        assert h.pread(512, 0) == bytes(512)
        """,
        connect=False,
    )


def test_abort_of_the_handshake(server: MemoryServer) -> None:
    """The client may be gone before it is answered, as libnbd's often is."""
    shell(server, "h.set_opt_mode(True); h.connect_uri(uri); h.opt_abort()", connect=False)
    assert server.seen in ([], [Disconnect()])
    assert run("nbdinfo", "--size", server.uri).strip() == str(SIZE)


@pytest.mark.parametrize("handshake_flags", ["0", "nbd.HANDSHAKE_FLAG_NO_ZEROES"])
def test_export_name_of_old_clients(server: MemoryServer, handshake_flags: str) -> None:
    """A client without FIXED_NEWSTYLE sends EXPORT_NAME, with and without the reserved bytes in the answer."""
    shell(
        server,
        f"""
        h.set_handshake_flags({handshake_flags})
        h.connect_uri(uri)
        assert h.get_protocol() == "newstyle"
        assert h.get_size() == 80 << 20
        h.pwrite(b"y" * 512, 512)
        assert h.pread(512, 512) == b"y" * 512
        """,
        connect=False,
    )


def test_export_name_of_another_disk_ends_the_connection(tmp_path: Path) -> None:
    with MemoryServer(tmp_path, EXPORT) as server:
        shell(
            server,
            """
            h.set_handshake_flags(0)
            h.set_export_name("other")
            refused(h.connect_unix, socket)
            """,
            connect=False,
        )
    (error,) = server.refused
    assert (error.expected, error.found) == ("'xvda'", "'other'")


def test_a_client_that_may_use_tls_goes_on_without(server: MemoryServer) -> None:
    out = shell(
        server,
        """
        if h.supports_tls():
            h.set_tls(nbd.TLS_ALLOW)
            h.connect_uri(uri)
            assert not h.get_tls_negotiated()
            print("asked")
        """,
        connect=False,
    )
    assert out.strip() == "asked"


def test_nbdcopy_copies_both_ways(server: MemoryServer, tmp_path: Path) -> None:
    data = os.urandom(5 * MIB) + bytes(10 * MIB) + os.urandom(SIZE - 15 * MIB)
    (tmp_path / "in").write_bytes(data)
    run("nbdcopy", "--flush", str(tmp_path / "in"), server.uri)
    assert bytes(server.content) == data
    run("nbdcopy", server.uri, str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data


def qemu_io(server: MemoryServer, *commands: str, code: int = 0) -> str:
    chosen = [part for command in commands for part in ("-c", command)]
    said = run("qemu-io", "-f", "raw", "-t", "none", *chosen, server.uri, code=code)
    server.settle()
    return said


def test_what_qemu_io_writes_is_read_back(server: MemoryServer) -> None:
    out = qemu_io(
        server,
        "write -P 0x5a 0 1M",
        "write -f -P 0x5b 1M 64k",
        "write -z 4k 8k",
        "write -z -u 64k 64k",
        "discard 2M 1M",
        "flush",
        "read -P 0x5a 0 4k",
        "read -P 0 4k 8k",
        "read -P 0x5a 12k 52k",
        "read -P 0x5b 1M 64k",
        "length",
    )
    assert "Pattern verification failed" not in out
    assert "80 MiB" in out
    assert [w.fua for w in server.seen if isinstance(w, Write)] == [False, True]
    assert [z.no_hole for z in server.seen if isinstance(z, WriteZeroes)] == [True, False]
    assert [(t.offset, t.length) for t in server.seen if isinstance(t, Trim)] == [(2 * MIB, MIB)]
    assert any(isinstance(request, Flush) for request in server.seen)


def test_qemu_io_splits_what_is_larger_than_the_limit_and_aligns_the_rest(server: MemoryServer) -> None:
    """QEMU obeys the sizes it was told: 32 MiB at the most, sectors at the least."""
    out = qemu_io(server, "write -P 7 0 80M", "read -P 7 0 80M", "write -P 8 100 200", "read -P 8 100 200")
    assert "Pattern verification failed" not in out
    data = [request for request in server.seen if isinstance(request, Read | Write)]
    assert max(request.length for request in data) <= 32 * MIB
    assert server.content[99:301] == b"\7" + b"\10" * 200 + b"\7"


def test_qemu_io_outside_of_the_disk(server: MemoryServer) -> None:
    qemu_io(server, f"read {SIZE} 512", code=1)
    qemu_io(server, f"write {SIZE - 512} 1024", code=1)
    assert not [request for request in server.seen if isinstance(request, Write)]


def test_an_error_of_the_disk_reaches_qemu(server: MemoryServer) -> None:
    server.bad = MIB
    assert "Input/output error" in qemu_io(server, "read 1M 4k", code=1)


def test_qemu_img_knows_and_compares_the_disk(server: MemoryServer, tmp_path: Path) -> None:
    about = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", server.uri))
    assert about["virtual-size"] == SIZE
    image = tmp_path / "image"
    image.write_bytes(os.urandom(3 * MIB) + bytes(MIB) + os.urandom(SIZE - 4 * MIB))
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-t", "none", str(image), server.uri)
    assert bytes(server.content) == image.read_bytes()
    compare = ("qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), server.uri)
    assert "Images are identical" in run(*compare)
    server.content[SIZE - 1] ^= 1
    assert "Content mismatch" in run(*compare, code=1)


def test_clients_one_after_the_other(server: MemoryServer) -> None:
    qemu_io(server, "write -P 1 0 4k")
    shell(server, "assert h.pread(4096, 0) == b'\\1' * 4096; h.pwrite(b'\\2' * 4096, 0); h.shutdown()")
    shell(server, "h.aio_pwrite(nbd.Buffer(4096), 4096); os._exit(0)")
    qemu_io(server, "read -P 2 0 4k")
    assert run("nbdinfo", "--size", server.uri).strip() == str(SIZE)
    assert server.connections >= 5
