"""What an installed waferdb carries, and what the build backend hands to maturin."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import waferdb

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(waferdb.__file__).parent


def run(*command: str) -> str:
    """In the root of the project, with this interpreter's scripts in front; its output."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["_core", "capi"])
def test_both_modules_are_of_the_stable_abi(name: str) -> None:
    module = importlib.import_module(f"waferdb.{name}")
    assert module.__file__ is not None
    assert Path(module.__file__).name == f"{name}.abi3.so"


@pytest.mark.parametrize("name", ["waferdb.h", "capi.pxd", "py.typed", "_core.pyi", "capi.pyi"])
def test_what_others_compile_and_check_against_is_shipped(name: str) -> None:
    assert (PACKAGE / name).is_file()


def test_get_include_is_the_directory_of_the_header() -> None:
    assert (Path(waferdb.get_include()) / "waferdb.h").is_file()


def test_capi_links_nothing_of_ours() -> None:
    data = (PACKAGE / "capi.abi3.so").read_bytes()
    assert b"_core.abi3.so" not in data
    assert b"libpython" not in data


def test_the_version_is_written_once() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert importlib.metadata.version("waferdb") == cargo["workspace"]["package"]["version"]


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(name for group in project["project"]["optional-dependencies"].values() for name in group),
        *(n for group in project["dependency-groups"].values() for n in group if type(n) is str),
    ]
    names = {name.split(">=")[0].lower() for name in wanted}
    assert names <= pinned


@pytest.mark.slow
def test_the_sdist_makes_a_wheel_with_both_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys; sys.path.insert(0, 'build_backend'); import waferdb_build as backend"
    run(sys.executable, "-c", f"{script}; backend.build_sdist(sys.argv[1])", str(tmp_path))
    (sdist,) = tmp_path.glob("waferdb-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "setup.py",
        "build_backend/waferdb_build.py",
        "python/waferdb/capi.pyx",
        "python/waferdb/capi.pxd",
        "python/waferdb/waferdb.h",
        "engine/_core/Cargo.toml",
        "Cargo.lock",
        "LICENSE",
    } <= names
    assert not [name for name in names if name.endswith((".so", "capi.c"))]

    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    # The build directory of the checkout, so that only what differs is compiled again.
    monkeypatch.setenv("CARGO_TARGET_DIR", os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target")))
    run(sys.executable, "-m", "pip", "wheel", *offline, "-w", str(tmp_path), str(sdist))
    (wheel,) = tmp_path.glob("waferdb-*.whl")
    assert wheel.name.endswith("cp311-abi3-linux_" + os.uname().machine + ".whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = ["_core.abi3.so", "capi.abi3.so", "capi.pxd", "waferdb.h", "py.typed"]
    assert {f"waferdb/{name}" for name in shipped} <= names
    assert "waferdb/capi.c" not in names
