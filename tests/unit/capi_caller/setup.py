"""Builds two native callers of waferdb: one in Cython, one in plain C. Neither links anything.

python setup.py build_ext --build-lib DIRECTORY --build-temp DIRECTORY
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

import waferdb

INCLUDE = waferdb.get_include()

setup(
    name="waferdb-capi-caller",
    packages=[],
    ext_modules=[
        *cythonize(
            [Extension("cython_caller", ["cython_caller.pyx"], include_dirs=[INCLUDE])],
            build_dir="generated",
            language_level=3,
        ),
        Extension("c_caller", ["c_caller.c"], include_dirs=[INCLUDE]),
    ],
)
