"""From the text of a ``deploy.toml`` to an order, or to a message that names the line."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from edgemix import files, targets
from edgemix.data import SETS
from edgemix.data.folders import KINDS
from edgemix.deployment import lines as where
from edgemix.deployment import schema
from edgemix.deployment.lines import Key
from edgemix.errors import InputError, did_you_mean
from edgemix.latency.budget import LATENCY, SIZE, Budget
from edgemix.latency.device import called
from edgemix.latency.resources import RESOURCES
from edgemix.order import Order
from edgemix.proof import Contract
from edgemix.quantize.prune.recipe import Goal
from edgemix.quantize.recipe import Recipe
from edgemix.shapes import parse as input_shapes
from edgemix.targets.coreml.shipping import Image, Shipping, labels
from edgemix.targets.fpga.hardware import Hardware, LayerKnobs
from edgemix.targets.fpga.parts import period_ns

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_BUDGET_KEYS = (LATENCY, SIZE, *RESOURCES, "max_drop", "contract")
NONE = "none"
"""What a search may vary to: the quality without algorithms, the model as it is."""
_TOML_PLACE = re.compile(r"(.*) \(at line (\d+), column \d+\)")


@dataclass(frozen=True)
class Deployment:
    """What a file asks for."""

    order: Order
    search: schema.Search | None
    locate: Callable[..., InputError]
    """An error at a key: ``locate(("search", "bits"), what, do)``."""


def read(path: Path, out: Path | None = None) -> Deployment:
    """The deployment in a file.

    Args:
        path: the file; paths in it are relative to its folder.
        out: the output folder, in place of the file's.

    Raises:
        InputError: there is no such file, or :func:`parse` refuses it.
    """
    return parse(files.read_text(path, do="name a deploy.toml"), path, out)


def parse(text: str, path: Path, out: Path | None = None) -> Deployment:
    """The deployment in a text that stands for the file ``path``.

    Raises:
        InputError: no TOML, unknown keys, or values of another kind; the message begins with
            ``deploy.toml:LINE: KEY:``.
    """
    source = _Source.parse(text, path)
    try:
        file = schema.File.model_validate(source.values)
    except ValidationError as error:
        raise source.explained(error) from error
    if out is None and file.out is None:
        raise InputError(
            f"{path}: there is no output folder", do='write out = "build", or give --out'
        )
    home = path.parent / (file.out or "") if out is None else out
    if path.resolve().is_relative_to(home.resolve()):
        raise InputError(
            f"{path} lies in its own output folder", do="name one that holds nothing else"
        )
    order = _order(source, file, home)
    return Deployment(order, _search(source, file, path.parent), source.error)


@dataclass(frozen=True)
class _Source:
    """A file's values, and the line of each."""

    path: Path
    values: Mapping[str, Any]
    lines: dict[Key, int]

    @classmethod
    def parse(cls, text: str, path: Path) -> _Source:
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _TOML_PLACE.fullmatch(str(error))
            what, line = found.groups() if found else (str(error), text.count("\n") + 1)
            raise InputError(f"{path}:{line}: this is not TOML: {what}") from error
        return cls(path, values, where.lines(text.replace("\r\n", "\n")))

    def error(self, key: Key, what: str, do: str | None = None) -> InputError:
        """An error at a key, as editors and CI systems take it: file, line, key, what."""
        shown = ".".join(str(part) for part in key)
        line = where.nearest(self.lines, key)
        return InputError(f"{self.path}:{line}: {shown + ': ' if shown else ''}{what}", do=do)

    @contextmanager
    def at(self, *key: str | int) -> Iterator[None]:
        """Errors in the block are about this key."""
        try:
            yield
        except InputError as error:
            raise self.error(key, error.what, error.do) from error

    def explained(self, error: ValidationError) -> InputError:
        """The first of pydantic's complaints, in the file's order, in the house's words."""
        faults = [(_place(self.values, e["loc"]), e) for e in error.errors()]
        key, fault = min(faults, key=lambda pair: where.nearest(self.lines, pair[0]))
        if fault["type"] == "extra_forbidden":
            known = list(_table(key[:-1]).model_fields)
            near = did_you_mean(str(key[-1]), known)
            return self.error(key, "there is no such key", f"{near}keys: {', '.join(known)}")
        if fault["type"] == "missing":
            kind = "table" if str(key[-1]) in schema.File.model_fields else "key"
            return self.error(key, f"this {kind} is missing")
        return self.error(key, fault["msg"].removeprefix("Value error, "))


