"""``macos[:USER@HOST[:PORT]]``: Core ML on this Mac, or on another one over ssh.

Untested on a real Mac: checked against written transcripts and a stand-in of coremltools. Times on
all compute units come first, then each choice of units; every one says where Core ML plans to run
the operations.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.connect.base import Connector, Job, Options, Progress
from edgemix.latency.connect.host import Host
from edgemix.latency.connect.ssh import Ssh


@dataclass(frozen=True)
class Macos:
    """A Mac with coremltools."""

    there: Connector

    @classmethod
    def at(cls, address: str, options: Options) -> Macos:
        """This machine, or the one at a ``USER@HOST[:PORT]``.

        Raises:
            InputError: this machine is no Mac and no other is named.
        """
        if address:
            return cls(Ssh.at(address, options))
        if sys.platform != "darwin":
            raise InputError("this machine is no Mac", do="name one, like macos:me@mac.local")
        return cls(Host())

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """See :class:`edgemix.latency.connect.base.Connector`."""
        if job.model.suffix != ".mlpackage":
            raise InputError(
                f"Core ML does not run {job.model.name}", do="give an .mlpackage, or use ssh:"
            )
        return self.there.measure(job, progress)
