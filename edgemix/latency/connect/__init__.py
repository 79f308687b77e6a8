"""Connectors to devices, one file each, chosen by a text like ``ssh:pi@raspberrypi.local``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgemix.errors import InputError, did_you_mean
from edgemix.latency.connect.adb import Adb
from edgemix.latency.connect.base import Connector, Options
from edgemix.latency.connect.host import Host
from edgemix.latency.connect.macos import Macos
from edgemix.latency.connect.ssh import Ssh

Make = Callable[[str, Options], Connector]
"""From the address, which may be empty, and the options."""

CONNECTORS: dict[str, Make] = {
    "host": Host.at,
    "ssh": Ssh.at,
    "adb": Adb.at,
    "macos": Macos.at,
}


def parse(
    text: str, options: Options | None = None, connectors: Mapping[str, Make] = CONNECTORS
) -> Connector:
    """The connector that ``KIND[:ADDRESS]`` names; nothing is reached yet.

    Raises:
        InputError: there is no such kind, or the address has another form.
    """
    kind, _, address = text.partition(":")
    if kind not in connectors:
        near = did_you_mean(kind, connectors)
        raise InputError(
            f"there is no way to reach a device called {kind}",
            do=f"{near}one of {', '.join(connectors)}, with an address like ssh:pi@board.local",
        )
    return connectors[kind](address, options or Options())
