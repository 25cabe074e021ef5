"""What ipmi_sim asks of a host's chassis, in its own words (`chassis_control` in ipmi_lan(5)).

`get NAME...` is answered by a line `NAME:VALUE` each; `set NAME VALUE...` says nothing. ipmi_sim does nothing else meanwhile, and
a client asks again after a second or two: so every answer comes at once, and doing the same twice is no error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.errors import LabError

IGNORED = ("boot", "identify")
"""What a host of the lab has nothing for: it always boots from the same, and has no lamp."""


@dataclass(frozen=True, slots=True)
class Chassis:
    """Of one host. on: it begins to boot. off: its power is gone after return. powered: whether it has power."""

    name: str
    on: Callable[[], object]
    off: Callable[[], object]
    powered: Callable[[], bool]

    def answer(self, words: Sequence[str]) -> list[str]:
        """Lines for ipmi_sim's question or order. Raises LabError for what no lab host can do."""
        match words:
            case ["get", *names]:
                return [self._get(name) for name in names]
            case ["set", name, *values] if name in IGNORED and values:
                return []
            case ["set", "power", "0"]:
                self.off()
            case ["set", "power", "1"]:
                self.on()
            case ["set", "reset", _]:
                self.off()
                self.on()
            case ["set", "shutdown", _]:
                raise LabError(f"{self.name}: an orderly shutdown over IPMI is not emulated; switch it off")
            case _:
                raise LabError(f"{self.name}: its chassis does not know: {' '.join(words)}")
        return []

    def _get(self, name: str) -> str:
        if name == "power":
            return f"power:{int(self.powered())}"
        if name == "boot":
            return "boot:default"
        raise LabError(f"{self.name}: its chassis has no value {name}")