def _place(values: Any, loc: Key) -> Key:
    """Pydantic's place, without the marks of a union's members: these stand for no value."""
    found: list[int | str] = []
    for i, part in enumerate(loc):
        there = part in values if isinstance(values, dict) else isinstance(values, list)
        if there:
            values = values[part]
        if there or (i == len(loc) - 1 and isinstance(values, dict)):  # the last may be missing
            found.append(part)
    return tuple(found)


def _table(key: Key) -> type[BaseModel]:
    """The schema of a table."""
    found: type[BaseModel] = schema.File
    for part in key:
        if isinstance(part, str):
            annotation = found.model_fields[part].annotation
            tables = [annotation, *get_args(annotation)]
            found = next(t for t in tables if isinstance(t, type) and issubclass(t, BaseModel))
    return found


def _order(source: _Source, file: schema.File, out: Path) -> Order:
    folder = source.path.parent
    model, data, recipe = file.model, file.data, file.recipe
    for i, name in enumerate(file.targets):
        with source.at("targets", i):
            targets.load(name)
    hardware = _hardware(source, file.hardware)
    chosen = None if recipe.file is None else str(folder / recipe.file)
    with source.at("recipe", "name" if recipe.file is None else "file"):
        found = Recipe.load(chosen or recipe.name or "int8")
    with source.at("recipe", "bits"):
        if recipe.bits is not None:
            found.in_bits(recipe.bits)
    budgets, contracts, drop = _budget(source, file)
    calibrate, evaluate = (
        None if argument is None else _data(argument, folder)
        for argument in (data.calibrate, data.evaluate)
    )
    return Order(
        source=model_source(model.source, folder),
        targets=tuple(dict.fromkeys(file.targets)),
        out=out,
        calibrate=calibrate,
        evaluate=evaluate or calibrate or "",
        recipe=chosen or recipe.name,
        quality=recipe.quality,
        pruning=file.pruning,
        bits=recipe.bits,
        samples=data.samples,
        evaluate_samples=data.evaluate_samples,
        step=model.step or model.chunk is not None,
        chunk=model.chunk,
        unroll=model.unroll,
        stream=model.stream,
        devices=tuple(str(folder / d) if d.endswith(".toml") else d for d in file.devices),
        budgets=budgets,
        contracts=contracts,
        max_drop=drop,
        threads=file.threads,
        hardware=hardware,
        shipping=_shipping(source, file.coreml),
        shapes=_shapes(source, file.coreml),
    )


