"""The commands, one module each."""

from __future__ import annotations

from edgemix.cli import app
from edgemix.cli.compare import compare
from edgemix.cli.demo import demo
from edgemix.cli.deploy import deploy
from edgemix.cli.devices import devices, estimate
from edgemix.cli.doctor import doctor
from edgemix.cli.export import export
from edgemix.cli.inspect import inspect
from edgemix.cli.measure import measure
from edgemix.cli.profile import profile
from edgemix.cli.prune import prune
from edgemix.cli.search import search
from edgemix.cli.synth import synth
from edgemix.cli.systems import systems
from edgemix.cli.validate import validate

for command in (
    deploy, prune, search, compare, inspect, export, validate, measure, profile, estimate, devices,
    synth, systems, doctor, demo,
):  # fmt: skip
    app.command()(command)
