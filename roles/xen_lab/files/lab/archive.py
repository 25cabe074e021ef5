"""The build machine's own Debian sources, rewritten for another release.

The project names no mirror: an image gets its packages from wherever the machine that builds it gets its
own. Only sources of the machine's own release are taken (third-party ones have other suites or components).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lab.command import run
from lab.errors import LabError

COMPONENT = "main"
COPIED_SETTINGS = (
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Retries",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and one suite in it."""

    uri: str
    suite: str


def parse_deb822(text: str) -> list[Source]:
    """Binary package sources of a ``.sources`` file."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and key:
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        if COMPONENT in fields.get("components", "").split():
            uris, suites = fields.get("uris", "").split(), fields.get("suites", "").split()
            found += [Source(uri, suite) for uri in uris for suite in suites]
    return found


def parse_one_line(text: str) -> list[Source]:
    """Binary package sources of a ``.list`` file."""
    found = []
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", " ", line.partition("#")[0]).split()
        if len(words) > 3 and words[0] == "deb" and COMPONENT in words[3:]:
            found.append(Source(words[1], words[2]))
    return found


def for_release(sources: list[Source], own: str, wanted: str) -> list[Source]:
    """SOURCES of release OWN, rewritten for release WANTED, the main archive first."""
    matching = [source for source in sources if re.fullmatch(rf"{own}(-security|-updates)?", source.suite)]
    rewritten = [Source(s.uri.rstrip("/"), wanted + s.suite[len(own) :]) for s in matching]
    return sorted(dict.fromkeys(rewritten), key=lambda source: source.suite)


def machine_sources(wanted: str, etc: Path = Path("/etc")) -> list[Source]:
    """Sources for release WANTED from this machine's configuration."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', (etc / "os-release").read_text(), re.MULTILINE)
    own = match.group(1) if match else ""
    sources: list[Source] = []
    for path in [etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            sources += parse_deb822(path.read_text())
        elif path.suffix == ".list" and path.exists():
            sources += parse_one_line(path.read_text())
    found = for_release(sources, own, wanted)
    if not any(source.suite == wanted for source in found):
        raise LabError(
            f"no Debian archive of this machine's release ({own or 'unknown'}) in {etc}/apt/sources.list*; "
            "the lab's images are built from the sources of the machine that builds them"
        )
    return found


def sources_list(sources: list[Source]) -> str:
    """Text of a ``sources.list``."""
    return "".join(f"deb {source.uri} {source.suite} {COMPONENT}\n" for source in sources)


def machine_settings() -> str:
    """The settings for apt that this machine needs to reach its archive."""
    lines = run(["apt-config", "dump"]).splitlines()
    return "".join(f"{line}\n" for line in lines if line.split(" ", 1)[0] in COPIED_SETTINGS)
