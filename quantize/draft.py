"""Draft: a float program on its way to a quantized one, as algorithms see and change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.ends import keep_ends
from edgemix.quantize.insert import Edge, coded
from edgemix.quantize.palette import palettized
from edgemix.quantize.plan import Plan, assign
from edgemix.quantize.recipe import Recipe
from edgemix.quantize.simulate import Simulation


@dataclass(frozen=True)
class Draft:
    """What will be quantized, and how, so far."""

    program: Program
    """Float."""
    calibration: Calibration
    recipe: Recipe
    plan: Plan
    values: Mapping[Edge, Tensor] = field(default_factory=dict)
    """Weights and biases in the place of the program's, by who reads them."""

    @classmethod
    def start(cls, program: Program, calibration: Calibration, recipe: Recipe) -> Draft:
        """The draft that the recipe's observers alone give.

        Raises:
            InputError: the calibration belongs to another program.
        """
        if calibration.program != program.digest:
            raise InputError(
                "the calibration belongs to another program",
                do="calibrate this program, or remove the file",
            )
        module = program.shared
        recipe = keep_ends(module, recipe)
        plan = assign(module, calibration, recipe, len(program.states))
        return cls(program, calibration, recipe, plan)

    def simulate(self) -> Simulation:
        """The draft as a function of many samples."""
        return Simulation(self.program, self.plan, self.values)

    def updated(self, simulation: Simulation) -> Draft:
        """The draft with the encodings and values that a simulation of it was given since."""
        plan = replace(
            self.plan,
            encodings={n: r.encoding for n, r in simulation.values.items()},
            narrow={e: r.encoding for e, r in simulation.narrow.items()},
            constants={
                e: c.encoding for e, c in simulation.constants.items() if e in self.plan.constants
            },
        )
        values = {e: c.value for e, c in simulation.constants.items() if c.value is not c.real}
        return replace(self, plan=plan, values=values)

    def finish(self, seconds: float) -> Program:
        """The quantized program."""
        module = self.program.module()
        coded(module, self.plan, self.values)
        palettized(module, self.recipe)
        options = {
            "recipe": self.recipe.model_dump(mode="json"),
            "calibration": self.calibration.data.sha256,
        }
        return self.program.with_module(module, Step("quantize", options, round(seconds, 3)))
