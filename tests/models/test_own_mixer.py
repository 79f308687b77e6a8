"""A mixer in a user's own package: the README's example, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgemix.errors import InputError
from edgemix.sources import factory
from tests.cli.command import edgemix

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The example in a folder of its own."""
    found = re.search(r"```python\n(# my_mixers\.py\n.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    (tmp_path / "my_mixers.py").write_text(found[1])
    return tmp_path


def test_the_readmes_mixer_is_deployed_by_the_readmes_command(package: Path) -> None:
    found = re.search(r"edgemix (deploy my_mixers:create .*)", README.read_text())
    assert found is not None
    command = found[1].replace("onnx,tflite,coreml", "onnx").split()
    done = edgemix(*command, cwd=package)
    assert done.returncode == 0, done.stderr
    assert (package / "out" / "onnx" / "model.onnx").exists()


def test_a_mixer_that_breaks_the_contract_is_named(package: Path) -> None:
    code = (package / "my_mixers.py").read_text()
    (package / "my_mixers.py").write_text(code.replace("x - self.blur(x)", "self.blur(x).mean(1)"))
    done = edgemix("inspect", "my_mixers:create", cwd=package)
    assert done.returncode == 2
    assert "the token mixer Sharpen takes [1, 16, 8, 8] and gives [1, 8, 8]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("edgemix.models.tiny_maps:fourrier", "did you mean fourier"),
        ("edgemix.models.presets:cas_vit_xxs", "did you mean cas_vit_xs"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_near_ones(source: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        factory.load(source)