def _budget(source: _Source, file: schema.File) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """Budgets and contracts as the command line writes them, and the accuracy that may go."""
    values = dict(file.budget)
    drop, contracts = values.pop("max_drop", Order.max_drop), values.pop("contract", {})
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not drop >= 0:
        raise source.error(("budget", "max_drop"), "this is no number of points", "like 0.5")
    if not isinstance(contracts, dict):
        raise source.error(("budget", "contract"), "this is no table", 'like onnx = "exact"')
    for name, contract in contracts.items():
        with source.at("budget", "contract", name):
            if name not in file.targets:
                raise InputError(
                    "this target is not being built", do=f"use one of {', '.join(file.targets)}"
                )
            Contract.parse(str(contract))
    fpga = tuple(name for name in file.targets if name in targets.FPGA)
    devices = [called(d) for d in file.devices]
    budgets = []
    for key, value in _flat(values):
        name = ".".join(key)
        with source.at("budget", *key):
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                raise InputError("this is no budget", do='write it like "2ms", "5MB" or "50%"')
            known = [*file.targets, *devices, *_BUDGET_KEYS]
            near = did_you_mean(key[0], known)
            if key[0] not in known and near:
                raise InputError("nothing has this name", do=near.strip())
            Budget.read(name, str(value), file.targets, fpga, devices)
        budgets.append(f"{name}={value}")
    return tuple(budgets), tuple(f"{n}={c}" for n, c in contracts.items()), float(drop)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """``rtl.dsp = 9`` is a table in a table: keys that lead to values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from (((key, *inner), v) for inner, v in _flat(value))
        else:
            yield (key,), value


def _hardware(source: _Source, table: schema.Hardware) -> Hardware:
    given = table.model_dump(exclude_none=True, exclude={"clock", "io", "layers"})
    if table.io is not None:
        given["interface"] = table.io
    with source.at("hardware", "clock"):
        if table.clock is not None:
            given["clock_ns"] = period_ns(table.clock)
    knobs = []
    for i, text in enumerate(table.layers):
        with source.at("hardware", "layers", i):
            knobs.append(LayerKnobs.parse(text))
    made = Hardware(**given, layers=tuple(knobs))
    with source.at("hardware", "part"):
        made.check()
    return made


def _shipping(source: _Source, table: schema.CoreML) -> Shipping:
    image = None
    names: tuple[str, ...] = ()
    with source.at("coreml", "image"):
        if table.image is not None:
            image = Image.parse(table.image)
    with source.at("coreml", "labels"):
        if table.labels is not None:
            names = labels(source.path.parent / table.labels)
    if any(size < 1 for size in table.batches):
        raise source.error(("coreml", "batches"), "batch sizes are positive")
    return Shipping(
        image,
        tuple(sorted(set(table.batches))),
        author=table.author,
        licence=table.license,
        labels=names,
    )


def _shapes(source: _Source, table: schema.CoreML) -> tuple[tuple[int, ...], ...]:
    with source.at("coreml", "shapes"):
        return input_shapes(",".join(table.shapes)) if table.shapes else ()


def _search(source: _Source, file: schema.File, folder: Path) -> schema.Search | None:
    """The table with sources relative to the file; its choices are checked."""
    if file.search is None:
        return None
    for i, name in enumerate(file.search.recipes):
        with source.at("search", "recipes", i):
            Recipe.load(_recipe(name, folder))
    for i, bits in enumerate(file.search.bits):
        with source.at("search", "bits", i):
            Recipe.load("int8").in_bits(bits)
    for i, budget in enumerate(file.search.pruning):
        with source.at("search", "pruning", i):
            if budget != NONE:
                Goal.parse(budget)
    variants = [
        v.model_copy(update={"source": model_source(v.source, folder), "name": v.name or v.source})
        for v in file.search.variants
    ]
    for i, variant in enumerate(variants):
        if variant.name in [v.name for v in variants[:i]]:
            what = f"two variants are called {variant.name}"
            raise source.error(("search", "variants", i), what, "give each a name of its own")
    return file.search.model_copy(
        update={
            "variants": variants,
            "recipes": [_recipe(name, folder) for name in file.search.recipes],
        }
    )


def _recipe(name: str, folder: Path) -> str:
    return str(folder / name) if name.endswith(".toml") else name


def model_source(text: str, folder: Path) -> str:
    """A source with its file, if it names one, relative to a folder."""
    if text.startswith("timm:") or _FACTORY.fullmatch(text):
        return text
    return str(folder / text)


def _data(argument: str, folder: Path) -> str:
    """A data argument with its file or folder relative to a folder."""
    kind, colon, rest = argument.partition(":")
    if not colon:
        return str(folder / argument)
    if kind in SETS or kind == "random":
        return argument
    return f"{kind}:{folder / rest}" if kind in (*KINDS, "recordings") else str(folder / argument)


def importable(folder: Path) -> None:
    """Let a factory's module lie beside the file, as it may in the current folder."""
    if str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))
