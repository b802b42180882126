"""Compiles `waferdb.capi`, the Cython module through which native code calls the engine.

It links nothing: the engine is reached at run time through the function table of `waferdb._core`.
One binary serves every CPython from 3.11 on (the limited API). Everything else about the package is
in pyproject.toml, and `build_backend/waferdb_build.py` calls this file before it calls maturin.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

LIMITED_API = "0x030B0000"  # CPython 3.11

capi = Extension(
    "waferdb.capi",
    ["python/waferdb/capi.pyx"],
    depends=["python/waferdb/waferdb.h"],
    include_dirs=["python/waferdb"],
    define_macros=[("Py_LIMITED_API", LIMITED_API)],
    extra_compile_args=["-O2", "-g0", "-fvisibility=hidden"],
    py_limited_api=True,
)

setup(
    packages=[],
    package_dir={"": "python"},
    ext_modules=cythonize(
        [capi],
        include_path=["python"],
        force=True,  # a change of these settings alone must count too
        language_level=3,
        compiler_directives={"autotestdict": False, "boundscheck": False, "wraparound": False},
    ),
)
