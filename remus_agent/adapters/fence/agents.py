"""fence_ports.Fencing by the fence agents of the configuration.

The state is what counts, not a return code: after `off` the agent is asked for the status until it says off.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from remus_agent.adapters.fence import program
from remus_agent.adapters.process import tail
from remus_agent.errors import ConfigError, FenceUnconfirmed, FencingError
from remus_agent.fence_config import FenceAgent, read_secrets
from remus_agent.fence_ports import FenceCheck, Fenced, Power
from remus_agent.ports import Clock

log = logging.getLogger(__name__)

PAUSE: Final = 1.0
"""Seconds between two looks at the state of a host that was told to go off."""
_ON: Final = 0
_OFF: Final = 2
_PARAMETER: Final = re.compile(r"<parameter\b[^>]*\bname=[\"']([^\"']+)[\"']")
_MASK: Final = "***"


class FenceAgents:
    """All of a host's configuration, by the name of the host that is fenced."""

    def __init__(self, agents: Mapping[str, FenceAgent], clock: Clock, *, pause: float = PAUSE) -> None:
        self._agents = agents
        self._clock = clock
        self._pause = pause

    def covers(self, host: str) -> bool:
        return host in self._agents

    def required(self, host: str) -> bool:
        return host in self._agents and self._agents[host].required

    def longest(self, host: str) -> float:
        return self._agents[host].timeout if host in self._agents else 0.0

    async def fence(self, host: str) -> Fenced:
        agent = self._of(host, "fence")
        refused: FencingError | None = None
        log.warning("%s: told to go off, by %s", host, agent.agent.name)
        try:
            await self._succeed(host, "off")
        except FencingError as error:
            refused = error  # the host may be off all the same, and an agent may complain of a host that was off before
            log.warning("%s: %s", host, error)
        deadline = self._clock.now() + agent.timeout
        says = "on"
        while True:
            try:
                power = await self.status(host)
                if power is Power.OFF:
                    return Fenced(host, agent.agent.name, self._clock.time_of_day(), confirmed=True)
                says = power.value
            except FencingError as error:
                says = f"nothing ({error.message})"
            if refused is not None:
                raise refused
            if self._clock.now() + self._pause >= deadline:
                raise FenceUnconfirmed(
                    f"{host} was told to go off by {agent.agent.name}, whose status says {says}",
                    operation="fence",
                    left="the host may be on",
                    hint="look at the host itself; switch it off by hand if it is on",
                )
            await self._clock.sleep(self._pause)

    async def status(self, host: str) -> Power:
        ended, secrets = await self._run(host, "status")
        if ended.code == _ON:
            return Power.ON
        if ended.code == _OFF:
            return Power.OFF
        raise self._failed(host, "status", ended, secrets)

    async def check(self, host: str) -> FenceCheck:
        agent = self._of(host, "fence-check")
        await self._succeed(host, "monitor")
        power = await self.status(host)
        return FenceCheck(host, agent.agent.name, agent.required, power, await self._unknown(host, agent))

    async def _unknown(self, host: str, agent: FenceAgent) -> tuple[str, ...]:
        """Options that the agent does not list; none when it cannot say which ones it has."""
        try:
            listed = set(_PARAMETER.findall((await self._succeed(host, "metadata")).out))
        except FencingError as error:
            log.info("%s: its options cannot be compared: %s", host, error)
            return ()
        given = {*agent.options, *self._secrets(agent, "metadata")}
        return tuple(sorted(key for key in given if key not in listed)) if listed else ()

    async def _succeed(self, host: str, action: str) -> program.Ended:
        ended, secrets = await self._run(host, action)
        if ended.code != 0:
            raise self._failed(host, action, ended, secrets)
        return ended

    async def _run(self, host: str, action: str) -> tuple[program.Ended, Mapping[str, str]]:
        agent = self._of(host, action)
        secrets = self._secrets(agent, action)
        options = {"action": action, "nodename": host, **agent.options, **secrets}
        return await program.run(agent.agent, options, agent.timeout, f"{action} of {host}"), secrets

    def _secrets(self, agent: FenceAgent, action: str) -> Mapping[str, str]:
        """Read anew each time, so that a changed password needs no restart."""
        try:
            return read_secrets(agent.secrets)
        except ConfigError as error:
            raise FencingError(error.message, operation=action, hint=error.hint) from error

    def _of(self, host: str, operation: str) -> FenceAgent:
        try:
            return self._agents[host]
        except KeyError:
            raise FencingError(
                f"no fence agent is configured for {host}", operation=operation, hint=f"add [fencing.{host}]"
            ) from None

    def _failed(self, host: str, action: str, ended: program.Ended, secrets: Mapping[str, str]) -> FencingError:
        said = ended.complaint.strip() or ended.out
        for value in sorted(filter(None, secrets.values()), key=len, reverse=True):
            said = said.replace(value, _MASK)
        how = f"ended with {ended.code}" if ended.code >= 0 else f"was ended by signal {-ended.code}"
        return FencingError(
            f"{self._agents[host].agent.name} {how}: {tail(said.encode())}",
            operation=f"{action} of {host}",
            hint=f"try it: remusctl fence-check {host}",
        )
