/* Steps single instructions on this processor and reports which trap ended each: 6 is #UD, refused.
 *
 *     step 64|32 INSTRUCTIONS TRAPS        INSTRUCTIONS: 16 bytes each, 15 of them used; TRAPS: 1 byte each
 *
 * x86-64 Linux only. General registers hold addresses nobody maps, so that every memory operand but a
 * RIP-relative one faults, and the page of the instruction is read-only; system calls must not be among them.
 * No code here may touch thread-local storage once stepping begins: instructions change FS.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_FLAG 0x100
#define CODE_32 0x23 /* Linux's 32-bit code segment */

static uint8_t *code, *writable, *tests, *traps;
static long count, at = -1;
static int narrow;
static gregset_t before;
static unsigned long fs;

static void prepare(greg_t *g)
{
    static const int general[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_RSP,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (int i = 0; i < 15; i++)
        writable[i] = tests[16 * at + i];
    for (int i = 0; i < 16; i++)
        g[general[i]] = narrow ? 0x41414141 : 0x4141414141414141;
    g[REG_RIP] = (greg_t)code;
    g[REG_EFL] = 0x202 | TRAP_FLAG;
    if (narrow)
        g[REG_CSGSFS] = (g[REG_CSGSFS] & ~(greg_t)0xffff) | CODE_32;
}

static void handler(int number, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (at < 0)
        for (int i = 0; i < NGREG; i++)
            before[i] = g[i];
    else
        traps[at] = g[REG_TRAPNO];
    if (++at < count) {
        prepare(g);
        return;
    }
    for (int i = 0; i < NGREG; i++)
        g[i] = before[i];
    syscall(SYS_arch_prctl, ARCH_SET_FS, fs);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    narrow = atoi(argv[1]) == 32;
    FILE *file = fopen(argv[2], "rb");
    if (!file || fseek(file, 0, SEEK_END))
        return 2;
    count = ftell(file) / 16;
    rewind(file);
    tests = malloc(count * 16 + 16);
    traps = calloc(count + 1, 1);
    if (fread(tests, 16, count, file) != (size_t)count)
        return 2;
    fclose(file);
    int shared = memfd_create("instruction", 0);
    if (shared < 0 || ftruncate(shared, 4096))
        return 2;
    code = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_32BIT, shared, 0);
    writable = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (code == MAP_FAILED || writable == MAP_FAILED)
        return 2;
    memset(writable, 0x90, 4096);
    code += 0x800;
    writable += 0x800;
    stack_t stack = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
    sigaltstack(&stack, 0);
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    static const int signals[] = {SIGTRAP, SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGUSR1};
    for (int i = 0; i < 6; i++)
        sigaction(signals[i], &action, 0);
    alarm(300);
    raise(SIGUSR1);
    file = fopen(argv[3], "wb");
    return !file || fwrite(traps, 1, count, file) != (size_t)count || fclose(file);
}
