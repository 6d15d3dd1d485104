/* Runtime of the corpus' programs: no libc, one loadable segment, a few dozen bytes.
 *
 * A program is the body of MAIN. Its parameters are texts, each closed by NUL, at P (the last bytes
 * of the file). The helpers are written in assembly with calling conventions of their own, since
 * that is half the size of what a compiler makes of the same C; the linker drops those not called.
 *
 *   const char *s = P;  int n = num(&s);   next parameter as a decimal number; s moves past its NUL
 *   char *o = buf;                         a cursor into a buffer of the program's own, on the stack:
 *   str(&o, &s);                           appends the text at s without its NUL; s moves past the NUL
 *   dec(&o, n);                            appends n in decimal (unsigned)
 *   chr(&o, c);  rep(&o, c, n);            appends c once, n times (n >= 0)
 *   flush(buf, o);                         writes buf .. o to standard output
 *   out(c);                                writes one byte (small, but a system call a byte)
 *   say(&s);                               writes the text at s; s moves past its NUL
 *   say_dec(n);                            writes n in decimal (unsigned)
 *   while (in(&c)) ...                     next byte of standard input; false at its end
 *   while (in_num(&n)) ...                 next run of digits of standard input as a number; false at its end
 *   sleep_ms(ms);                          0 <= ms < 1000
 *   quit(code);                            ends the program; MAIN must end in it
 */
#ifndef BYTEGEN_RUNTIME_H
#define BYTEGEN_RUNTIME_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

extern const char P[];

#define MAIN __attribute__((noreturn, used, minsize, section(".text.start"))) void _start(void)
#define INLINE static inline __attribute__((always_inline, unused))
#define HELPER(name, body) __asm__(".pushsection .text." name ",\"ax\"\n" name ":\n" body "\n.popsection\n")

/* num: rsi = text; returns ecx, rsi past the NUL; uses eax. */
HELPER("rt_num",
       "xor %ecx,%ecx\n"
       "1: xor %eax,%eax\n lodsb\n sub $48,%al\n js 2f\n"
       "imul $10,%ecx,%ecx\n add %eax,%ecx\n jmp 1b\n"
       "2: ret");
INLINE int num(const char **s) {
    int n;
    __asm__ volatile("call rt_num" : "+S"(*s), "=c"(n) : : "rax", "cc");
    return n;
}

/* dec: eax = number, rdi = cursor; uses rax, rcx, rdx. */
HELPER("rt_dec",
       "push $10\n pop %rcx\n"
       "1: xor %edx,%edx\n div %ecx\n push %rdx\n test %eax,%eax\n je 2f\n call 1b\n"
       "2: pop %rax\n add $48,%al\n stosb\n ret");
INLINE void dec(char **o, u32 n) {
    __asm__ volatile("call rt_dec" : "+D"(*o), "+a"(n) : : "rcx", "rdx", "cc", "memory");
}

/* str: rsi = text, rdi = cursor; uses al. */
HELPER("rt_str", "1: lodsb\n stosb\n test %al,%al\n jne 1b\n dec %rdi\n ret");
INLINE void str(char **o, const char **s) {
    __asm__ volatile("call rt_str" : "+D"(*o), "+S"(*s) : : "rax", "cc", "memory");
}

INLINE void chr(char **o, char c) {
    __asm__ volatile("stosb" : "+D"(*o) : "a"(c) : "memory");
}

INLINE void rep(char **o, char c, long n) {
    __asm__ volatile("rep stosb" : "+D"(*o), "+c"(n) : "a"(c) : "memory");
}

/* flush: rsi = start, rdi = end; uses rax, rcx, rdx, rdi, r11. */
HELPER("rt_flush",
       "push $1\n pop %rax\n mov %edi,%edx\n sub %esi,%edx\n mov %eax,%edi\n syscall\n ret");
INLINE void flush(const char *start, char *end) {
    __asm__ volatile("call rt_flush" : "+D"(end) : "S"(start) : "rax", "rcx", "rdx", "r11", "cc", "memory");
}

/* out: al = byte; uses rax, rcx, rdx, rdi, rsi, r11. */
HELPER("rt_out",
       "push %rax\n push $1\n pop %rax\n mov %eax,%edi\n mov %eax,%edx\n push %rsp\n pop %rsi\n"
       "syscall\n pop %rcx\n ret");
