"""What happened, from both hosts, for a person to read afterwards. Never raises for a host that is off."""

from __future__ import annotations

from pathlib import Path

from pair.hosts import HOSTS, CommandFailed, lab_status, on, powered

COMMANDS = {
    "journal.txt": "journalctl --no-pager -o short-precise -u remus-agent -u remus-supervisor -n 20000",
    "kernel.txt": "dmesg --time-format=iso",
    "xen.txt": "xl dmesg",
    "domains.txt": "xl list -v; xl info",
    "guests.txt": 'for f in /var/lib/remus/guests/*.json; do echo "== $f"; cat "$f"; done',
    "events.jsonl": "cat /var/lib/remus/events.jsonl",
    "network.txt": "ip -d link; tc -s qdisc; ss -tanp",
    "toolstack.txt": "tail -n 200 /var/log/xen/*.log",
    "guest-consoles.txt": "tail -n 200 /var/log/xen/console/*.log",
}


def collect(folder: Path) -> list[Path]:
    """Write a file for each command and host below FOLDER; those that were written."""
    written = []
    consoles = {name: facts["console"] for name, facts in lab_status()["hosts"].items()}
    for host in HOSTS:
        where = folder / host
        where.mkdir(parents=True, exist_ok=True)
        texts: dict[str, str] = {}
        console = Path(consoles[host])
        if console.exists():
            texts["console.txt"] = console.read_text(errors="replace")
        for name, command in COMMANDS.items() if powered(host) else ():
            try:
                texts[name] = on(host, command, timeout=120)
            except CommandFailed as error:
                texts[name] = f"{error}\n"
        for name, text in texts.items():
            (where / name).write_text(text)
            written.append(where / name)
    return written
