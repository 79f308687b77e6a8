"""``edgemix validate MODEL.mlpackage --against PROGRAM``: packages that anyone made."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli.command import edgemix


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its plain conversion by coremltools alone, and data."""
    import coremltools as ct

    folder = tmp_path_factory.mktemp("plain")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    exported = torch.export.export(net, (torch.randn(1, 3, 8, 8),))
    torch.export.save(exported, folder / "net.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            exported.run_decompositions({}),
            minimum_deployment_target=ct.target.iOS16,
            compute_precision=ct.precision.FLOAT32,
        )
    model.save(str(folder / "net.mlpackage"))
    x = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    return folder


def test_a_plain_package_is_compared_with_its_model(plain: Path) -> None:
    done = edgemix(
        "validate", plain / "net.mlpackage", "--against", plain / "net.pt2",
        "--data", plain / "data.npz", "--contract", "relative:1e-4", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)
    assert verdict["passed"]
    assert verdict["target"] == "coreml"
    assert "9 decisions equal" in verdict["found"]


def test_another_model_s_package_fails(plain: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 8, 8),)), tmp_path / "other.pt2")
    arguments = ("validate", plain / "net.mlpackage", "--against", tmp_path / "other.pt2")
    done = edgemix(*arguments, "--data", plain / "data.npz")
    assert done.returncode == 1
    assert "FAILED output" in done.stdout


def test_what_cannot_be_compared_is_said(plain: Path, tmp_path: Path) -> None:
    package, program = plain / "net.mlpackage", plain / "net.pt2"
    missing = edgemix("validate", package, "--against", program)
    assert (missing.returncode, "there is no data" in missing.stderr) == (2, True)
    alone = edgemix("validate", package, "--data", plain / "data.npz")
    assert (alone.returncode, "name the program with --against" in alone.stderr) == (2, True)
    nothing = edgemix(
        "validate", tmp_path / "no.mlpackage", "--against", program, "--data", "x.npz"
    )
    assert (nothing.returncode, "no.mlpackage does not exist" in nothing.stderr) == (2, True)
    other = edgemix("validate", program, "--against", program, "--data", plain / "data.npz")
    assert (other.returncode, "is of no kind that edgemix compares" in other.stderr) == (2, True)


def test_a_package_is_inspected(plain: Path) -> None:
    done = edgemix("inspect", plain / "net.mlpackage", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["system"] == "iOS 16, macOS 13"
    assert found["placement"]["kind"] == ("planned" if sys.platform == "darwin" else "expected")
    shown = edgemix("inspect", plain / "net.mlpackage")
    assert "Neural Engine" in shown.stdout
    assert "kept off the Neural Engine" in shown.stdout  # it computes in 32 bits
