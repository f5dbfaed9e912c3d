import platform
import subprocess
from pathlib import Path

import pytest

from twinguide_softbody import fastpath, native

WIDE = "__AVX512F__"  # what a compiler defines where it may use registers of 64 bytes


@pytest.fixture(params=["-mno-avx512f", "-mavx512f"], ids=["narrow", "wide"], scope="module")
def width(request):
    """Give the compiler's flag for registers of 32 or of 64 bytes; build, and skip, what cannot run here."""
    cc = native.compiler()
    if cc is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the width of registers is asked of a compiler for x86")
    command = [cc, *native.FLAGS, request.param, "-dM", "-E", "-xc", "/dev/null"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"{cc} does not know {request.param}")
    wide = request.param == "-mavx512f"
    assert (WIDE in told.stdout) == wide
    cpuinfo = Path("/proc/cpuinfo")
    if wide and not (cpuinfo.exists() and "avx512f" in cpuinfo.read_text()):
        for source in ("cpu.c", "reduced.c"):
            native.library(source, (request.param,))
        pytest.skip("this processor has no registers of 64 bytes: their text was built, and cannot run")
    return (request.param,)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Give a cache of its own, where few samples make few modes, and list what was to be trained apart."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patched.setattr(fastpath, "SAMPLES", 8)
        patched.setattr(fastpath, "MODES", 12)
        jobs = []
        patched.setattr(fastpath, "train_apart", jobs.append)
        yield jobs
