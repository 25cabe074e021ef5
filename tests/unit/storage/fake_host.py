"""A host with devices that are only names, for tests of the mapper devices in front of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from remus_agent.errors import DiskError

MIB = 1024 * 1024


class FakeHost:
    """devices: {path: (bytes, sector, number)}. mapped: what dmsetup knows, {name: {table, open, ...}}."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.run = folder / "run"
        self.devices: dict[Path, tuple[int, int, str]] = {}
        self._file = folder / "dmsetup.json"
        self._numbers = folder / "numbers.json"
        self.mapped = {}

    def add(self, path: str, size: int = 512 * MIB, block: int = 512) -> Path:
        """A device that is there from now on."""
        self.devices[Path(path)] = (size, block, f"252:{len(self.devices)}")
        self._numbers.write_text(json.dumps({str(path): facts[2] for path, facts in self.devices.items()}))
        return Path(path)

    @property
    def mapped(self) -> dict[str, Any]:
        return dict(json.loads(self._file.read_text())["devices"])

    @mapped.setter
    def mapped(self, devices: dict[str, Any]) -> None:
        self._file.write_text(json.dumps({"devices": devices, "calls": []}))

    def use(self, name: str, users: int = 1) -> None:
        """Somebody opens a mapper device."""
        devices = self.mapped
        devices[name]["open"] = users
        self.mapped = devices

    @property
    def changes(self) -> list[str]:
        """Calls of dmsetup that changed something."""
        return [call for call in json.loads(self._file.read_text())["calls"] if call.split()[0] not in READING]

    def geometry(self, device: Path, domain: str) -> tuple[int, int]:
        if device not in self.devices:
            raise DiskError(f"{device}: No such file or directory", domain=domain)
        return self.devices[device][:2]

    def number_of(self, device: Path) -> str | None:
        return self.devices[device][2] if device in self.devices else None


READING = {"ls", "table", "status", "info"}