INLINE void out(char c) {
    __asm__ volatile("call rt_out" : "+a"(c) : : "rcx", "rdx", "rdi", "rsi", "r11", "cc", "memory");
}

/* say: rsi = text; uses rax, rcx, rdx, rdi, r11; rsi past the NUL. */
HELPER("rt_say",
       "xor %edx,%edx\n"
       "1: cmpb $0,(%rsi,%rdx)\n je 2f\n inc %edx\n jmp 1b\n"
       "2: push $1\n pop %rax\n mov %eax,%edi\n syscall\n lea 1(%rsi,%rax),%rsi\n ret");
INLINE void say(const char **s) {
    __asm__ volatile("call rt_say" : "+S"(*s) : : "rax", "rcx", "rdx", "rdi", "r11", "cc", "memory");
}

/* say_dec: eax = number; uses rax, rcx, rdx, rdi, rsi, r11. */
HELPER("rt_say_dec",
       "xor %edx,%edx\n push $10\n pop %rcx\n div %ecx\n push %rdx\n test %eax,%eax\n je 1f\n"
       "call rt_say_dec\n"
       "1: pop %rax\n add $48,%al\n jmp rt_out");
INLINE void say_dec(u32 n) {
    __asm__ volatile("call rt_say_dec" : "+a"(n) : : "rcx", "rdx", "rdi", "rsi", "r11", "cc", "memory");
}

/* in: returns ecx = byte, eax = 1, or 0 at the end; uses rdx, rdi, rsi, r11. */
HELPER("rt_in",
       "xor %eax,%eax\n xor %edi,%edi\n push %rax\n push %rsp\n pop %rsi\n push $1\n pop %rdx\n"
       "syscall\n pop %rcx\n ret");
INLINE int in(int *c) {
    int got, byte;
    __asm__ volatile("call rt_in" : "=a"(got), "=c"(byte) : : "rdx", "rdi", "rsi", "r11", "cc", "memory");
    *c = byte;
    return got > 0;
}

/* in_num: any byte but a digit separates; returns r8d = number and ZF = 1, or ZF = 0 at the end. */
HELPER("rt_in_num",
       "1: call rt_in\n dec %eax\n jne 4f\n sub $48,%ecx\n cmp $9,%ecx\n ja 1b\n xor %r8d,%r8d\n"
       "2: imul $10,%r8d\n add %ecx,%r8d\n call rt_in\n sub $48,%ecx\n cmp $9,%ecx\n jbe 2b\n"
       "cmp %eax,%eax\n"
       "4: ret");
INLINE int in_num(int *n) {
    int found;
    register int number __asm__("r8");
    __asm__ volatile("call rt_in_num"
                     : "=@ccz"(found), "=r"(number)
                     :
                     : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory");
    *n = number;
    return found;
}

/* sleep_ms: eax = milliseconds; uses rax, rcx, rdi, rsi, r11. */
HELPER("rt_sleep",
       "imul $1000000,%eax,%eax\n push %rax\n push $0\n push %rsp\n pop %rdi\n xor %esi,%esi\n"
       "push $35\n pop %rax\n syscall\n pop %rcx\n pop %rcx\n ret");
INLINE void sleep_ms(int ms) {
    __asm__ volatile("call rt_sleep" : "+a"(ms) : : "rcx", "rdi", "rsi", "r11", "cc", "memory");
}

__attribute__((noreturn)) INLINE void quit(int code) {
    __asm__ volatile("push $60\n pop %%rax\n syscall" : : "D"(code) : "rax", "rcx", "r11", "memory");
    __builtin_unreachable();
}

/* The parameter block: the last bytes of the file. PARAMS is a list of BLOCK byte values. */
#define TEXT_OF(...) #__VA_ARGS__
#define BYTES_OF(...) TEXT_OF(__VA_ARGS__)
#ifdef PARAMS
__asm__(".pushsection .params,\"a\"\nP: .byte " BYTES_OF(PARAMS) "\n.popsection\n");
#else
__asm__(".pushsection .params,\"a\"\nP: .space " BYTES_OF(BLOCK) "\n.popsection\n");
#endif

#endif
