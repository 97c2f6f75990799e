"""Builds the one extension, `meshcore._fastpath`. Metadata lives in pyproject.toml.

MESHCORE_DEBUG=1  -O0 -g, bounds checks in the door, gdb shows the lines of the rooms
MESHCORE_ASAN=1   AddressSanitizer and UndefinedBehaviorSanitizer, -O1
MESHCORE_WERROR=1 a warning of the compiler fails the build; not with the two above, whose builds warn at random
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MESHCORE_DEBUG") == "1"
ASAN = os.environ.get("MESHCORE_ASAN") == "1"
WERROR = os.environ.get("MESHCORE_WERROR") == "1" and not DEBUG and not ASAN

# Directives do not travel from a .pyx to the inline bodies of the rooms it cimports: they are set here, once.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}

compile_args = ["-Wall", "-Wextra", "-Wno-unused-function", "-fno-strict-aliasing", "-std=gnu11"]
link_args = []
macros = [("_GNU_SOURCE", "1")]
if DEBUG:
    compile_args += ["-O0", "-g"]
elif ASAN:
    # -O1: half the build time of -O3, and the reports name more of the verbs that were inlined.
    compile_args += ["-O1", "-g"]
else:
    # -O3 without -march: glibc picks the vector memchr and memcpy at run time, wheels stay portable.
    compile_args += ["-O3", "-g1"]
if WERROR:
    compile_args += ["-Werror", "-Wno-error=deprecated-declarations"]     # the latter speak of Python's own headers
if ASAN:
    compile_args += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    link_args += ["-fsanitize=address,undefined"]

EXTENSIONS = [
    Extension(
        "meshcore._fastpath",
        ["meshcore/_fastpath.pyx"],
        depends=glob("meshcore/engine/*.pxd") + glob("meshcore/door/*.pxi"),
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=["ssl", "crypto", "m", "dl"],
    ),
]

setup(ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, emit_linenums=DEBUG))
