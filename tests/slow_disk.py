"""A slow disk for one server: a library for LD_PRELOAD, compiled when a test needs it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

SLOW_WHILE: Final = (
    "SLOW_FSYNC_WHILE"  # environment variable: the file while whose existence the disk is slow
)

SOURCE: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *file = getenv("SLOW_FSYNC_WHILE");
    if (file != NULL && access(file, F_OK) == 0) usleep(10000);
}

int fsync(int fd) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def slow_fsync_library(folder: Path) -> Path:
    """fsync and fdatasync take 10 ms longer while the file named by SLOW_WHILE exists."""
    library = folder / "slow_fsync.so"
    command = ["cc", "-x", "c", "-shared", "-fPIC", "-O2", "-o", str(library), "-", "-ldl"]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return library
