"""A copy of the source tree whose kernels, and the Python parsers too, are compiled by clang with libFuzzer's coverage
and the address and undefined-behaviour sanitizers.

Needs clang and its runtime library (Debian: `clang`, `libclang-rt-dev`). Compiled by Cython, the parsers written in
Python give libFuzzer their branches as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON_PARSERS = (
    "applier/events/column_types.py",
    "applier/events/control.py",
    "applier/events/ddl.py",
    "applier/events/gtid.py",
    "applier/events/headers.py",
    "applier/events/json_value.py",
    "applier/events/query.py",
    "applier/events/scalars.py",
    "applier/events/table_map.py",
    "applier/events/values.py",
    "applier/selection.py",
    "applier/source/files.py",
    "applier/source/relay/events.py",
    "applier/source/relay/recovery.py",
    "applier/target/event_ddl.py",
)
ENGINE = "tests/fuzz/engine.pyx"
UNDEFINED = "shift,signed-integer-overflow,integer-divide-by-zero,bounds,alignment"
SANITIZERS = [f"-fsanitize=address,{UNDEFINED},fuzzer-no-link", f"-fno-sanitize-recover={UNDEFINED}"]
IGNORED = Path(__file__).parent / "coverage_ignore.txt"
FLAGS = [
    f"-fsanitize-coverage-ignorelist={IGNORED}",
    "-O1",
    "-g1",
    "-fno-omit-frame-pointer",
    "-Wno-everything",
    *SANITIZERS,
]
RUNTIME = "fuzz_runtime.so"


def clang_library(name: str) -> Path:
    """A file of clang's runtime library."""
    command = ["clang", f"-print-file-name=libclang_rt.{name}-x86_64.{'so' if name == 'asan' else 'a'}"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def build(folder: Path) -> None:
    """Copies the packages into `folder` and compiles them there. Raises CalledProcessError."""
    for package in ("applier", "scheduler", "writeset", "tests"):
        shutil.copytree(
            ROOT / package,
            folder / package,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__", "fuzz_runtime*"),
        )
    shutil.copy(ROOT / "tests/fuzz/runtime.c", folder / "tests/fuzz/runtime.c")
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run(
        [
            *("clang++", "-shared", "-fPIC", "-o", RUNTIME),
            *("-x", "c", "tests/fuzz/runtime.c", "-x", "none"),
            *("-Wl,--whole-archive", str(clang_library("fuzzer_no_main")), "-Wl,--no-whole-archive"),
            *("-lpthread", "-ldl"),
        ],
        cwd=folder,
        check=True,
    )
    environment = os.environ | {"CC": "clang", "CFLAGS": " ".join(FLAGS), "LDSHARED": "clang -shared"}
    subprocess.run(
        [sys.executable, "-m", "tests.fuzz.build", "--compile"], cwd=folder, env=environment, check=True
    )


def compile_here() -> None:
    """In the copy: all kernels of pyproject.toml, the parsers, and the engine."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    configured = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    sources = [source for module in configured for source in module["sources"]]
    kernels = [_extension(Extension, source, FLAGS) for source in sources]
    parsers = [_extension(Extension, source, FLAGS) for source in PYTHON_PARSERS]
    engine = [_extension(Extension, ENGINE, ["-O2", "-Wno-everything"])]
    # Annotations of the parsers are for people: compiled, `bytes` would refuse a memoryview.
    directives = {"annotation_typing": False, "language_level": 3}
    modules = cythonize(kernels + engine, include_path=["."], quiet=True, nthreads=2)
    modules += cythonize(parsers, include_path=["."], quiet=True, compiler_directives=directives)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.inplace, command.build_temp, command.parallel = True, "build", 2  # type: ignore[attr-defined]
    command.ensure_finalized()
    command.run()


def _extension(kind: type, source: str, flags: list[str]) -> object:
    name = source.rsplit(".", 1)[0].replace("/", ".")
    return kind(name, [source], extra_compile_args=flags)


def environment(folder: Path) -> dict[str, str]:
    """For a Python process that fuzzes in the copy."""
    asan = (
        "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=4:malloc_context_size=2:max_redzone=64"
    )
    return os.environ | {
        # libFuzzer first: the other has empty functions of the same names.
        "LD_PRELOAD": f"{folder / RUNTIME}:{clang_library('asan')}",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
        "ASAN_OPTIONS": f"{asan}:verify_asan_link_order=0:handle_abort=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


if __name__ == "__main__" and "--compile" in sys.argv:
    compile_here()
