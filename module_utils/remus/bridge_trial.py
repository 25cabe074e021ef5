# SPDX-FileCopyrightText: The Remus for Xen authors
# SPDX-License-Identifier: Apache-2.0
"""Moving a port's address to a bridge on trial: a unit of systemd does it, and undoes it when nobody has come back to keep it.

Until it is kept, /etc is as it was, so a host that crashes or is booted meanwhile has its old network. What the unit and those
who ask for it share is a folder below /run: `interfaces` (the bridge's stanzas alone), `tried` (a token, once the bridge is up),
`decided` (made by who is first: the one who keeps it, or the unit that undoes it), `kept` and `undone`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.remus import files

UNIT = "remus-bridge"
SCRIPT = """\
#!/bin/sh
# Move the address of {port} to {bridge}, and back where that is not kept within {seconds} seconds.
cd '{folder}' || exit 1
sleep {delay}  # whoever asked for this gets the answer first
[ {known} = 0 ] || ifdown --force '{port}'
if ifup --interfaces=interfaces '{bridge}'; then
    echo '{token}' >tried.new && mv tried.new tried
    waited=0
    while [ "$waited" -lt {seconds} ]; do
        [ ! -d decided ] || exit 0
        sleep 1
        waited=$((waited + 1))
    done
fi
mkdir decided || exit 0
echo '{bridge} was not kept: undoing it'
ifdown --force --interfaces=interfaces '{bridge}'
ip link delete dev '{bridge}' type bridge 2>/dev/null
ip link set dev '{port}' addrgenmode eui64
[ {known} = 0 ] || ifup --force '{port}'
touch undone
"""


class Trial:
    """The one that is going on, or the last one since the boot."""

    def __init__(self, folder):
        self.folder = Path(folder)

    @property
    def going_on(self):
        """Has one begun that is neither kept nor undone yet?"""
        ends = [self.folder / "kept", self.folder / "undone"]
        return (self.folder / "interfaces").exists() and not any(end.exists() for end in ends)

    @property
    def undone(self):
        """Was it given up?"""
        return (self.folder / "decided").exists() and not (self.folder / "kept").exists()

    @property
    def token(self):
        """What proves that its bridge was up when somebody asked, or None."""
        found = files.read(self.folder / "tried")
        return found.decode().strip() if found else None

    def prepare(self, bridge, port, stanzas, known, seconds, delay=3):
        """Write everything; the path of the script."""
        self.forget()
        self.folder.mkdir(mode=0o700)
        script = self.folder / "switch"
        script.write_text(
            SCRIPT.format(
                bridge=bridge,
                port=port,
                folder=self.folder,
                known=int(known),
                seconds=seconds,
                delay=delay,
                token=os.urandom(8).hex(),
            )
        )
        (self.folder / "interfaces").write_bytes(files.as_bytes(stanzas))
        return script

    def forget(self):
        """Of one that was prepared and never began, nothing stays."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, script):
        """Have systemd run it, so that it outlives the connection. Raises CalledProcessError."""
        command = ["systemd-run", f"--unit={UNIT}", "--collect", "--quiet", "/bin/sh", str(script)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def keep(self, token, path, content):
        """Write CONTENT to PATH and end the trial; False where it was undone, or is another one."""
        if token != self.token:
            return False
        new = files.beside(path, files.as_bytes(content), 0o644)  # what fails, fails before it is decided
        try:
            (self.folder / "decided").mkdir()
        except FileExistsError:
            new.unlink()
            return (self.folder / "kept").exists()
        new.replace(path)
        (self.folder / "kept").touch()
        return True
