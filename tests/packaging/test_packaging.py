"""What is installed is what lies in the tree, under the right names, and it starts fast."""

import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import edgemix

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"edgemix": "edgemix", "quantize": "edgemix/quantize", "targets": "edgemix/targets"}
LINKS = ("quantize", "targets")
# Generous, because other work shares the machine; each takes seconds when it does not.
LIMIT = 300


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def succeed(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tree(root: Path) -> dict[str, bytes]:
    """The files that belong in a wheel, by their path there."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (root / folder).rglob("*"):
            inside = path.relative_to(root / folder)
            # rglob does not enter links, but yields them.
            if path.is_symlink() or not path.is_file() or "__pycache__" in inside.parts:
                continue
            found[f"{package}/{inside.as_posix()}"] = path.read_bytes()
    return found


def copy(to: Path, *, links: bool) -> Path:
    """The tree as a fresh clone has it; without links, as git makes it where it cannot link."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, to / folder, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to / name)
    if not links:
        for name in LINKS:
            link = to / "edgemix" / name
            text = str(link.readlink())
            link.unlink()
            link.write_text(text)
    return to


def build(source: Path, to: Path, *, editable: bool = False) -> Path:
    """A wheel by the build backend itself: no frontend to install, nothing to download."""
    to.mkdir()
    kind = "build_editable" if editable else "build_wheel"
    code = f"import sys, setuptools.build_meta as b; b.{kind}(sys.argv[1])"
    succeed(sys.executable, "-c", code, to, cwd=source)
    (wheel,) = to.glob("*.whl")
    return wheel


def install(wheel: Path, to: Path) -> Path:
    """The Python of a fresh environment that holds the wheel and borrows its dependencies."""
    venv.create(to, with_pip=False, symlinks=True)
    python = to / "bin" / "python"
    tool = ["uv", "pip"] if shutil.which("uv") else [sys.executable, "-m", "pip"]
    flag = ["--python", str(python)]
    # pip takes --python before its command, uv after it.
    command = [*tool, "install", *flag] if tool[0] == "uv" else [*tool, *flag, "install"]
    succeed(*command, "--no-deps", "--no-index", wheel, cwd=to)
    # A path in a .pth file is searched, but .pth files found there are not read: an editable
    # edgemix of the borrowed environment stays out.
    borrowed = sysconfig.get_path("purelib")
    (site_packages(to) / "borrowed.pth").write_text(borrowed + "\n")
    return python


def site_packages(environment: Path) -> Path:
    return next((environment / "lib").glob("python3*")) / "site-packages"


def python_says(python: Path, code: str, cwd: Path) -> str:
    return succeed(python, "-I", "-W", "error::ImportWarning", "-c", code, cwd=cwd).strip()


IMPORT_ALL = """
import importlib, pkgutil, edgemix
names = [m.name for m in pkgutil.walk_packages(edgemix.__path__, "edgemix.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(*names)
"""


def modules() -> set[str]:
    paths = (Path(name) for name in tree(ROOT) if name.endswith(".py"))
    dotted = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return set(dotted) - {"edgemix"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build(copy(folder / "source", links=True), folder / "dist")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("installed") / "venv")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def test_version_is_one() -> None:
    assert PROJECT["project"]["version"] == edgemix.__version__


def test_package_list_is_every_folder_with_python_files() -> None:
    folders = {Path(name).parent for name in tree(ROOT) if name.endswith(".py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {".".join(f.parts) for f in folders}


def test_every_folder_with_python_files_is_a_package() -> None:
    files = {Path(name) for name in tree(ROOT)}
    assert [f for f in files if f.suffix == ".py" and f.parent / "__init__.py" not in files] == []


def test_links_lead_to_the_folders() -> None:
    assert [(ROOT / "edgemix" / name).resolve() for name in LINKS] == [ROOT / n for n in LINKS]


def test_extra_all_names_every_user_extra() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (whole,) = extras["all"]
    named = set(whole.removeprefix("edgemix[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "test", "dev"}


def test_constraints_are_exact_and_hold_no_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if pin.count("==") != 1 or "/" in pin or "+" in pin] == []


def test_wheel_holds_the_tree_and_nothing_else(wheel: Path) -> None:
    expected, found = tree(ROOT), contents(wheel)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_wheel_without_links_is_the_same(wheel: Path, tmp_path: Path) -> None:
    other = build(copy(tmp_path / "source", links=False), tmp_path / "dist")
    assert contents(other) == contents(wheel)


def test_installed_wheel_imports_every_module(installed: Path, tmp_path: Path) -> None:
    assert set(python_says(installed, IMPORT_ALL, tmp_path).split()) == modules()


def test_generic_names_do_not_land_in_site_packages(installed: Path) -> None:
    names = {path.name for path in site_packages(installed.parents[1]).iterdir()}
    assert "edgemix" in names
    assert names & {"quantize", "targets", "tests", "firmware_examples"} == set()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_editable_install_sees_new_modules(links: bool, tmp_path: Path) -> None:
    source = copy(tmp_path / "source", links=links)
    wheel = build(source, tmp_path / "dist", editable=True)
    python = install(wheel, tmp_path / "venv")
    for folder in ("quantize", "targets/onnx"):
        (source / folder / "newcomer.py").write_text("print(__name__, __file__)\n")
    neutral = tmp_path / "neutral"
    neutral.mkdir()
    code = "import edgemix.quantize.newcomer, edgemix.targets.onnx.newcomer, edgemix.targets.base"
    said = python_says(python, code, neutral).splitlines()
    # Resolved, because an import goes through a link where there is one.
    found = [Path(line.split()[1]).resolve() for line in said]
    assert found == [source / "quantize/newcomer.py", source / "targets/onnx/newcomer.py"]
    landed = {path.name for path in site_packages(tmp_path / "venv").iterdir()}
    assert landed & {"edgemix", "quantize", "targets"} == set()
    for name in LINKS:
        refused = run(python, "-I", "-c", f"import {name}", cwd=neutral)
        assert f"No module named '{name}'" in refused.stderr


@pytest.mark.parametrize("name", LINKS)
def test_wrong_name_is_refused(name: str) -> None:
    refused = run(sys.executable, "-c", f"import {name}", cwd=ROOT)
    assert refused.returncode == 1
    assert f"ImportError: import edgemix.{name}, not {name}\n" in refused.stderr


HEAVY = "{'numpy', 'torch', 'torchao', 'timm', 'onnx', 'coremltools', 'hls4ml', 'litert_torch'}"


@pytest.mark.parametrize("module", ["edgemix", "edgemix.cli.commands", "edgemix.targets"])
def test_import_is_light(module: str, installed: Path, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    assert python_says(installed, code, tmp_path) == "[]"


def test_check_for_light_imports_can_fail(installed: Path, tmp_path: Path) -> None:
    code = f"import sys, numpy; print(sorted({HEAVY} & set(sys.modules)))"
    assert python_says(installed, code, tmp_path) == "['numpy']"


def test_help_takes_less_than_half_a_second(installed: Path, tmp_path: Path) -> None:
    # Processor time: a busy machine makes the wall clock wait, and not the command slow.
    seconds = []
    for _ in range(3):
        child = subprocess.Popen(
            [installed.parent / "edgemix", "--help"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        seconds.append(usage.ru_utime + usage.ru_stime)
    assert statistics.median(seconds) < 0.5, seconds
