"""Recorded words in the layout of Speech Commands: ``recordings:FOLDER:train`` or ``:heldout``.

Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", 2018: a folder a
word with .wav files of 16 kHz, 16 bits, one channel, and ``testing_list.txt``, whose speakers are
held out. Words that are no class of :mod:`edgemix.data.speech` are "unknown"; folders that start
with an underscore are no words.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edgemix.data.base import Data, check_split
from edgemix.data.mel import RATE, Sound, log_mel
from edgemix.data.speech import CLASSES, LENGTH, WORDS
from edgemix.errors import InputError

HELD_OUT = "testing_list.txt"


def part(argument: str) -> Data:
    """The log-mel frames of a part's recordings, and labels.

    Raises:
        InputError: no such folder or part, no recordings, or a file that cannot be used.
    """
    name, _, split = argument.rpartition(":")
    check_split(f"recordings:{name}", split)
    folder = Path(name)
    listed = folder / HELD_OUT
    if not listed.is_file():
        raise InputError(
            f"{folder} has no {HELD_OUT}", do="name the folder of an unpacked Speech Commands"
        )
    held_out = set(listed.read_text().split())
    paths = [
        p for p in sorted(folder.glob("[!_]*/*.wav"))
        if (p.relative_to(folder).as_posix() in held_out) == (split == "heldout")
    ]  # fmt: skip
    if not paths:
        raise InputError(f"there are no recordings in {folder} for {split}")
    labels = [p.parent.name if p.parent.name in WORDS else "unknown" for p in paths]
    frames = np.stack([log_mel(read(p)) for p in paths])
    return Data(f"recordings:{argument}", frames, np.array([CLASSES.index(n) for n in labels]))


def read(path: Path) -> Sound:
    """A recording of at most LENGTH samples; a shorter one is followed by silence.

    Raises:
        InputError: damaged, or of another rate, width or number of channels.
    """
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getsampwidth(), file.getnchannels())
            raw = file.readframes(LENGTH)
    except (wave.Error, EOFError, OSError) as error:
        raise InputError(f"{path} is no .wav file, or it is damaged: {error}") from error
    if form != (RATE, 2, 1):
        raise InputError(
            f"{path} has {form[0]} Hz, {8 * form[1]} bits, {form[2]} channels",
            do=f"convert it to {RATE} Hz, 16 bits, one channel",
        )
    sound = np.zeros(LENGTH, np.float32)
    samples = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.float32) / 32768
    sound[: len(samples)] = samples
    return sound
