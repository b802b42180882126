"""The build backend (PEP 517, PEP 660): `waferdb.capi` first, then maturin.

maturin builds `waferdb._core` and collects the Python package; it knows nothing of Cython. So each
hook that makes something installable compiles `waferdb.capi` into `python/waferdb/` through
setup.py, where maturin picks it up. The hooks that only describe the package are maturin's own.

Not covered: `maturin build` and `maturin develop` do not read this file; use pip.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import maturin
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None

ROOT = Path(__file__).resolve().parent.parent
CAPI = ROOT / "python" / "waferdb" / "capi.abi3.so"

# maturin runs its program by name; without build isolation it lies beside an interpreter whose
# environment need not be activated. Last, so that an isolated build keeps its own.
os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")]
)


def compile_capi() -> None:
    """Leaves a fresh `capi.abi3.so` in the package, or ends the build."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-temp", "build/capi"]
    subprocess.run(command, cwd=ROOT, check=True)
    if not CAPI.is_file():
        raise RuntimeError(f"setup.py succeeded without making {CAPI}: the package would lack it")


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    compile_capi()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    compile_capi()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)
