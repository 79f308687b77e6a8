"""What a person chooses for an app: images as input, batch sizes, and what the package says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgemix import files
from edgemix.errors import InputError
from edgemix.shapes import Reshaped

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Color = Literal["RGB", "BGR", "GRAYSCALE"]
_OFF_GRID = 0.02
"""Of a pixel's step, that a value may lie beside it: float32 rounds less."""


@dataclass(frozen=True)
class Image:
    """An input that takes pictures: a model sees pixels of 0 to 255 as ``pixel · scale + bias``."""

    scale: float = 1 / 255
    bias: tuple[float, ...] = (0.0,)
    """One, or one for each channel."""
    color: Color = "RGB"

    @classmethod
    def parse(cls, text: str) -> Image:
        """``scale=1/255,bias=-0.485:-0.456:-0.406,color=RGB``, each part optional.

        Raises:
            InputError: another form.
        """
        parts = dict(item.partition("=")[::2] for item in text.split(",") if item)
        color = parts.pop("color", "RGB").upper()
        try:
            scale = float(Fraction(parts.pop("scale", "1/255")))
            bias = tuple(float(Fraction(b)) for b in parts.pop("bias", "0").split(":"))
        except (ValueError, ZeroDivisionError):
            scale, bias = 0.0, ()
        channels = 1 if color == "GRAYSCALE" else 3
        if parts or scale == 0 or len(bias) not in (1, channels) or color not in get_args(Color):
            raise InputError(
                f"no image input: {text}",
                do="write it like scale=1/255,bias=-0.5:-0.5:-0.5,color=RGB (or BGR, GRAYSCALE)",
            )
        return cls(scale, bias, color)  # type: ignore[arg-type]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.color == "GRAYSCALE" else 3

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse an input that is no picture.

        Raises:
            InputError: it is not [1, channels, height, width].
        """
        if len(shape) != 4 or shape[:2] != (1, self.channels):
            raise InputError(
                f"an input of shape {list(shape)} takes no {self.color} image",
                do=f"images are [1, {self.channels}, height, width]",
            )

    def pixels(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """The pictures of which a model's inputs [n, channels, height, width] were made.

        Raises:
            InputError: a value is none that a pixel gives.
        """
        import numpy as np

        bias = np.asarray(self.bias, np.float64).reshape(-1, 1, 1)
        found = (x.astype(np.float64) - bias) / self.scale
        whole = np.rint(found)
        if (
            np.abs(found - whole).max(initial=0) > _OFF_GRID
            or whole.min(initial=0) < 0
            or (whole.max(initial=0) > 255)
        ):
            raise InputError(
                "the data are no images: a value lies between two pixels, or beyond 0 to 255",
                do="prove image inputs on data that are pixel · scale + bias",
            )
        return whole.astype(np.uint8)


@dataclass(frozen=True)
class Shipping:
    """For targets that apps load."""

    image: Image | None = None
    batches: tuple[int, ...] = ()
    """Batch sizes that the model takes, by enumeration; none: the program's own only."""
    author: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the outputs' order."""
    shapes: tuple[Reshaped, ...] = ()
    """Further shapes of the input, by enumeration as well."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Shipping:
        """What :meth:`to_json` wrote."""
        image = value["image"] and Image(
            **{**value["image"], "bias": tuple(value["image"]["bias"])}
        )
        lists = {name: tuple(value[name]) for name in ("batches", "labels")}
        shapes = tuple(Reshaped(tuple(s["shape"]), s["sizes"]) for s in value["shapes"])
        return cls(**{**value, **lists, "image": image, "shapes": shapes})


def labels(path: Path) -> tuple[str, ...]:
    """Names of classes, one a line of a file.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    do = "give one with a class's name on each line"
    if not path.is_file():
        raise InputError(f"there is no file {path}", do=do)
    return tuple(files.read_text(path, do=do).splitlines())


def batches(text: str) -> tuple[int, ...]:
    """``1,4,8`` as batch sizes, in order.

    Raises:
        InputError: another form.
    """
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise InputError(f"no batch sizes: {text}", do="write them like 1,4,8")
    return tuple(sorted({int(p) for p in parts}))
