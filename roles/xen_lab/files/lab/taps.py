"""Tap devices inside the lab's network namespace.

A tap is created there by a thread that enters the namespace for a moment; its file descriptor is handed to
QEMU, which itself stays outside. The tap disappears with the last descriptor, so a killed host unplugs its
cables.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def namespace_path(namespace: str) -> Path:
    """Where iproute2 keeps the named NAMESPACE."""
    return Path("/run/netns") / namespace


def in_namespace(namespace: str, work: Callable[[], T]) -> T:
    """Result of WORK, called in a thread of its own that has entered NAMESPACE and ends there."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter_and_work() -> T:
        fd = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(fd, CLONE_NEWNET) != 0:
                said = os.strerror(ctypes.get_errno())
                raise LabError(f"cannot enter network namespace {namespace}: {said}; run as root")
        finally:
            os.close(fd)
        return work()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(enter_and_work).result()


def create_tap(namespace: str, name: str) -> int:
    """Descriptor of a new tap NAME inside NAMESPACE."""

    def create() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
            fcntl.ioctl(fd, TUNSETIFF, request)
        except OSError as error:
            os.close(fd)
            raise LabError(f"cannot create tap {name} in {namespace}: {error.strerror}") from error
        return fd

    return in_namespace(namespace, create)
