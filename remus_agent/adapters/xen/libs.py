"""Xen's user libraries through ctypes: names, versions and prototypes in one table. No numpy here.

libxenctrl and libxenguest carry the Xen version in their names and have no stable ABI; the others are
stable. A Xen version that is not in `RELEASES` is refused by name, because a wrong prototype is silent
damage. Prototypes as in tools/include/{xenctrl,xenguest,xenforeignmemory,xenevtchn,xenstore}.h."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remus_agent.adapters.xen.structs import (
    CpuidLeaf,
    DomainInfo,
    HypercallBuffer,
    MsrEntry,
    PhysInfo,
    ShadowOpStats,
)
from remus_agent.errors import HypervisorError, RefusedError

SYS_HYPERVISOR: Final = Path("/sys/hypervisor")

_p, _u32, _u64, _int, _uint, _ulong, _str = (
    ct.c_void_p, ct.c_uint32, ct.c_uint64, ct.c_int, ct.c_uint, ct.c_ulong, ct.c_char_p,
)  # fmt: skip
_pu32, _pu64 = ct.POINTER(_u32), ct.POINTER(_u64)

Prototypes = Mapping[str, tuple[Any, ...]]
"""Function name -> (result type, argument types...)."""

_CTRL: Final[Prototypes] = {
    "xc_interface_open": (_p, _p, _p, _uint),
    "xc_interface_close": (_int, _p),
    "xc_domain_getinfolist": (_int, _p, _u32, _uint, ct.POINTER(DomainInfo)),
    "xc_domain_unpause": (_int, _p, _u32),
    "xc_domain_maximum_gpfn": (_int, _p, _u32, _pu64),
    "xc_get_pfn_type_batch": (_int, _p, _u32, _uint, _p),
    "xc_shadow_control": (_int, _p, _u32, _uint, _p, _uint),
    "xc_logdirty_control": (
        ct.c_longlong, _p, _u32, _uint, ct.POINTER(HypercallBuffer), _ulong, _uint, ct.POINTER(ShadowOpStats),
    ),
    "xc__hypercall_buffer_alloc_pages": (_p, _p, ct.POINTER(HypercallBuffer), _int),
    "xc__hypercall_buffer_free_pages": (None, _p, ct.POINTER(HypercallBuffer), _int),
    "xc_domain_hvm_getcontext": (_int, _p, _u32, _p, _u32),
    "xc_domain_get_tsc_info": (_int, _p, _u32, _pu32, _pu64, _pu32, _pu32),
    "xc_hvm_param_get": (_int, _p, _u32, _u32, _pu64),
    "xc_physinfo": (_int, _p, ct.POINTER(PhysInfo)),
    "xc_evtchn_alloc_unbound": (_int, _p, _u32, _u32),
    "xc_domain_subscribe_for_suspend": (_int, _p, _u32, _u32),
    "xc_watchdog": (_int, _p, _u32, _u32),
}  # fmt: skip
_GUEST: Final[Prototypes] = {
    "xc_domain_resume": (_int, _p, _u32, _int),
    "xc_cpu_policy_init": (_p,),
    "xc_cpu_policy_destroy": (None, _p),
    "xc_cpu_policy_get_size": (_int, _p, _pu32, _pu32),
    "xc_cpu_policy_get_system": (_int, _p, _uint, _p),
    "xc_cpu_policy_get_domain": (_int, _p, _u32, _p),
    "xc_cpu_policy_serialise": (_int, _p, _p, ct.POINTER(CpuidLeaf), _pu32, ct.POINTER(MsrEntry), _pu32),
}
_FOREIGN: Final[Prototypes] = {
    "xenforeignmemory_open": (_p, _p, _uint),
    "xenforeignmemory_close": (_int, _p),
    "xenforeignmemory_map": (_p, _p, _u32, _int, ct.c_size_t, _p, _p),
    "xenforeignmemory_unmap": (_int, _p, _p, ct.c_size_t),
}
_EVTCHN: Final[Prototypes] = {
    "xenevtchn_open": (_p, _p, _uint),
    "xenevtchn_close": (_int, _p),
    "xenevtchn_fd": (_int, _p),
    "xenevtchn_bind_interdomain": (_int, _p, _u32, _u32),
    "xenevtchn_unbind": (_int, _p, _u32),
    "xenevtchn_pending": (_int, _p),
    "xenevtchn_unmask": (_int, _p, _u32),
}
_STORE: Final[Prototypes] = {
    "xs_open": (_p, _ulong),
    "xs_close": (None, _p),
    "xs_read": (_p, _p, _u32, _str, ct.POINTER(_uint)),
    "xs_write": (ct.c_bool, _p, _u32, _str, _p, _uint),
    "xs_rm": (ct.c_bool, _p, _u32, _str),
    "xs_directory": (ct.POINTER(_str), _p, _u32, _str, ct.POINTER(_uint)),
    "xs_transaction_start": (_u32, _p),
    "xs_transaction_end": (ct.c_bool, _p, _u32, ct.c_bool),
    "xs_resume_domain": (ct.c_bool, _p, _uint),
}


def _release(version: str) -> dict[str, Prototypes]:
    return {
        f"libxenctrl.so.{version}": _CTRL,
        f"libxenguest.so.{version}": _GUEST,
        "libxenforeignmemory.so.1": _FOREIGN,
        "libxenevtchn.so.1": _EVTCHN,
        "libxenstore.so.4": _STORE,
    }


RELEASES: Final[Mapping[tuple[int, int], Mapping[str, Prototypes]]] = {
    (4, 17): _release("4.17"),  # Debian 12
    (4, 20): _release("4.20"),  # Debian 13
}
"""Xen release -> library -> prototypes. Both releases need the same calls; a release that differs gets its
own entries."""


@dataclass(frozen=True)
class Libraries:
    """The loaded functions as attributes (`libs.xc_domain_resume`), with `version` (major, minor) of the
    running Xen."""

    version: tuple[int, int]
    functions: Mapping[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            function = self.functions[name]
        except KeyError:
            raise AttributeError(name) from None
        object.__setattr__(self, name, function)  # found directly from now on
        return function


def running_version(sysfs: Path = SYS_HYPERVISOR) -> tuple[int, int]:
    """(major, minor) of the Xen this dom0 runs on. Raises HypervisorError where there is none."""
    try:
        kind = (sysfs / "type").read_text().strip()
        if kind != "xen":
            raise RefusedError(f"this host runs on {kind}, not on Xen", operation="find Xen")
        return int((sysfs / "version/major").read_text()), int((sysfs / "version/minor").read_text())
    except (OSError, ValueError) as error:
        raise HypervisorError(
            f"cannot read Xen's version below {sysfs}: {error}",
            operation="find Xen",
            hint="boot this host with Xen; the agent runs in dom0 only",
        ) from error


def load(version: tuple[int, int] | None = None, only: frozenset[str] | None = None) -> Libraries:
    """Load the libraries that belong to the running Xen. only: these functions (and the libraries they
    need) suffice.

    Raises RefusedError for a Xen that is not in the table, HypervisorError when a library or a function is
    missing."""
    version = version or running_version()
    release = RELEASES.get(version)
    if release is None:
        known = ", ".join(f"{major}.{minor}" for major, minor in RELEASES)
        raise RefusedError(
            f"Xen {version[0]}.{version[1]} is not supported; {known} are",
            operation="load Xen's libraries",
            hint="use the agent of a release that names this Xen version, or boot one of these",
        )
    functions: dict[str, Callable[..., Any]] = {}
    for soname, prototypes in release.items():
        wanted = [name for name in prototypes if only is None or name in only]
        if wanted:
            functions.update(_bind(soname, {name: prototypes[name] for name in wanted}))
    return Libraries(version, functions)


def _bind(soname: str, prototypes: Prototypes) -> dict[str, Callable[..., Any]]:
    try:
        library = ct.CDLL(soname, use_errno=True)
        bound: dict[str, Callable[..., Any]] = {}
        for name, (result, *arguments) in prototypes.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, tuple(arguments)
            bound[name] = function
    except (OSError, AttributeError) as error:
        raise HypervisorError(
            f"{soname}: {error}",
            operation="load Xen's libraries",
            hint="install the xen-utils of the running Xen",
        ) from error
    return bound


def failed(call: str, domain: str | None = None, **facts: Any) -> HypervisorError:
    """The error for a library call that has just failed, with its errno spelled out."""
    code = ct.get_errno()
    reason = f"{os.strerror(code)} (errno {code})" if code else "no errno"
    return HypervisorError(f"{call} failed: {reason}", domain=domain, **facts)
