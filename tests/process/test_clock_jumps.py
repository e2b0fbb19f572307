"""The wall clock of all processes of an engine jumps: rollouts, requests and scaling continue."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import LoadOnAll
from tests.support import eventually

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(COMPILER is None, reason="a C compiler is missing"),
]
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    char text[32] = {0};
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    long got = read(file, text, 31);
    close(file);
    return got > 0 ? atol(text) : 0;
}
int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, at);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
"""Shifts the wall clock by the seconds in a file. libfaketime also changes Python's monotonic sleep (EINVAL)."""
SECONDS = {"+1 h": 3600, "-1 h": -3600, "+10 years": 315_360_000}


def test_a_jump_of_the_wall_clock_during_a_rollout_fails_no_request(site: Site, tmp_path: Path) -> None:
    assert COMPILER
    shift, source, shim = tmp_path / "shift", tmp_path / "shim.c", tmp_path / "shim.so"
    shift.write_text("0")
    source.write_text(SHIM)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
    site.environ |= {"LD_PRELOAD": str(shim), "CLOCK_SHIFT_FILE": str(shift)}
    site.up()
    site.environ.clear()
    daemon = site.status()["engine"]["pid"]
    with ThreadPoolExecutor(1) as threads, LoadOnAll({"dev": site.url}, 30) as load:
        for name, seconds in SECONDS.items():
            site.touch(name)
            deploy = threads.submit(site.hitless, "deploy", "--strategy", "Canary10Percent5Seconds")
            eventually(lambda: (site.stage()["candidate"] or {}).get("state") == "baking", what="it bakes")
            shift.write_text(str(seconds))
            ended = deploy.result(60).document
            assert ended["outcome"] == "live", ended
            assert 5 <= ended["duration_s"] < 60, ended
        told = [datetime.fromisoformat(one["at"]).year for one in site.hitless("events").document]
        assert max(told) > datetime.now().year + 8, "the clock has jumped"
        shift.write_text("0")
        site.touch("back")
        site.hitless("deploy")
    assert site.status()["engine"]["pid"] == daemon
    assert load.driven["dev"].failed.total() == 0
    assert load.driven["dev"].requests > 200
