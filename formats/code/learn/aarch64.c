/* What one AArch64 word is, by capstone and by which of its system instructions user code may use. */
#include <capstone/capstone.h>
#include <stdint.h>
#include <string.h>

/* Labels plus one, so that 0 is "no instruction"; the same numbers as in automaton.py. */
enum label { NOTHING, PLAIN, JUMP, BRANCH, CALL, INDIRECT_JUMP, INDIRECT_CALL, RETURN, SYSCALL, TRAP, FAR_TRANSFER,
             INTERRUPT, PORT, SYSTEM };

static csh handle;
static cs_insn *insn;

int open_probe(void)
{
    if (cs_open(CS_ARCH_ARM64, CS_MODE_ARM, &handle) != CS_ERR_OK)
        return 1;
    insn = cs_malloc(handle);
    return insn == 0;
}

static int taken(uint32_t word)
{
    uint8_t bytes[4] = {word, word >> 8, word >> 16, word >> 24};
    const uint8_t *at = bytes;
    size_t left = 4;
    uint64_t address = 0x1000;
    return cs_disasm_iter(handle, &at, &left, &address, insn);
}

/* MSR, MRS, SYS and the PSTATE forms (D5000000..D53FFFFF): what EL0 may use, by Arm ARM chapter C5. */
static int system_label(uint32_t w)
{
    int read = w >> 21 & 1, op0 = w >> 19 & 3, op1 = w >> 16 & 7, crn = w >> 12 & 15, op2 = w >> 5 & 7;
    if (op0 == 0 && crn == 4) /* PSTATE: flags, DIT, SSBS, TCO and SVCR are EL0's, the rest is not */
        return op1 == 0 ? (op2 < 3 ? PLAIN : SYSTEM) : op1 == 3 && op2 < 6 ? PLAIN : SYSTEM;
    if (op0 == 0) /* hints and barriers */
        return PLAIN;
    if (op1 == 3)
        return PLAIN;
    /* Linux reads the identification registers for programs. */
    return op0 == 3 && op1 == 0 && crn == 0 && read ? PLAIN : SYSTEM;
}

static int label_of(uint32_t w)
{
    int top = w >> 24;
    if ((top & 0x7c) == 0x14)
        return top & 0x80 ? CALL : JUMP;
    if (top == 0x54 || (top & 0x7c) == 0x34)
        return BRANCH;
    if (w < 0x10000)
        return TRAP; /* udf */
    if (top == 0xd4) {
        int low = w & 31, opc = w >> 21 & 7;
        return opc == 0 ? (low == 1 ? SYSCALL : SYSTEM) : opc == 1 || opc == 2 ? TRAP : SYSTEM;
    }
    if (top == 0xd5)
        return w >> 22 & 3 ? PLAIN : system_label(w);
    if (top == 0xd6 || top == 0xd7) {
        int opc = w >> 21 & 15;
        return opc == 4 || opc == 5 ? SYSTEM : (opc & 3) == 0 ? INDIRECT_JUMP : (opc & 3) == 1 ? INDIRECT_CALL : RETURN;
    }
    return PLAIN;
}

void labels(int count, const uint32_t *words, uint8_t *out)
{
    for (int i = 0; i < count; i++)
        out[i] = taken(words[i]) ? label_of(words[i]) : NOTHING;
}

/* For each block of 1,024 words (the upper 22 bits) the label all its probes have, or 255 where they differ: every
 * single bit of the ten set and cleared, and the two registers of those bits equal to each other and to the two
 * of the upper bits (loads of two registers must name different ones). */
void scan(uint32_t first, uint32_t count, uint8_t *out)
{
    uint32_t state = first * 2654435769u + 12345;
    for (uint32_t k = 0; k < count; k++) {
        uint32_t block = (first + k) << 10, third = block >> 10 & 31, fourth = block >> 16 & 31;
        uint32_t lows[31] = {0, 1023};
        int n = 2;
        for (int i = 0; i < 10; i++) {
            lows[n++] = 1u << i;
            lows[n++] = 1023 ^ 1u << i;
        }
        state = state * 1664525u + 1013904223u;
        uint32_t any = state >> 27, other = state >> 22 & 31;
        lows[n++] = any << 5 | other;
        lows[n++] = any << 5 | any;
        lows[n++] = any << 5 | third;
        lows[n++] = third << 5 | any;
        lows[n++] = third << 5 | third;
        lows[n++] = any << 5 | fourth;
        lows[n++] = fourth << 5 | any;
        lows[n++] = fourth << 5 | fourth;
        uint8_t seen = 0;
        for (int i = 0; i < n; i++) {
            uint8_t label = taken(block | lows[i]) ? label_of(block | lows[i]) : NOTHING;
            if (i && label != seen) {
                seen = 255;
                break;
            }
            seen = label;
        }
        out[k] = seen;
    }
}

/* The labels of all words of each listed block: uint8[count][1024]. */
void fill(int count, const uint32_t *blocks, uint8_t *out)
{
    for (int k = 0; k < count; k++)
        for (uint32_t low = 0; low < 1024; low++) {
            uint32_t word = blocks[k] << 10 | low;
            out[(size_t)k * 1024 + low] = taken(word) ? label_of(word) : NOTHING;
        }
}
