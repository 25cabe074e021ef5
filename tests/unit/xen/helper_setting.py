"""A PV guest, its supervisor, and a save helper that does as it is told."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from fake_xen import DOMID, NAME, UUID, FakeXen
from source_runs import begin
from watcher import Watcher

from remus_agent.adapters.ledger import Entry
from remus_agent.adapters.xen.helper_source import HelperSource
from remus_agent.ports import Domain, GuestType

CONFIG = json.dumps({"c_info": {"type": "pv", "name": NAME}})
FAKE = Path(__file__).with_name("fake_save_helper.py")


class Setting:
    """A guest, a supervisor and a helper with a plan."""

    def __init__(self, folder: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
        self.xen = FakeXen()
        self.xen.logdirty = True  # what the helper has switched on
        self.watcher = watcher
        self.helper = folder / "libxl-save-helper"
        self.helper.write_text(f'#!/bin/sh\nexec {sys.executable} -I {FAKE} "$@"\n')
        self.helper.chmod(0o755)
        self.cleaned, self.started = folder / "cleaned", folder / "started"
        self._monkeypatch = monkeypatch
        self.plan()

    def plan(self, **plan: Any) -> None:
        plan |= {"cleaned": str(self.cleaned), "started": str(self.started)}
        self._monkeypatch.setenv("FAKE_HELPER", json.dumps(plan))

    def source(self, entry: Entry | None = None) -> HelperSource:
        domain = Domain(NAME, DOMID, UUID, GuestType.PV, 4 * self.xen.tot_pages, ())
        return HelperSource(self.xen.libs, domain, CONFIG, self.watcher.path, self.helper, entry)

    def begun(self, *, seeded: bool = True) -> AbstractAsyncContextManager[HelperSource]:
        return begin(self.source(), seeded=seeded)
