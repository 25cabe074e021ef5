"""Serial console files of the hosts."""

from pathlib import Path

FATAL = (
    "Panic on CPU",
    "Kernel panic - not syncing",
    "Hardware Dom0 crashed",
    "Unable to mount root",
    "You are in emergency mode",
)
BOOTED = "Welcome to "
"""systemd begins with that. A host that was reset after a panic writes on where it was."""


def tail(path: Path, lines: int = 40) -> str:
    """Last LINES lines of the console in PATH, without control characters."""
    try:
        data = path.read_bytes()[-64 * 1024 :]
    except FileNotFoundError:
        return "(no console output)"
    text = data.decode(errors="replace").replace("\r", "")
    clean = "".join(char for char in text if char == "\n" or char.isprintable())
    return "\n".join(clean.splitlines()[-lines:]) or "(no console output)"


def fatal_line(path: Path) -> str | None:
    """First line that says that the last boot cannot succeed, or None."""
    try:
        text = path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    for line in text.rpartition(BOOTED)[2].splitlines():
        if any(word in line for word in FATAL):
            return line.strip()
    return None


def rotate(path: Path, keep: int = 5) -> None:
    """Move the console of the last boot aside; the newest KEEP are kept as ``console.log.1`` and so on."""
    if not path.exists():
        return
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    path.replace(path.with_name(f"{path.name}.1"))
