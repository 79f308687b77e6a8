"""A saved .aimodel read back from disk: its operators and their types. Runs in a child."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemix.extras import need
from edgemix.targets.base import Arithmetic, OpPrecision
from edgemix.targets.coreai.run import ENTRY

_MOVES = frozenset(
    {
        "cast", "reshape", "transpose", "slice", "slice_update", "split", "concat", "expand_dims",
        "shrink_dims", "broadcast_to", "broadcast_in_dims", "pad", "tile", "reverse", "get_shape",
        "output",
    }
)  # fmt: skip
_ROUNDS = frozenset({"quantize", "round"})
"""What makes integers; those of sixteen bits have no type there and stay real numbers."""
_WHOLE = frozenset({"dequantize", "round", "constant", "blockwise_shift_scale"})
"""What gives integers back, or weights."""
_IDLE = _MOVES | _ROUNDS | _WHOLE
_LIMITS = ("minimum", "maximum")
_GRID = ("maximum", "minimum", "mul")
"""What stands behind a round to sixteen bits: their limits, and back to real numbers."""

_INPUT = -1


def audit(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every computing operator of the model.

    Core AI's integers live between a quantize and a dequantize, and its operators compute in float
    between those. Which unit of a device runs them, and in which type, is decided there.
    """
    return {"ops": [asdict(op) for op in _Graph.read(Path(request["model"])).precisions()]}


def operations(path: Path) -> dict[str, int]:
    """How many operators of each type a model holds, constants left out."""
    kinds = Counter(_Graph.read(path).kinds)
    return {kind: n for kind, n in sorted(kinds.items()) if kind not in ("constant", "output")}


@dataclass(frozen=True)
class _Graph:
    """A model's function, every operator by its place."""

    kinds: list[str]
    makers: list[list[int]]
    """Where each operand comes from."""
    readers: list[list[int]]

    @classmethod
    def read(cls, path: Path) -> _Graph:
        asset = need("coreai.authoring", extra="coreai").AIModelAsset.load(path)
        program = asset.program  # owns the operators: it has to outlive this loop
        (region,) = program._get_graph(ENTRY).operation.regions
        graph = cls([], [], [])
        places: dict[Any, int] = {}
        for place, view in enumerate(region.blocks[0].operations):
            op = view.operation
            graph.kinds.append(_kind(op))
            graph.makers.append([places.get(value, _INPUT) for value in op.operands])
            graph.readers.append([])
            for maker in graph.makers[-1]:
                if maker != _INPUT:
                    graph.readers[maker].append(place)
            places.update((value, place) for value in op.results)
        return graph

    def precisions(self) -> list[OpPrecision]:
        """Of every operator that computes, by name and number."""
        weights, integers = self._weights(), self._from_integers()
        rounded, roundings = self._to_integers(), self._roundings(weights)
        found, numbers = [], Counter[str]()
        for place, kind in enumerate(self.kinds):
            if kind in _IDLE or place in roundings:
                continue
            sides = [m in integers for m in self.makers[place] if m not in weights]
            sides.append(place in rounded)
            between: Arithmetic = "float between integers"
            # What touches no integers the recipe left in float.
            asked: Arithmetic = between if any(sides) else "float"
            achieved: Arithmetic = between if all(sides) else "float"
            found.append(OpPrecision(kind, f"{kind}_{numbers[kind]}", asked, achieved))
            numbers[kind] += 1
        return found

    def _weights(self) -> set[int]:
        """What depends on no input."""
        found: set[int] = set()
        for place, makers in enumerate(self.makers):
            if all(m in found for m in makers):
                found.add(place)
        return found

    def _from_integers(self) -> set[int]:
        """What comes from integers, possibly through operators in between."""
        found: set[int] = set()
        for place, makers in enumerate(self.makers):
            if self.kinds[place] in _WHOLE or all(m in found for m in makers):
                found.add(place)
        return found

    def _to_integers(self) -> set[int]:
        """What every reader makes integers of, possibly a few operators later."""
        found: set[int] = set()
        for place in reversed(range(len(self.kinds))):
            readers = self.readers[place]
            if readers and all(self.kinds[r] in _ROUNDS or r in found for r in readers):
                found.add(place)
        return found

    def _roundings(self, weights: set[int]) -> set[int]:
        """The parts of roundings to other than eight bits, which are several operators each."""
        found: set[int] = set()
        for place, kind in enumerate(self.kinds):
            if kind == "quantize":
                found |= self._chain(place, _LIMITS, self.makers, weights)
            if kind == "round":
                found |= self._chain(place, ("mul",), self.makers, weights)
                found |= self._chain(place, _GRID, self.readers, weights)
        return found

    def _chain(
        self, place: int, kinds: tuple[str, ...], following: list[list[int]], weights: set[int]
    ) -> set[int]:
        """Operators of these kinds behind each other, each of one value and constants."""
        found: set[int] = set()
        ahead = {place}
        for kind in kinds:
            near = {p for q in ahead for p in following[q] if p != _INPUT}
            ahead = {
                p
                for p in near
                if self.kinds[p] == kind and sum(m not in weights for m in self.makers[p]) == 1
            }
            found |= ahead
        return found


def _kind(op: Any) -> str:
    """An operator's name ("conv2d"), of a composite that of what it computes ("layer_norm")."""
    if op.name == "coreai.invoke":
        callee = str(op.attributes["callee"]).partition("@")[2]
        return callee.rpartition("_")[0]  # behind it stands a random word
    return str(op.name).rpartition(".")[2].removeprefix("broadcasting_")
