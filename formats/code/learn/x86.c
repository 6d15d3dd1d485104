/* What one string of bytes is, by capstone and by the rules that capstone does not keep: the learner's
 * oracle, and the comparer of a finished table against capstone.
 *
 * Built by build.py when the learner runs; capstone's functions come from its own shared library.
 */
#include <capstone/capstone.h>
#include <stdint.h>
#include <string.h>

enum role { R_PREFIX = 1, R_OPCODE, R_VEX, R_MODRM, R_SIB, R_DISPLACEMENT, R_RIP, R_RELATIVE, R_IMMEDIATE };

/* Labels; the same numbers as in automaton.py. */
enum label { L_PLAIN, L_JUMP, L_BRANCH, L_CALL, L_INDIRECT_JUMP, L_INDIRECT_CALL, L_RETURN, L_SYSCALL, L_TRAP,
             L_FAR, L_INTERRUPT, L_PORT, L_SYSTEM, L_REFUSED = 255 };

/* Why a string that capstone takes is not in the table; the same order as RULES in rules.py. */
enum rule { T_NONE, T_PREFIX_REPEATED, T_PREFIX_AFTER_REX, T_REP_AFTER_LOCK, T_LOCK, T_PREFIX_BEFORE_VEX, T_XOP,
            T_3DNOW, T_OBSOLETE, T_UD01, T_BRANCH_16, T_SEGMENT_REGISTER, T_SYSTEM_REGISTER, T_EVEX_LENGTH,
            T_EVEX_ZERO_K0, T_EVEX_FIELDS, T_GATHER, T_MANDATORY, T_STRUCTURE, T_COUNT };

typedef struct {
    uint64_t roles; /* 4 bits a byte, from byte `from` on */
    int length;     /* 0: no instruction */
    int label;
    int rule;
} answer;

static csh handle;
static cs_insn *insn;
static int bits;
static uint8_t classes[8192];

int open_probe(int width, const uint8_t *table, int count)
{
    bits = width;
    memset(classes, 0, sizeof classes);
    memcpy(classes, table, count < 8192 ? count : 8192);
    if (cs_open(CS_ARCH_X86, width == 64 ? CS_MODE_64 : CS_MODE_32, &handle) != CS_ERR_OK)
        return 1;
    insn = cs_malloc(handle);
    return insn == 0;
}

/* capstone's own answer: the length of the instruction at the start, 0 for none; its id in *id. */
static int ask(const uint8_t *bytes, int count, int *id)
{
    const uint8_t *at = bytes;
    size_t left = count;
    uint64_t address = 0x1000;
    if (!cs_disasm_iter(handle, &at, &left, &address, insn))
        return 0;
    *id = insn->id;
    return insn->size;
}

static int one_byte_has_modrm(int op)
{
    if (op < 0x40)
        return (op & 7) < 4;
    if ((op & 0xf0) == 0x80)
        return 1;
    switch (op) {
    case 0x62: case 0x63: case 0x69: case 0x6b: case 0xc0: case 0xc1: case 0xc4: case 0xc5: case 0xc6: case 0xc7:
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: case 0xf6: case 0xf7: case 0xfe: case 0xff:
        return 1;
    }
    return op >= 0xd8 && op <= 0xdf;
}

static int two_byte_has_modrm(int op)
{
    if ((op & 0xf0) == 0x80 || (op >= 0x30 && op <= 0x37) || (op >= 0xc8 && op <= 0xcf))
        return 0;
    if (op >= 0x04 && op <= 0x0c)
        return 0;
    return !(op == 0x0e || op == 0x77 || (op >= 0xa0 && op <= 0xa2) || (op >= 0xa8 && op <= 0xaa));
}

/* Whether F0 may stand before this instruction with a memory operand. */
static int lockable(int map, int op, int reg)
{
    if (map == 0) {
        if (op < 0x38)
            return (op & 7) < 2;
        if (op == 0x80 || op == 0x81 || op == 0x83 || (op == 0x82 && bits == 32))
            return reg != 7;
        if (op == 0x86 || op == 0x87)
            return 1;
        if (op == 0xf6 || op == 0xf7)
            return reg == 2 || reg == 3;
        return (op == 0xfe || op == 0xff) && reg < 2;
    }
    if (map == 1) {
        if (op == 0xab || op == 0xb3 || op == 0xbb || op == 0xb0 || op == 0xb1 || op == 0xc0 || op == 0xc1)
            return 1;
        return (op == 0xba && reg >= 5) || (op == 0xc7 && reg == 1);
    }
    return 0;
}

