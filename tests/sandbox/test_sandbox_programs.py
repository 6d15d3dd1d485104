"""Programs of real compilers: the same output and exit code as on this machine."""

from pathlib import Path

import pytest
from sandbox_programs import can_run_native, gcc_c, run_native, zig_c

from bytegen.sandbox import run

SOURCES = {
    "printf and stdin": r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
  char line[80]; long sum = 0; int lines = 0;
  printf("%d %s %.6f %10s|%-6d|%x\n", argc, "text", 3.25, "right", -42, 0xbeefu);
  while (fgets(line, sizeof line, stdin)) { sum += atol(line); lines++; }
  printf("%ld in %d lines\n", sum, lines); fprintf(stderr, "done\n");
  return lines;
}""",
    "heap": r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int order(const void *a, const void *b) { int x = *(int *)a, y = *(int *)b; return (x > y) - (x < y); }
int main(void) {
  int n = 20000, *a = malloc(n * sizeof *a); unsigned state = 1;
  for (int i = 0; i < n; i++) { state = state * 1103515245 + 12345; a[i] = state >> 8; }
  qsort(a, n, sizeof *a, order);
  char *big = malloc(1000000); memset(big, 'x', 1000000); big = realloc(big, 5000000); big[4999999] = 1;
  printf("%d %d %d %c\n", a[0], a[n / 2], a[n - 1], big[999999]);
  free(big); free(a); return 0;
}""",
    "arithmetic": r"""
#include <stdio.h>
#include <stdint.h>
#include <math.h>
int main(void) {
  volatile int32_t a = -17, b = 5; volatile int64_t c = -1234567890123, d = 977; volatile double x = 2.0;
  printf("%d %d %lld %lld\n", a / b, a % b, (long long)(c / d), (long long)(c % d));
  printf("%.12f %.12f %.12f %.12f\n", sqrt(x), sin(x), exp(x), pow(x, 0.3));
  long double y = 1.0L / 3; printf("%.18Lf %d\n", y, (int)(y * 9));
  uint64_t h = 14695981039346656037u; for (int i = 0; i < 100000; i++) h = (h ^ (i & 255)) * 1099511628211u;
  printf("%llx %d %d\n", (unsigned long long)h, __builtin_popcountll(h), __builtin_clzll(h));
  return 0;
}""",
    "system calls": r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <poll.h>
#include <time.h>
int main(void) {
  struct stat st; struct pollfd p = {0, POLLIN, 0};
  struct timespec ms = {0, 1000000}, before, after;
  printf("%d %d\n", isatty(0), isatty(1));
  printf("%d %d\n", fstat(1, &st), S_ISFIFO(st.st_mode));
  char *m = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  m[65535] = 7; printf("%d %d\n", munmap(m + 4096, 4096), m[65535]);
  printf("%d\n", mprotect(m, 4096, PROT_READ));
  printf("%ld %d\n", (long)write(1, (void *)8, 4), errno);
  printf("%ld %d\n", (long)read(77, m, 4), errno);
  printf("%ld %d\n", (long)lseek(0, 0, SEEK_CUR), errno);
  printf("%d %d\n", poll(&p, 1, 0), p.revents & POLLIN);
  clock_gettime(CLOCK_MONOTONIC, &before); nanosleep(&ms, 0); clock_gettime(CLOCK_MONOTONIC, &after);
  long long passed = (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec;
  printf("%d\n", passed >= 1000000);
  ms.tv_nsec = 2000000000; printf("%d %d\n", nanosleep(&ms, 0), errno);
  int fd = dup(1); dprintf(fd, "%d\n", close(1)); dprintf(fd, "%ld %d\n", (long)write(1, "x", 1), errno);
  return 3;
}""",
}
STDIN = b"12\n-5\n1000000\n" * 40


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "gcc pie", pytest.param("zig", marks=pytest.mark.full)])
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.skipif(not can_run_native(), reason="needs Linux on x86-64 as the judge")
def test_program_does_what_it_does_on_this_machine(name: str, compiler: str, tmp_path: Path) -> None:
    if compiler == "zig":
        pytest.importorskip("ziglang")
        data: bytes | None = zig_c(SOURCES[name], tmp_path, "-O2", "-mcpu=baseline")
    else:
        data = gcc_c(SOURCES[name], tmp_path, "-O2", "-static-pie" if "pie" in compiler else "-static")
        if data is None:
            pytest.skip("needs gcc with a static glibc")
    result = run(data, stdin=STDIN)
    returncode, stdout = run_native(data, tmp_path, STDIN)
    assert (result.exit_code, result.stdout) == (returncode, stdout), str(result)
    assert result.refused == ()
