"""A hypervisor in memory with the functions of `adapters.xen.libs`: one guest that suspends when
asked."""

from __future__ import annotations

import ctypes as ct
import errno
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from remus_agent.adapters.xen import structs as s
from remus_agent.adapters.xen.libs import RELEASES, Libraries

DOMID = 7
NAME = "web1"
UUID = "26c00354-adb0-4149-b1a4-a8e563e721b5"
FRAMES = 0xFF000
LOW = 300
SPECIAL = (0xFEFFC, 0xFEFFD, 0xFEFFF)
XENHEAP = 40


class FakeXen:
    """State of the guest and of the calls made. `failing`: functions that fail with EIO."""

    def __init__(self) -> None:
        self.gfns = [*range(XENHEAP), *range(XENHEAP + 1, LOW), *SPECIAL]
        self.tot_pages = len(self.gfns)
        self.mapping = np.zeros((len(self.gfns), 4096), np.uint8)
        self.mapping[:, 0] = 1
        self.mapping[50:60] = 0
        self.dirty: set[int] = set()
        self.shutdown: int | None = None
        self.gone = False
        self.dying = False
        self.reacts = True
        self.accepts = True
        self.logdirty = False
        self.paused = False
        self.subscribed = 0
        self.callback_irq = 1
        self.capabilities = s.PHYSCAP_PV | s.PHYSCAP_SHADOW
        self.watchdogs: dict[int, int] = {}
        """Seconds of those that are armed, by their number."""
        self.calls: list[str] = []
        self.failing: set[str] = set()
        self.store: dict[str, str] = {
            f"/local/domain/{DOMID}/name": NAME,
            f"/local/domain/{DOMID}/control/feature-suspend": "1",
            f"/libxl/{DOMID}/type": "pvh",
        }
        self.policy_kind = 0
        self.asked = threading.Event()
        self._kept: list[Any] = []

    @property
    def libs(self) -> Libraries:
        names = [name for prototypes in RELEASES[4, 20].values() for name in prototypes]
        return Libraries((4, 20), {name: self._function(name) for name in names})

    def _function(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if name in self.failing:
                ct.set_errno(errno.EIO)
                return -1
            method = getattr(self, name, None)
            return method(*arguments) if method is not None else 1 if "open" in name else 0

        return call

    def count(self, name: str) -> int:
        return self.calls.count(name)

    def touch(self, *gfns: int) -> None:
        """The guest writes."""
        self.dirty.update(gfns)

    # libxenctrl

    def xc_domain_getinfolist(self, _: int, first: int, most: int, out: Any) -> int:
        if self.gone or first > DOMID:
            return 0
        info = out._obj if hasattr(out, "_obj") else out[0]
        info.domain, info.tot_pages = DOMID, self.tot_pages
        info.flags = (
            2 | self.dying | (8 if self.paused else 0) | (0 if self.shutdown is None else 4 | self.shutdown << 16)
        )
        info.handle[:] = bytes.fromhex(UUID.replace("-", ""))
        return 1

    def xc_watchdog(self, _: int, number: int, seconds: int) -> int:
        if number == 0:
            assert seconds, "the machine is reset at once"
            free = next((each for each in (1, 2) if each not in self.watchdogs), None)
            if free is None:
                ct.set_errno(errno.ENOSPC)
                return -1
            self.watchdogs[free] = seconds
            return free
        if number not in self.watchdogs:
            ct.set_errno(errno.EINVAL)
            return -1
        if seconds:
            self.watchdogs[number] = seconds
        else:
            del self.watchdogs[number]
        return 0

    def xc_domain_maximum_gpfn(self, _: int, domid: int, out: Any) -> int:
        out._obj.value = FRAMES - 1
        return 0

    def xc_get_pfn_type_batch(self, _: int, domid: int, count: int, address: int) -> int:
        assert count <= s.PFN_BATCH_MAX
        batch = np.frombuffer((ct.c_uint64 * count).from_address(address), np.uint64)
        batch[:] = np.where(np.isin(batch, self.gfns), 0, s.PFN_TYPE_XTAB)
        return 0

    def xc_shadow_control(self, _: int, domid: int, op: int, mb: Any, mode: int) -> int:
        if op == s.SHADOW_OP_ENABLE_LOGDIRTY and self.logdirty:
            ct.set_errno(errno.EINVAL)
            return -1
        self.logdirty = op == s.SHADOW_OP_ENABLE_LOGDIRTY
        return 0

    def xc__hypercall_buffer_alloc_pages(self, _: int, buffer: Any, pages: int) -> int:
        memory = (ct.c_uint8 * (pages * 4096))()
        self._kept.append(memory)
        buffer._obj.hbuf = ct.addressof(memory)
        return ct.addressof(memory)

    def xc_logdirty_control(self, _: int, domid: int, op: int, buffer: Any, frames: int, mode: int, stats: Any) -> int:
        if not self.logdirty:
            ct.set_errno(errno.EINVAL)
            return -1
        stats._obj.dirty_count = len(self.dirty)
        if op == s.SHADOW_OP_CLEAN:
            bits = np.zeros(-(-frames // 64) * 64, np.uint8)
            bits[list(self.dirty)] = 1
            packed = np.packbits(bits, bitorder="little")
            ct.memmove(buffer._obj.hbuf, packed.ctypes.data, packed.nbytes)
            self.dirty.clear()
        return frames

    def xc_domain_hvm_getcontext(self, _: int, domid: int, buffer: Any, size: int) -> int:
        if buffer is not None:
            ct.memmove(buffer, b"c" * 64, 64)
        return 64

    def xc_hvm_param_get(self, _: int, domid: int, index: int, out: Any) -> int:
        out._obj.value = index * 3 if index else self.callback_irq
        return 0

    def xc_domain_get_tsc_info(self, _: int, domid: int, mode: Any, ns: Any, khz: Any, inc: Any) -> int:
        mode._obj.value, ns._obj.value, khz._obj.value, inc._obj.value = 1, 22, 333, 4
        return 0

    def xc_domain_subscribe_for_suspend(self, _: int, domid: int, port: int) -> int:
        self.subscribed = port
        return 0

    def xc_evtchn_alloc_unbound(self, *_: int) -> int:
        ct.set_errno(errno.ENOSYS)
        return -1

    def xenevtchn_bind_interdomain(self, *_: int) -> int:
        return -1

    def xc_physinfo(self, _: int, out: Any) -> int:
        out._obj.free_pages = 1000
        out._obj.capabilities = self.capabilities
        return 0

    # libxenguest

    def xc_cpu_policy_get_size(self, _: int, leaves: Any, entries: Any) -> int:
        leaves._obj.value, entries._obj.value = 8, 4
        return 0

    def xc_cpu_policy_init(self) -> int:
        return 1

    def xc_cpu_policy_get_system(self, _: int, kind: int, policy: int) -> int:
        self.policy_kind = kind
        return 0

    def xc_cpu_policy_serialise(self, _: int, policy: int, leaves: Any, nr_leaves: Any, msrs: Any, nr_msrs: Any) -> int:
        nr_leaves._obj.value, nr_msrs._obj.value = 2, 1
        leaves[0].words[0] = self.policy_kind
        return 0

    def xc_domain_resume(self, _: int, domid: int, fast: int) -> int:
        assert fast == 1
        self.shutdown = None
        return 0

    # libxenforeignmemory

    def xenforeignmemory_map(self, _: int, domid: int, prot: int, count: int, gfns: int, errors: int) -> int | None:
        wanted = np.frombuffer((ct.c_uint64 * count).from_address(gfns), np.uint64)
        assert wanted.tolist() == self.gfns
        return self.mapping.ctypes.data

    # libxenstore

    def xs_read(self, _: int, transaction: int, path: bytes, length: Any) -> int:
        value = self.store.get(path.decode())
        if value is None:
            ct.set_errno(errno.ENOENT)
            return 0
        length._obj.value = len(value)
        return _malloced(value.encode())

    def xs_directory(self, _: int, transaction: int, path: bytes, count: Any) -> Any:
        prefix = f"{path.decode()}/"
        names = sorted({key.removeprefix(prefix).split("/")[0] for key in self.store if key.startswith(prefix)})
        if not names:
            ct.set_errno(errno.ENOENT)
            return None
        count._obj.value = len(names)
        texts = [name.encode() + b"\0" for name in names]
        start = _malloced(bytes(8 * len(names)) + b"".join(texts))
        at = start + 8 * len(names)
        table = (ct.c_uint64 * len(names)).from_address(start)
        for index, text in enumerate(texts):
            table[index] = at
            at += len(text)
        return ct.cast(start, ct.POINTER(ct.c_char_p))

    def xs_write(self, _: int, transaction: int, path: bytes, data: bytes, length: int) -> bool:
        self.store[path.decode()] = data.decode()
        if path.endswith(b"control/shutdown") and data == b"suspend":
            self.asked.set()
            if self.accepts:
                self.store[path.decode()] = ""
            if self.reacts:
                self.shutdown = s.Shutdown.SUSPEND
        return True

    def xs_transaction_start(self, *_: int) -> int:
        return 5

    def xs_transaction_end(self, *_: int) -> bool:
        return True

    def xs_resume_domain(self, *_: int) -> bool:
        return True


class Hanging(FakeXen):
    """hangs: functions that do not come back until `answers` is set. held: one has been called."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: set[str] = set()
        self.held, self.answers = threading.Event(), threading.Event()

    def _function(self, name: str) -> Callable[..., Any]:
        call = super()._function(name)

        def late(*arguments: Any) -> Any:
            if name in self.hangs:
                self.held.set()
                self.answers.wait()
            return call(*arguments)

        return late


_libc = ct.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = ct.c_void_p, (ct.c_size_t,)


def _malloced(data: bytes) -> int:
    address = _libc.malloc(max(len(data), 1))
    ct.memmove(address, data, len(data))
    return int(address)