typedef struct {
    int wide, rep, lock, segment, address, rex, rex_at; /* prefixes seen; rex is the byte */
    int prefixes;                                       /* how many bytes they take */
    int map, op, op_at;                                 /* 0, 0F, 0F38, 0F3A: 0..3; others as encoded */
    int vex, evex, p0, p1, p2;                          /* vex: bytes of the VEX or EVEX prefix after the first */
    int modrm_at;
} shape;

static int is_segment(int b) { return b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65; }

/* Reads the prefixes; returns the rule broken or T_NONE. `complete` is cleared when bytes run out. */
static int read_prefixes(const uint8_t *w, int n, shape *s)
{
    int i = 0;
    memset(s, 0, sizeof *s);
    while (i < n && w[i] == 0x66)
        i++;
    s->wide = i;
    for (; i < n; i++) {
        int b = w[i], *slot;
        if (b == 0x66)
            slot = &s->wide;
        else if (b == 0xf2 || b == 0xf3)
            slot = &s->rep;
        else if (b == 0xf0)
            slot = &s->lock;
        else if (b == 0x67)
            slot = &s->address;
        else if (is_segment(b))
            slot = &s->segment;
        else if (bits == 64 && (b & 0xf0) == 0x40) {
            if (s->rex)
                return T_PREFIX_AFTER_REX;
            s->rex = b;
            s->rex_at = i;
            continue;
        } else
            break;
        if (s->rex)
            return T_PREFIX_AFTER_REX;
        if (*slot)
            return T_PREFIX_REPEATED;
        if (slot == &s->rep && s->lock)
            return T_REP_AFTER_LOCK;
        *slot = b;
    }
    s->prefixes = i;
    return T_NONE;
}

/* Reads the opcode's map and place after the prefixes. Returns 0 when bytes run out. */
static int read_opcode(const uint8_t *w, int n, shape *s)
{
    int i = s->prefixes;
    if (i >= n)
        return 0;
    int b = w[i];
    int vex = b == 0xc4 ? 2 : b == 0xc5 ? 1 : b == 0x62 ? 3 : 0;
    if (vex && bits == 32) {
        if (i + 1 >= n)
            return 0;
        if (w[i + 1] < 0xc0)
            vex = 0;
    }
    if (vex) {
        if (i + vex + 1 >= n)
            return 0;
        s->vex = vex;
        s->evex = vex == 3;
        s->p0 = w[i + 1];
        s->p1 = vex > 1 ? w[i + 2] : 0;
        s->p2 = vex > 2 ? w[i + 3] : 0;
        s->map = vex == 1 ? 1 : s->p0 & (vex == 2 ? 0x1f : 0x07);
        s->op_at = i + vex + 1;
    } else if (b == 0x0f) {
        if (i + 1 >= n)
            return 0;
        s->map = 1;
        s->op_at = i + 1;
        if (w[i + 1] == 0x38 || w[i + 1] == 0x3a) {
            s->map = w[i + 1] == 0x38 ? 2 : 3;
            s->op_at = i + 2;
        }
    } else {
        s->map = 0;
        s->op_at = i;
    }
    if (s->op_at >= n)
        return 0;
    s->op = w[s->op_at];
    int has;
    if (s->vex)
        has = !(s->vex < 3 && s->map == 1 && s->op == 0x77);
    else if (s->map == 0)
        has = one_byte_has_modrm(s->op);
    else
        has = s->map > 1 || two_byte_has_modrm(s->op);
    s->modrm_at = has ? s->op_at + 1 : 0;
    return 1;
}

static int is_relative(const uint8_t *w, const shape *s)
{
    if (s->vex)
        return 0;
    if (s->map == 0)
        return (s->op & 0xf0) == 0x70 || (s->op >= 0xe0 && s->op <= 0xe3) || s->op == 0xe8 || s->op == 0xe9 ||
               s->op == 0xeb || (s->op == 0xc7 && w[s->modrm_at] == 0xf8);
    return s->map == 1 && (s->op & 0xf0) == 0x80;
}

