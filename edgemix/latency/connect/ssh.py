"""``ssh:USER@HOST[:PORT]``: a board that has Python, numpy and a runtime.

One connection: the board's side and the model arrive as a tar on standard input, lines of times
come back. The folder there removes itself when the shell ends, also when nobody listens any more.
"""

from __future__ import annotations

import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgemix.errors import InputError, ToolError
from edgemix.latency import board
from edgemix.latency.base import Latency
from edgemix.latency.connect.base import Job, Options, Progress
from edgemix.latency.connect.host import arguments
from edgemix.latency.connect.stream import Place, follow, tail

_ADDRESS = re.compile(
    r"(?P<user>[\w.][\w.+-]*@)?(?:\[(?P<ip>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>\w[\w.-]*))"
    r"(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)
_LOST = 255
_SIDE = "edgemix_board"
"""The package's name there: Python looks for it in the user's home first."""

# Above the user's own configuration: ssh takes the first value that it is given.
_SETTINGS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ConnectionAttempts=1",
    "ServerAliveInterval=5", "ServerAliveCountMax=3", "RequestTTY=no", "ClearAllForwardings=yes",
    "ForwardAgent=no", "ForwardX11=no", "PermitLocalCommand=no", "ControlMaster=no",
    "LogLevel=ERROR",
)  # fmt: skip

# A lost connection stops the measuring when it next writes; then the shell ends, and removes.
_THERE = """
umask 077
folder=$(mktemp -d "${{TMPDIR:-/tmp}}/edgemix.XXXXXXXX") || exit 73
trap 'rm -rf "$folder"' EXIT
trap 'exit 129' HUP INT TERM PIPE
tar -xf - -C "$folder" || exit 74
export PYTHONPATH="$folder" PYTHONDONTWRITEBYTECODE=1
# Runtimes leave files of their own in the temporary folder: they go with ours.
export TMPDIR="$folder"
{python} -m {side} {arguments} "$folder"/{model}
status=$?
exit $status
"""
_SHELL_SAYS = {
    73: "it cannot make a folder for temporary files",
    74: "the model could not be copied there: is its disk full?",
}


@dataclass(frozen=True)
class Ssh:
    """A board, reached by the system's ssh; its host key must be known."""

    host: str
    """``USER@HOST``, or a name of the user's configuration."""
    port: int | None
    options: Options

    @classmethod
    def at(cls, address: str, options: Options) -> Ssh:
        """Read ``USER@HOST[:PORT]``; an IPv6 address stands in brackets.

        Raises:
            InputError: it has another form.
        """
        match = _ADDRESS.fullmatch(address)
        port = None if match is None or match["port"] is None else int(match["port"])
        if match is None or (port is not None and not 0 < port < 65536):
            raise InputError(
                f"no address for ssh: {address or 'nothing'}", do="write ssh:USER@HOST[:PORT]"
            )
        return cls((match["user"] or "") + (match["ip"] or match["host"]), port, options)

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """See :class:`edgemix.latency.connect.base.Connector`."""
        place = Place(self.host, explain=self._explain, lost=_LOST)
        with _packed(job.model) as parcel:
            return follow(self._command(job), job, place, progress, parcel)

    def _command(self, job: Job) -> list[str]:
        ssh = shutil.which("ssh")
        if ssh is None:
            raise InputError("there is no ssh on this machine", do="apt-get install openssh-client")
        config = [] if self.options.ssh_config is None else ["-F", str(self.options.ssh_config)]
        settings = [part for setting in _SETTINGS for part in ("-o", setting)]
        port = [] if self.port is None else ["-p", str(self.port)]
        script = _THERE.format(
            python=shlex.quote(self.options.python),
            side=_SIDE,
            arguments=shlex.join(arguments(job)),
            model=shlex.quote(_name_there(job.model)),
        )
        # The user's shell there may be any: it only has to start sh.
        return [
            ssh,
            *config,
            *settings,
            *port,
            "--",
            self.host,
            f"exec sh -c {shlex.quote(script)}",
        ]

    def _explain(self, code: int, log: str) -> ToolError | None:
        if code == _LOST:
            return _refusal(self.host, self.port, log)
        if code in _SHELL_SAYS:
            return ToolError(f"{self.host}: {_SHELL_SAYS[code]}\n{tail(log)}".rstrip())
        if code in (126, 127):
            return ToolError(
                f"{self.host} has no Python called {self.options.python}\n{tail(log)}".rstrip(),
                do="name the one that has the runtime with --python, like venv/bin/python",
            )
        if code > 128:
            return ToolError(
                f"the runtime on {self.host} crashed (signal {code - 128})\n{tail(log)}".rstrip()
            )
        return None


def _refusal(host: str, port: int | None, log: str) -> ToolError:
    """Why there is no connection."""
    at = "" if port is None else f" -p {port}"
    bare = host.rpartition("@")[2]
    known = bare if port is None else f"[{bare}]:{port}"
    reasons = (
        (
            "HOST IDENTIFICATION HAS CHANGED",
            f"the host key of {host} is not the one that it had: another machine, or an attack",
            f"if the machine was set up anew: ssh-keygen -R {shlex.quote(known)}, then ssh{at} "
            f"{host} once, comparing the fingerprint",
        ),
        (
            "Host key verification failed",
            f"the host key of {host} is unknown",
            f"ssh{at} {host} once, comparing the fingerprint that it shows with the board's",
        ),
        (
            "Permission denied",
            f"{host} does not let this user in without a password",
            f"ssh-copy-id{at} {host}",
        ),
        ("Connection refused", f"{host} refuses the connection", "start its ssh server"),
        ("Could not resolve", f"there is no host called {bare}", "check the name, or give its IP"),
    )
    for sign, what, remedy in reasons:
        if sign in log:
            return ToolError(what, do=remedy)
    return ToolError(
        f"{host} cannot be reached\n{tail(log)}".rstrip(), do=f"try ssh{at} {host} by hand"
    )


@contextmanager
def _packed(model: Path) -> Iterator[IO[bytes]]:
    """The board's side and the model as a tar, read from its start."""
    with tempfile.TemporaryFile() as parcel:
        with tarfile.open(fileobj=parcel, mode="w", dereference=True) as tar:
            for source in sorted(Path(board.__file__).parent.glob("*.py")):
                tar.add(source, f"{_SIDE}/{source.name}", filter=_anonymous)
            tar.add(model, _name_there(model), filter=_anonymous)
        parcel.seek(0)
        yield parcel


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owners: a tar that root unpacks would give the files to strangers."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _name_there(model: Path) -> str:
    """The local name never goes over: it may hold anything."""
    return f"model{model.suffix.lower()}"
