"""Devices: what is known of each, every figure with its source, and what runs on it.

A profile is a TOML file; a user's own is named by its path. It tells what the device is::

    title = "Raspberry Pi 4 B"
    kind = "board"
    chip = "BCM2711, 4 × Cortex-A72"

    [[figures]]
    what = "clock"
    value = 1.8
    unit = "GHz"
    source = "the data sheet"      # or "assumed"

and by which fitted costs latencies are estimated for what runs there::

    [[runtimes]]
    target = "onnx"
    unit = "CPU, four threads"
    precision = "float32"
    fit = "ncnn/rpi4-4t"
    faster = 1.2                   # than the device of the fit, with a source for it
    source = "the same core by its clock"
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgemix import files
from edgemix.errors import InputError, did_you_mean
from edgemix.latency.fits import fits

ASSUMED = "assumed"
"""The source of a figure that nobody was found to publish."""
Precision = Literal["int8", "float16", "float32"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Strict):
    """One fact, and who says so."""

    what: str
    value: float
    unit: str
    source: str = Field(min_length=1)


class Runtime(_Strict):
    """What runs a target's artifacts on a device."""

    target: str
    unit: str
    """Where: a CPU with so many threads, an accelerator."""
    precision: Precision
    fit: str
    """By name, see :func:`edgemix.latency.fits.fits`."""
    faster: float = Field(default=1.0, gt=0)
    """Than the device of the fit."""
    source: str = ""
    """What the comparison rests on."""

    @field_validator("fit")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in fits():
            near = did_you_mean(name, fits(), most=3, cutoff=0.4)
            raise ValueError(f"there are no costs {name}; {near}".rstrip("; "))
        return name


class Device(_Strict):
    """A device's profile."""

    name: str
    title: str
    kind: Literal["phone", "board", "microcontroller", "fpga", "host"]
    chip: str
    aliases: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    runtimes: tuple[Runtime, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Those that latencies can be estimated for."""
        return tuple(dict.fromkeys(r.target for r in self.runtimes))


def names() -> tuple[str, ...]:
    """The devices that edgemix knows."""
    files = resources.files("edgemix.latency").joinpath("devices").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def called(text: str) -> str:
    """What budgets and objectives call a device: as it was named, or its profile's file."""
    return Path(text).stem if text.endswith(".toml") else text


def load(text: str) -> Device:
    """A device by its name, one of its aliases, or the path of a profile.

    Raises:
        InputError: nobody knows the name, or the profile is not one.
    """
    if text.endswith(".toml"):
        path = Path(text)
        if not path.is_file():
            raise InputError(f"there is no device profile {text}")
        return _parsed(files.read_text(path, do="name a TOML file"), path.stem, text)
    wanted = text.strip().lower().replace(" ", "").replace("_", "-")
    for name in names():
        if wanted == name:
            return _known(name)
    found = next((n for n in names() if wanted in _known(n).aliases), None)
    if found is not None:
        return _known(found)
    spellings = [*names(), *(alias for n in names() for alias in _known(n).aliases)]
    near = did_you_mean(wanted, spellings, most=3, cutoff=0.5)
    raise InputError(
        f"nobody here knows the device {text}",
        do=f"{near}`edgemix devices` lists them; your own is a TOML file",
    )


@cache
def _known(name: str) -> Device:
    file = resources.files("edgemix.latency").joinpath("devices", f"{name}.toml")
    return _parsed(file.read_text(encoding="utf-8"), name, f"{name}.toml")


def _parsed(text: str, name: str, at: str) -> Device:
    try:
        return Device(name=name, **tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"this is no TOML: {error}", at=at) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{place}: {what[:1].lower()}{what[1:]}", at=at) from error
    except TypeError as error:  # a profile that names itself
        raise InputError("a profile's name is its file's", at=at, do="leave name out") from error