/* Writes the role of every byte; returns 0 when the length does not fit what the opcode asks for. */
static int write_roles(const uint8_t *w, int length, const shape *s, uint8_t *roles)
{
    int i, size = 0, role = R_DISPLACEMENT;
    for (i = 0; i < s->prefixes; i++)
        roles[i] = R_PREFIX;
    for (; i <= s->op_at; i++)
        roles[i] = s->vex && i < s->op_at && i > s->prefixes ? R_VEX : R_OPCODE;
    if (i > length)
        return 0;
    if (s->modrm_at) {
        if (i >= length)
            return 0;
        int modrm = w[i], mod = modrm >> 6, rm = modrm & 7;
        roles[i++] = R_MODRM;
        int control = !s->vex && s->map == 1 && s->op >= 0x20 && s->op <= 0x23; /* mod is ignored */
        if (mod != 3 && !control) {
            if (bits == 32 && s->address) {
                size = mod == 1 ? 1 : mod == 2 || rm == 6 ? 2 : 0;
            } else {
                int base = rm;
                if (rm == 4) {
                    if (i >= length)
                        return 0;
                    base = w[i] & 7;
                    roles[i++] = R_SIB;
                }
                size = mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
                if (bits == 64 && mod == 0 && rm == 5)
                    role = R_RIP;
            }
        }
    } else if (!s->vex && s->map == 0 && s->op >= 0xa0 && s->op <= 0xa3) {
        size = length - i;
    }
    if (i + size > length)
        return 0;
    while (size-- > 0)
        roles[i++] = role;
    role = is_relative(w, s) ? R_RELATIVE : R_IMMEDIATE;
    while (i < length)
        roles[i++] = role;
    return 1;
}

static int label_of(const uint8_t *w, const shape *s, int id)
{
    int reg = s->modrm_at ? (w[s->modrm_at] >> 3) & 7 : 0;
    if (!s->vex && s->map == 0) {
        switch (s->op) {
        case 0xe8: return L_CALL;
        case 0xe9: case 0xeb: return L_JUMP;
        case 0xc2: case 0xc3: return L_RETURN;
        case 0xca: case 0xcb: case 0xcf: case 0x9a: case 0xea: return L_FAR;
        case 0xcc: return L_TRAP;
        case 0xf1: case 0xce: return L_INTERRUPT;
        case 0xcd: {
            int vector = w[s->op_at + 1];
            return vector == 0x29 ? L_TRAP : vector == 0x80 && bits == 32 ? L_SYSCALL : L_INTERRUPT;
        }
        case 0xff:
            if (reg == 2 || reg == 4)
                return reg == 2 ? L_INDIRECT_CALL : L_INDIRECT_JUMP;
            if (reg == 3 || reg == 5)
                return L_FAR;
            break;
        case 0xe4: case 0xe5: case 0xe6: case 0xe7: case 0xec: case 0xed: case 0xee: case 0xef:
        case 0x6c: case 0x6d: case 0x6e: case 0x6f: return L_PORT;
        }
    }
    if (is_relative(w, s))
        return L_BRANCH;
    if (!s->vex && s->map == 1 && s->op >= 0x20 && s->op <= 0x23) /* control and debug registers: one id, "mov" */
        return L_SYSTEM;
    return classes[id & 8191];
}

#include "x86_rules.h"

/* The whole answer for w[0..n): what instruction it starts with, roles counted from byte `from`. */
static answer classify(const uint8_t *w, int n, int from)
{
    answer a = {0, 0, 0, T_NONE};
    shape s;
    uint8_t query[32], roles[32];
    int i, id = 0, m = 0;
    if (n > 31)
        n = 31;
    a.rule = read_prefixes(w, n, &s);
    if (a.rule || !read_opcode(w, n, &s))
        return a;
    int length = ask(w, n < 15 ? n : 15, &id);
    if (!length && s.prefixes > 4) {
        /* Perhaps only for capstone's limit of 15 bytes, which must cut no state of the table short: ask without
         * what hardly matters, segment prefixes, repeated 66 and 67 in 64-bit code. */
        for (i = 0; i < n && m < 15; i++)
            if (i >= s.prefixes || !(is_segment(w[i]) || (w[i] == 0x66 && i > 0 && w[i - 1] == 0x66) ||
                                     (w[i] == 0x67 && bits == 64)))
                query[m++] = w[i];
            else
                length++;
        int dropped = length;
        length = ask(query, m, &id);
        length = length && length + dropped > 15 ? length + dropped : 0;
    }
    if (!length)
        return a;
    a.rule = broken_rule(w, length, &s, id);
    if (a.rule)
        return a;
    memset(roles, 0, sizeof roles);
    if (!write_roles(w, length, &s, roles)) {
        a.rule = T_STRUCTURE;
        return a;
    }
    a.length = length;
    a.label = label_of(w, &s, id);
    for (i = length - 1; i >= from; i--)
        a.roles = a.roles << 4 | roles[i];
    return a;
}

/* Answers for `count` strings of `stride` bytes each: 0 for none, else roles after `from` and the label. */
void answers(int count, int stride, const uint8_t *strings, const uint8_t *lengths, const uint8_t *from,
             uint64_t *out, uint8_t *ends)
{
    for (int i = 0; i < count; i++) {
        answer a = classify(strings + (size_t)i * stride, lengths[i], from[i]);
        out[i] = a.length ? (a.roles << 4) + a.label + ((uint64_t)1 << 63) : 0;
        ends[i] = a.length;
    }
}

#include "compare.h"
