/* Strings to compare a table on: random, structured, and around the table's own states. */

static uint64_t random_state;

static uint32_t draw(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

static int any_of(const uint8_t *list, int count) { return list[draw() % count]; }

static const uint8_t PREFIXES[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf2, 0xf3, 0xf0, 0x67, 0x2e, 0x3e, 0x64, 0x65,
                                   0x26, 0x36};
static const uint8_t SPECIAL[] = {0x00, 0xff, 0x24, 0x25, 0x05, 0x04, 0x44, 0x84, 0xc0, 0xf8, 0x0d, 0x2c, 0x3d};

/* One string of 20 bytes: prefixes in any or canonical order, then an opcode of some map, then the rest. */
static void structured(uint8_t *out)
{
    int n = 0, many = draw() & 7, i;
    if (many > 3)
        many = many == 7 ? (int)(draw() % 7) : 0;
    for (i = 0; i < many; i++)
        out[n++] = bits == 64 && !(draw() & 7) ? 0x40 | (draw() & 15) : any_of(PREFIXES, sizeof PREFIXES);
    if (bits == 64 && (draw() & 1))
        out[n++] = 0x40 | (draw() & 15);
    if (!(draw() & 15)) { /* a gather or scatter, whose registers must differ */
        if (draw() & 1) {
            out[n++] = 0xc4;
            out[n++] = (draw() & 0xe0) | 2;
            out[n++] = (draw() & 0xfc) | 1;
        } else {
            out[n++] = 0x62;
            out[n++] = (draw() & 0xf0) | 2;
            out[n++] = (draw() & 0x80) | 0x7d;
            out[n++] = draw() & (draw() & 1 ? 0x6f : 0xff);
        }
        out[n++] = (draw() & 3 ? 0x90 : 0xa0) | (draw() & 3);
        out[n++] = (draw() & 0x78) | 4;
        while (n < 20)
            out[n++] = draw();
        return;
    }
    switch (draw() % 12) {
    case 0: case 1: case 2: break;
    case 3: case 4: out[n++] = 0x0f; break;
    case 5: out[n++] = 0x0f; out[n++] = 0x38; break;
    case 6: out[n++] = 0x0f; out[n++] = 0x3a; break;
    case 7: out[n++] = 0xc5; out[n++] = draw(); break;
    case 8: case 9:
        out[n++] = 0xc4;
        out[n++] = (draw() & 0xe0) | (draw() % 7 ? 1 + draw() % 3 : draw() & 31);
        out[n++] = draw() | (draw() & 1 ? 0x78 : 0);
        break;
    default:
        out[n++] = 0x62;
        out[n++] = draw() % 9 ? (draw() & 0xf0) | (1 + draw() % 3) : draw();
        out[n++] = draw() | (draw() % 9 ? 4 : 0) | (draw() & 1 ? 0x78 : 0);
        out[n++] = draw() | (draw() & 1 ? 8 : 0);
        if (draw() & 1)
            out[n - 1] &= 0x68 | (draw() & 0x97);
        if (draw() & 1) { /* many take no second register, no mask and no broadcast */
            out[n - 2] |= 0x78;
            out[n - 1] = (draw() & 0x60) | 8;
        }
    }
    out[n++] = draw();
    out[n++] = draw() & 3 ? draw() : any_of(SPECIAL, sizeof SPECIAL);
    while (n < 20)
        out[n++] = draw() % 3 ? draw() : any_of(SPECIAL, sizeof SPECIAL);
}

typedef struct {
    const uint16_t *next; /* [states][256]; accepting ids are base and up, base + label */
    const uint8_t *roles; /* [states][256] */
    int start, base;
} table;

/* Runs the table over w; returns the length (0: no instruction within n), the label, and all roles. */
static answer run_table(const table *t, const uint8_t *w, int n)
{
    answer a = {0, 0, 0, 0};
    int state = t->start;
    for (int i = 0; i < n; i++) {
        int at = state << 8 | w[i];
        if (i < 15)
            a.roles |= (uint64_t)t->roles[at] << 4 * i;
        state = t->next[at];
        if (!state)
            return a;
        if (state >= t->base) {
            a.length = i + 1;
            a.label = state - t->base;
            return a;
        }
    }
    return a;
}

static int differs(const table *t, const uint8_t *w)
{
    answer want = classify(w, 20, 0), have = run_table(t, w, 20);
    if (want.length > 15 || have.length > 15)
        return 0;
    return want.length != have.length || want.label != have.label || (want.length && want.roles != have.roles);
}

/* Draws `count` strings; writes up to `room` (20 bytes each) on which the table and `classify` differ.
 * Half of them start with one of the `known` strings (20 bytes each, their lengths apart). */
int differences(int count, uint64_t seed, const uint16_t *next, const uint8_t *roles, int start, int base,
                const uint8_t *known, const uint8_t *known_length, int known_count, uint8_t *out, int room)
{
    table t = {next, roles, start, base};
    int found = 0;
    random_state = seed * 2654435769u + 88172645463325252u;
    for (int i = 0; i < count && found < room; i++) {
        uint8_t w[24];
        structured(w);
        if (known_count && (draw() & 1)) {
            int k = draw() % known_count, n = known_length[k];
            uint8_t tail[24];
            memcpy(tail, w, 20);
            memcpy(w, known + 20 * k, n);
            w[n] = draw();
            int skip = draw() % 6;
            for (int j = n + 1; j < 20; j++)
                w[j] = tail[(j - n + skip) % 20];
        } else if (!(draw() & 7)) {
            for (int j = 0; j < 20; j++)
                w[j] = draw();
        }
        if (differs(&t, w))
            memcpy(out + 20 * found++, w, 20);
    }
    return found;
}

/* Goes through known string x byte x suffix (a test complete for one state more than the table has), from
 * combination *at on, and writes up to `room` strings that differ; *at is where it stopped. */
int sweep(uint64_t *at, uint64_t step, const uint16_t *next, const uint8_t *roles, int start, int base,
          const uint8_t *known, const uint8_t *known_length, int known_count, const uint8_t *suffixes,
          const uint8_t *suffix_length, int suffix_count, uint8_t *out, int room)
{
    table t = {next, roles, start, base};
    uint64_t all = (uint64_t)known_count * 256 * suffix_count;
    int found = 0;
    for (; *at < all && found < room; *at += step) {
        uint64_t rest = *at;
        int e = rest % suffix_count;
        rest /= suffix_count;
        int byte = rest & 255, k = (int)(rest >> 8), n = known_length[k], m = suffix_length[e];
        uint8_t w[24] = {0};
        memcpy(w, known + 20 * k, n);
        w[n] = byte;
        for (int j = 0; j < m && n + 1 + j < 20; j++)
            w[n + 1 + j] = suffixes[20 * e + j];
        if (differs(&t, w))
            memcpy(out + 20 * found++, w, 20);
    }
    return found;
}

typedef struct {
    uint64_t asked, accepted, broken; /* `broken`: neither agreed nor refused by a rule */
    uint64_t by_rule[T_COUNT];
    uint8_t first_broken[16 * 20];
} tally;

/* One string against capstone as it is. Returns capstone's length. */
static int compare_one(const table *t, const uint8_t *w, int n, tally *sum)
{
    int id, length = ask(w, n < 15 ? n : 15, &id);
    answer have = run_table(t, w, n < 15 ? n : 15);
    sum->asked++;
    sum->accepted += length != 0;
    if (length == have.length)
        return length;
    if (length && !have.length) {
        answer why = classify(w, n, 0);
        if (why.rule) {
            sum->by_rule[why.rule]++;
            return length;
        }
    }
    if (sum->broken < 16)
        memcpy(sum->first_broken + 20 * sum->broken, w, n < 20 ? n : 20);
    sum->broken++;
    return length;
}

/* Compares the table with capstone on `count` strings: structured, or plain random bytes. */
void agree_on_strings(uint64_t count, uint64_t seed, int plain, const uint16_t *next, const uint8_t *roles,
                      int start, int base, tally *sum)
{
    table t = {next, roles, start, base};
    random_state = seed * 2654435769u + 88172645463325252u;
    for (uint64_t i = 0; i < count; i++) {
        uint8_t w[24];
        if (plain)
            for (int j = 0; j < 16; j++)
                w[j] = draw();
        else
            structured(w);
        compare_one(&t, w, !plain && !(draw() & 7) ? 1 + (int)(draw() % 15) : 15, sum);
    }
}

/* Compares instruction by instruction through a section; after bytes capstone refuses it goes on one byte
 * further. Returns how many bytes belong to instructions both take. */
uint64_t agree_on_text(const uint8_t *text, uint64_t size, const uint16_t *next, const uint8_t *roles, int start,
                       int base, tally *sum)
{
    table t = {next, roles, start, base};
    uint64_t at = 0, shared = 0;
    while (at < size) {
        int n = size - at < 20 ? (int)(size - at) : 20;
        uint64_t before = sum->broken;
        for (int r = 0; r < T_COUNT; r++)
            before += sum->by_rule[r];
        int length = compare_one(&t, text + at, n, sum);
        for (int r = 0; r < T_COUNT; r++)
            before -= sum->by_rule[r];
        if (length && before == sum->broken)
            shared += length;
        at += length ? length : 1;
    }
    return shared;
}
