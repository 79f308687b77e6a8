"""Spoken words, made by a synthesizer: many voices, speeds and pitches, in rooms and with noise.

The set has the form of Speech Commands (Warden, 2018): ten words, "unknown" (other words) and
"silence" (noise alone), a second each. espeak-ng speaks, so nothing has to be downloaded, and the
speakers of one part never speak in another.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemix import files
from edgemix.data.base import Data, check_split
from edgemix.data.mel import HOP, RATE, WINDOW, Frames, Sound, log_mel
from edgemix.errors import InputError, ToolError

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = (
    "bed", "bird", "cat", "dog", "eight", "five", "four", "happy", "house", "marvin", "nine", "one",
    "seven", "sheila", "six", "three", "tree", "two", "wow", "zero", "backward", "forward",
    "follow", "learn", "visual",
)  # fmt: skip
CLASSES = (*WORDS, "unknown", "silence")

ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan")
VARIANTS = (
    "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "david", "Denis", "Diogo", "ed", "edward", "edward2", "Gene", "Gene2",
    "gustave", "announcer", "Henrique", "Hugo", "iven", "iven2", "iven3", "iven4", "Jacky", "john",
    "Lee", "linda", "marcelo", "Marco", "Mario", "max", "Michael", "michel", "miguel", "Mike",
    "pablo", "paul", "pedro", "quincy", "rob", "robert", "steph", "steph2", "steph3", "Storm",
    "zac", "anika", "f1", "f2", "f3", "f4", "f5", "grandma", "grandpa", "m1", "m2", "m3", "m4",
    "m5", "m6", "m7", "m8", "norbert", "sandro", "shelby", "travis", "victor",
)  # fmt: skip
"""Voices of espeak-ng that sound like people."""

FRAMES = 50
LENGTH = (FRAMES - 1) * HOP + WINDOW
"""Samples of an utterance: one second and the rest of the last frame."""

PARTS = {"train": (2_400, 1), "heldout": (2_400, 2)}
"""Utterances and seed of the two parts; every class is as frequent as the others."""

_NATIVE = 22_050
_SPOKEN = int(0.95 * RATE)


def voices(split: str) -> tuple[str, ...]:
    """The speakers of a part: every fourth voice is held out."""
    return tuple(v for i, v in enumerate(VARIANTS) if (i % 4 == 3) == (split == "heldout"))


@dataclass(frozen=True)
class Utterance:
    """Everything that one recording is made of."""

    word: str
    """"" is silence."""
    voice: str
    speed: int
    """Words a minute."""
    pitch: int
    """0 to 99, as espeak-ng counts."""
    seed: int
    """Of the room, the noise and the place in time."""


def draw(count: int, seed: int, split: str) -> tuple[list[Utterance], npt.NDArray[np.int64]]:
    """Utterances and their labels; the same seed is the same list."""
    random = np.random.default_rng([seed, split == "heldout"])
    labels = np.arange(count) % len(CLASSES)
    found = []
    for label in labels:
        name = CLASSES[label]
        word = {"unknown": str(random.choice(OTHERS)), "silence": ""}.get(name, name)
        voice = f"{random.choice(ACCENTS)}+{random.choice(voices(split))}"
        speed, pitch = int(random.integers(130, 221)), int(random.integers(25, 76))
        found.append(Utterance(word, voice, speed, pitch, int(random.integers(2**31))))
    return found, labels


def record(utterance: Utterance) -> Sound:
    """The sound of an utterance [LENGTH]: spoken, in a room, moved in time, with noise.

    Raises:
        InputError: espeak-ng is missing.
        ToolError: it failed.
    """
    random = np.random.default_rng(utterance.seed)
    sound = np.zeros(LENGTH)
    if utterance.word:
        spoken = _in_a_room(_speak(utterance), random)[:_SPOKEN]
        start = int(random.integers(0, LENGTH - len(spoken) + 1))
        sound[start : start + len(spoken)] = spoken / max(float(np.abs(spoken).max()), 1e-9)
    level = 10 ** (random.uniform(-18, 0) / 20)
    below = random.uniform(5, 30) if utterance.word else random.uniform(10, 50)
    noise = _noise(random)
    power = float(np.mean(sound**2)) if utterance.word else 0.02
    sound = sound + noise * np.sqrt(power * 10 ** (-below / 10))
    found: Sound = np.clip(sound * level, -1, 1).astype(np.float32)
    return found


def features(
    count: int, seed: int, split: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Log-mel frames [count, FRAMES, BANDS] of drawn utterances, and labels [count]."""
    drawn, labels = draw(count, seed, split)
    # espeak-ng is a process of its own: threads wait for it beside each other.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        frames = list(pool.map(_heard, drawn))
    return np.stack(frames), labels


