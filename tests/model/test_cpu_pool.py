"""Tasks shared out among threads: every part once, after a fork too, and no race that ThreadSanitizer finds."""

import multiprocessing
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from bytegen import cpu
from bytegen.config import PRESETS
from bytegen.cpu.binding import library
from bytegen.cpu.light import tensor_shapes

CPU = Path(cpu.__file__).parent

# Callers that share out tasks of all sizes at the same time, beside threads that sleep, spin and wake meanwhile.
PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pool.h"

typedef struct { int64_t parts; int threads; int counts[97], by[8]; } job_t;

static void part(void *given, int64_t i, int me) {
    job_t *job = given;
    if (me < 0 || me >= job->threads) abort();
    job->counts[i]++, job->by[me]++; /* plain writes: a part, and `me`, is one thread's */
}

static void *caller(void *given) {
    unsigned seed = (unsigned)(intptr_t)given;
    for (int k = 0; k < 3000; k++) {
        job_t job = {.parts = rand_r(&seed) % 97, .threads = 1 + rand_r(&seed) % 4};
        share_out(part, &job, job.parts, job.threads);
        int sum = 0;
        for (int i = 0; i < 97; i++)
            if (job.counts[i] != (i < job.parts)) printf("part %d ran %d times\n", i, job.counts[i]), exit(1);
        for (int i = 0; i < 8; i++) sum += job.by[i];
        if (sum != job.parts) exit(2);
        if (k % 500 == 0) usleep(2000); /* long enough for the others to sleep */
    }
    return 0;
}

static void slow_part(void *given, int64_t i, int me) {
    part(given, i, me);
    usleep(5000);
}

/* One that sleeps is called, and one that a fork has lost is replaced, long before half a second is over. */
static void helped(void) {
    job_t job = {.parts = 97, .threads = 2};
    usleep(20000);
    share_out(slow_part, &job, job.parts, job.threads);
    if (!job.by[1]) puts("nobody helped"), exit(4);
}

int main(int count, char **given) {
    pthread_t others[2];
    for (int i = 0; i < 2; i++) pthread_create(others + i, 0, caller, (void *)(intptr_t)(i + 1));
    caller((void *)9);
    for (int i = 0; i < 2; i++) pthread_join(others[i], 0);
    helped();
    if (count > 1) { /* ThreadSanitizer allows no threads after a fork */
        pid_t child = fork();
        if (!child) { helped(); caller((void *)5); _exit(0); }
        int status = 1;
        waitpid(child, &status, 0);
        if (status) return 3;
    }
    puts("fine");
    return 0;
}
"""


def built(folder: Path, *flags: str) -> Path | None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, program = folder / "pool_test.c", folder / "pool_test"
    source.write_text(PROGRAM)
    command = [compiler, "-O1", "-g", "-pthread", *flags, f"-I{CPU}", str(source), "-o", str(program)]
    return program if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None


def test_every_part_runs_once_and_in_a_child_too(tmp_path: Path) -> None:
    program = built(tmp_path)
    assert program is not None
    found = subprocess.run([program, "fork"], capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, found.stdout) == (0, "fine\n"), found.stderr


def test_no_race(tmp_path: Path) -> None:
    program = built(tmp_path, "-fsanitize=thread")
    if program is None:
        pytest.skip("this compiler has no ThreadSanitizer")
    found = subprocess.run([program], capture_output=True, text=True, timeout=300, check=False)
    if "unexpected memory mapping" in found.stderr:
        pytest.skip("ThreadSanitizer cannot run under this kernel")
    assert (found.returncode, found.stdout) == (0, "fine\n"), found.stderr


def _hidden(decoder: "cpu.Decoder", threads: int) -> bytes:
    """Of a batch in which everything is worth a second thread: maps, attention, and rows dealt out whole."""
    line = [(7 * i) % 256 for i in range(400)]
    cache = decoder.cache(batch=3, max_length=512, chunk=400)
    cache.reserve([400, 60, 60])
    one = decoder.hidden(line, [0] * 400, list(range(400)), cache, threads=threads)
    several = decoder.hidden(
        line[:120], [1] * 60 + [2] * 60, [*range(60), *range(60)], cache, threads=threads
    )
    return one.tobytes() + several.tobytes()


def _decoder() -> "cpu.Decoder":
    config = PRESETS["packaged"]
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in tensor_shapes(config).items()
    }
    return cpu.Decoder(config, arrays)


@pytest.mark.skipif(library is None, reason="the C decoder was not compiled")
def test_callers_at_the_same_time_and_forks_give_the_same_bits() -> None:
    decoder = _decoder()
    want, found = _hidden(decoder, 1), dict[int, bytes]()

    def call(i: int) -> None:
        found[i] = _hidden(decoder, 2)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(3), want)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=lambda: there.send_bytes(_hidden(decoder, 2)))
    child.start()
    assert here.poll(60)
    assert here.recv_bytes() == want
    child.join(60)
