/* What capstone takes and the table leaves out, one rule each. Found by stepping encodings on a processor and
 * read up in the Intel SDM, volume 2 (2.6.11 and 2.7.11 for VEX and EVEX, the opcode pages for the rest). */

/* Whether 66, F2 or F3 may stand before this instruction of an escape map; capstone ignores some that make the
 * instruction another one, or none. `after` is its ModRM byte. */
static int prefix_is_defined(const shape *s, int modrm)
{
    int p = s->rep ? s->rep : s->wide ? 0x66 : 0, mem = modrm < 0xc0, reg = (modrm >> 3) & 7;
    if (!p)
        return 1;
    if (s->map == 1 && s->op == 0x01)
        return mem ? reg != 5 || p == 0xf3 : p == 0xf3 && (modrm == 0xe8 || modrm == 0xea);
    if (s->map == 1 && s->op == 0xae) {
        if (mem)
            return (reg == 4 && p == 0xf3) || (reg == 6 && p != 0xf2) || (reg == 7 && p == 0x66);
        return reg < 5 || (reg == 5 && p == 0xf3) || reg == 6;
    }
    if (s->map == 1 && s->op == 0xc7 && mem)
        return reg == 1 || (reg == 6 && p != 0xf2);
    if (s->map == 2 && ((s->op >= 0xc8 && s->op <= 0xcd) || s->op == 0xf9))
        return 0;
    return !(s->map == 3 && s->op == 0xcc);
}

/* Whether capstone takes the instruction without REX and 67 as well, and without 66 beside F2 or F3. With them it
 * forgets that a mandatory prefix makes the opcode another one: f2 0f 55 is refused, f2 48 0f 55 taken; and beside
 * F2 or F3 a processor does not let 66 choose the form: 66 f2 0f 6f is no movdqa but refused (#UD). */
static int stands_alone(const uint8_t *w, int length, const shape *s, int modrm)
{
    uint8_t q[24];
    int n = 0, i, id;
    if (!s->rex && !s->address && !(s->wide && s->rep))
        return 1;
    for (i = 0; i < s->prefixes; i++)
        if (w[i] == 0xf2 || w[i] == 0xf3 || w[i] == 0xf0 || (w[i] == 0x66 && !s->rep && !(n && q[n - 1] == 0x66)))
            q[n++] = w[i];
    for (i = s->prefixes; i <= s->op_at; i++)
        q[n++] = w[i];
    if (s->modrm_at)
        q[n++] = modrm < 0xc0 ? modrm & 0x38 : modrm;
    memset(q + n, 0, sizeof q - n);
    if (s->modrm_at && modrm >= 0xc0)
        memcpy(q + n, w + s->modrm_at + 1, length - s->modrm_at - 1);
    return ask(q, 15, &id) != 0;
}

/* EVEX opcodes whose ModRM.reg names a mask register. */
static int writes_mask(int map, int op, int pp)
{
    if (map == 1)
        return op == 0xc2 || (pp == 1 && ((op >= 0x64 && op <= 0x66) || (op >= 0x74 && op <= 0x76)));
    if (map == 2)
        return op == 0x26 || op == 0x27 || op == 0x29 || (op == 0x37 && pp == 1) || (op == 0x39 && pp == 2) ||
               (op == 0x8f && pp == 1) || op == 0x68;
    return map == 3 && (op == 0x1e || op == 0x1f || op == 0x3e || op == 0x3f || op == 0x66 || op == 0x67);
}

/* Gathers and scatters: registers that must differ, a mask that must not be k0. */
static int vector_memory_rule(const uint8_t *w, const shape *s, int modrm)
{
    int gather = s->op >= 0x90 && s->op <= 0x93, scatter = s->op >= 0xa0 && s->op <= 0xa3;
    if (s->map != 2 || s->vex == 1 || !(gather || scatter))
        return T_NONE;
    if (s->evex && !(s->p2 & 7))
        return T_GATHER;
    if (!gather)
        return T_NONE;
    int index = (w[s->modrm_at + 1] >> 3) & 7, to = (modrm >> 3) & 7;
    if (bits == 64) {
        index |= s->p0 & 0x40 ? 0 : 8;
        to |= s->p0 & 0x80 ? 0 : 8;
    }
    if (!s->evex) {
        int mask = (s->p1 >> 3 & 15) ^ 15;
        if (bits == 32)
            mask &= 7;
        return index == to || index == mask || to == mask ? T_GATHER : T_NONE;
    }
    if (bits == 64) {
        index |= s->p2 & 8 ? 0 : 16;
        to |= s->p0 & 0x10 ? 0 : 16;
    }
    return index == to || (s->p2 & 0x80) ? T_GATHER : T_NONE;
}

static int broken_evex_rule(const shape *s, int modrm)
{
    int mem = modrm < 0xc0;
    if ((s->p2 & 0x60) == 0x60 && (mem || !(s->p2 & 0x10)))
        return T_EVEX_LENGTH;
    if ((s->p2 & 0x80) && !(s->p2 & 7))
        return T_EVEX_ZERO_K0;
    if (bits == 32 && !(s->p2 & 8))
        return T_EVEX_FIELDS;
    if (bits == 64 && writes_mask(s->map, s->op, s->p1 & 3) && (s->p0 & 0x90) != 0x90)
        return T_EVEX_FIELDS;
    return T_NONE;
}

/* The rule that an instruction capstone takes breaks, or T_NONE. */
static int broken_rule(const uint8_t *w, int length, const shape *s, int id)
{
    int modrm = s->modrm_at && s->modrm_at < length ? w[s->modrm_at] : 0;
    int mod = modrm >> 6, reg = (modrm >> 3) & 7, rule;
    if (s->vex) {
        if (s->wide || s->rep || s->lock || s->rex)
            return T_PREFIX_BEFORE_VEX;
        if (!s->evex && s->map == 3 && (s->op == 0x48 || s->op == 0x49)) /* vpermil2ps and vpermil2pd, of XOP */
            return T_XOP;
        if (s->evex && s->map == 2 && (s->op == 0xc6 || s->op == 0xc7))
            return T_OBSOLETE;
        if (s->evex && (rule = broken_evex_rule(s, modrm)))
            return rule;
        return vector_memory_rule(w, s, modrm);
    }
    if (s->map == 0 && s->op == 0x8f && reg)
        return T_XOP;
    if (s->map == 1 && (s->op == 0x0f || s->op == 0x0e))
        return T_3DNOW;
    if (s->map == 1 && (s->op == 0xff || s->op == 0xb9))
        return T_UD01;
    if (classes[id & 8191] == L_REFUSED)
        return T_OBSOLETE;
    if (s->lock && (mod == 3 || !s->modrm_at || !lockable(s->map, s->op, reg)))
        return T_LOCK;
    if (s->wide && is_relative(w, s) && !(s->rex & 8))
        return T_BRANCH_16;
    if (s->map == 0 && s->op == 0x8e && reg == 1)
        return T_SEGMENT_REGISTER;
    if (s->map == 1 && s->op >= 0x20 && s->op <= 0x23) {
        if (s->rex & 4 ? s->op & 1 || reg : !(s->op & 1) && (reg == 1 || reg > 4))
            return T_SYSTEM_REGISTER;
    }
    if (s->map && (!prefix_is_defined(s, modrm) || !stands_alone(w, length, s, modrm)))
        return T_MANDATORY;
    return T_NONE;
}