def _heard(utterance: Utterance) -> Frames:
    return log_mel(record(utterance))


@cache
def part(split: str) -> Data:
    """2,400 utterances of a part; made once, then kept in the user's cache.

    Raises:
        InputError: ``split`` is neither ``train`` nor ``heldout``, or espeak-ng is missing.
    """
    check_split("keywords", split)
    x, y = kept(*PARTS[split], split)
    return Data(f"keywords:{split}", x, y)


def kept(
    count: int, seed: int, split: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """:func:`features` from the cache, where they are, else made and put there."""
    text = f"{synthesizer()} {count} {seed} {split} {FRAMES} {files.sha256(Path(__file__))}"
    place = files.cache() / f"keywords-{files.name_of(text)}.npy"
    labels = np.arange(count) % len(CLASSES)
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing or damaged: made again
        stored: npt.NDArray[np.float32] = np.load(place, allow_pickle=False)
        return stored, labels
    x, labels = features(count, seed, split)
    files.write_array(place, x)
    return x, labels


@cache
def synthesizer() -> str:
    """The version of espeak-ng.

    Raises:
        InputError: it is not installed.
    """
    if shutil.which("espeak-ng") is None:
        raise InputError(
            "the keywords need espeak-ng to speak them", do="apt-get install espeak-ng"
        )
    said = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split("Data at")[0].strip()


def _speak(utterance: Utterance) -> npt.NDArray[np.float64]:
    synthesizer()
    command = [
        "espeak-ng", "-v", utterance.voice, "-s", str(utterance.speed), "-p", str(utterance.pitch),
        "--stdout", utterance.word,
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, check=False)
    samples = np.frombuffer(said.stdout[44:], "<i2")
    if said.returncode != 0 or not len(samples):
        raise ToolError(f"espeak-ng cannot say {utterance.word} as {utterance.voice}")
    loud = np.flatnonzero(np.abs(samples) > 300)
    if len(loud):
        samples = samples[loud[0] : loud[-1] + 1]
    # By its spectrum: what lies above half the new rate is left out.
    length = round(len(samples) * RATE / _NATIVE)
    spectrum = np.fft.rfft(samples / 32768)
    found: npt.NDArray[np.float64] = np.fft.irfft(spectrum[: length // 2 + 1], length)
    return found * (length / len(samples))


def _in_a_room(
    sound: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """The sound and its echoes: noise that decays by 60 dB in the room's reverberation time."""
    decay = random.uniform(0.05, 0.4)
    age = np.arange(int(decay * RATE)) / RATE
    response = random.normal(size=len(age)) * 10 ** (-3 * age / decay)
    response *= random.uniform(0.02, 0.3) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    size = len(sound) + len(response) - 1
    heard: npt.NDArray[np.float64] = np.fft.irfft(
        np.fft.rfft(sound, size) * np.fft.rfft(response, size), size
    )
    return heard


def _noise(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise of power one whose spectrum falls by 0 to 6 dB an octave."""
    spectrum = np.fft.rfft(random.normal(size=LENGTH))
    frequency = np.maximum(np.arange(len(spectrum)), 20.0)
    coloured = np.fft.irfft(spectrum * frequency ** -random.uniform(0, 1), LENGTH)
    found: npt.NDArray[np.float64] = coloured / np.sqrt(np.mean(coloured**2))
    return found
