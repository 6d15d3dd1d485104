/* Attention of one token over a ring, for every instruction set: included by ops.h, whose macros it uses. Whatever is
   computed beside it, each score and each output is one sum in one order. */

/* Keys and values are float32, or float16 where `half`; ONE reads one of them. */
#ifdef HALVES
static inline float NAME(one_half)(const uint16_t *p) { return _cvtsh_ss(*p); }

/* Rounded to float16, what is out of its range to the nearest that is in it. */
static void NAME(to_half)(uint16_t *restrict to, const float *restrict from, int64_t size) {
    const VEC high = SPLAT(65504.0f), low = SPLAT(-65504.0f);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) STORE_HALVES(to + i, MAX(MIN(LOAD(from + i), high), low));
    for (; i < size; i++) to[i] = _cvtss_sh(fmaxf(fminf(from[i], 65504.0f), -65504.0f), _MM_FROUND_TO_NEAREST_INT);
}
#endif
#define ONE_FLOAT(p) (*(p))

/* scores[i] = scale * key[i] . query: by lanes, then over the lanes, then what is left over. VECTORS of LANES a key. */
#define SCORED(TYPE, READ, ONE, VECTORS)                                                                          \
    do {                                                                                                          \
        const TYPE *key = keys;                                                                                   \
        for (int64_t i = 0; i < count; i++, key += size) {                                                        \
            AHEAD(key, size);                                                                                     \
            VEC sum = SPLAT(0.0f);                                                                                \
            for (int64_t j = 0; j < (VECTORS); j++) sum = FMA(READ(key + j * LANES), LOAD(query + j * LANES), sum); \
            float score = SUM(sum);                                                                               \
            for (int64_t j = (VECTORS) * LANES; j < size; j++) score += ONE(key + j) * query[j];                  \
            scores[i] = score * scale;                                                                            \
        }                                                                                                         \
    } while (0)

static void NAME(scored)(float *restrict scores, const float *restrict query, const void *restrict keys, int half,
                         int64_t count, int64_t size, float scale) {
    const int64_t vectors = size / LANES;
#ifdef HALVES
    if (half && size == 64) {
        SCORED(uint16_t, HALVES, NAME(one_half), 64 / LANES);
        return;
    }
    if (half) {
        SCORED(uint16_t, HALVES, NAME(one_half), vectors);
        return;
    }
#endif
    (void)half;
    SCORED(float, LOAD, ONE_FLOAT, vectors);
}

/* out += p[i] * value[i], COUNT vectors of the values at once: their sums stay in registers. */
#define WEIGHTED(COUNT, READ)                                                                                     \
    do {                                                                                                          \
        VEC sums[COUNT];                                                                                          \
        for (int c = 0; c < COUNT; c++) sums[c] = LOAD(out + at + c * LANES);                                     \
        for (int64_t i = 0; i < count; i++) {                                                                     \
            AHEAD(value + i * size + at, COUNT * LANES);                                                          \
            for (int c = 0; c < COUNT; c++)                                                                       \
                sums[c] = FMA(READ(value + i * size + at + c * LANES), SPLAT(p[i]), sums[c]);                     \
        }                                                                                                         \
        for (int c = 0; c < COUNT; c++) STORE(out + at + c * LANES, sums[c]);                                     \
    } while (0)

#define ALL_WEIGHTED(TYPE, READ, ONE)                                                                             \
    do {                                                                                                          \
        const TYPE *value = values;                                                                               \
        int64_t at = 0;                                                                                           \
        for (; at + 4 * LANES <= size; at += 4 * LANES) WEIGHTED(4, READ);                                        \
        for (; at + LANES <= size; at += LANES) WEIGHTED(1, READ);                                                \
        for (; at < size; at++)                                                                                   \
            for (int64_t i = 0; i < count; i++) out[at] += ONE(value + i * size + at) * p[i];                     \
    } while (0)

static void NAME(weighted)(float *restrict out, const float *restrict p, const void *restrict values, int half,
                           int64_t count, int64_t size) {
#ifdef HALVES
    if (half) {
        ALL_WEIGHTED(uint16_t, HALVES, NAME(one_half));
        return;
    }
#endif
    (void)half;
    ALL_WEIGHTED(float, LOAD, ONE_FLOAT);
}

/* softmax in place; there is room up to a multiple of LANES. */
static void NAME(softmax)(float *x, int64_t count) {
    float most = -INFINITY;
    for (int64_t i = 0; i < count; i++) most = x[i] > most ? x[i] : most;
    for (int64_t i = count; i % LANES; i++) x[i] = -INFINITY;
    VEC sums = SPLAT(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        const VEC e = NAME(exponential)(ADD(LOAD(x + i), SPLAT(-most)));
        STORE(x + i, e);
        sums = ADD(sums, e);
    }
    const VEC share = SPLAT(1.0f / SUM(sums));
    for (int64_t i = 0; i < count; i += LANES) STORE(x + i, MUL(LOAD(x + i), share));
}

/* `heads` queries, `group` of them to a key head, against the keys at positions [first, last] of a ring [kv_heads,
   capacity, size]; `scores` has room for `room` a head. Keys and values are read in the order in which they lie, a piece
   by all queries of its head before the next piece. */
static void NAME(attend)(float *out, const float *query, const void *keys, const void *values, int half, int64_t heads,
                         int64_t group, int64_t capacity, int64_t first, int64_t last, int64_t size, float scale,
                         float *scores, int64_t room) {
    const int64_t count = last - first + 1, begin = first % capacity, width = half ? 2 : 4;
    const int64_t longest = group > 1 ? PIECE : count;
    for (int64_t h = 0; h < heads; h += group) {
        const char *head = (const char *)keys + h / group * capacity * size * width;
        for (int64_t i = 0, slot = begin, run; i < count; i += run, slot = slot + run == capacity ? 0 : slot + run) {
            run = least(longest, least(count - i, capacity - slot));
            for (int64_t k = h; k < h + group; k++)
                NAME(scored)(scores + k * room + i, query + k * size, head + slot * size * width, half, run, size, scale);
        }
    }
    for (int64_t h = 0; h < heads; h++) NAME(softmax)(scores + h * room, count);
    for (int64_t j = 0; j < heads * size; j++) out[j] = 0.0f;
    for (int64_t h = 0; h < heads; h += group) {
        const char *head = (const char *)values + h / group * capacity * size * width;
        for (int64_t i = 0, slot = begin, run; i < count; i += run, slot = slot + run == capacity ? 0 : slot + run) {
            run = least(longest, least(count - i, capacity - slot));
            for (int64_t k = h; k < h + group; k++)
                NAME(weighted)(out + k * size, scores + k * room + i, head + slot * size * width, half, run, size);
        }
    }
}

#undef STORE_HALVES
#undef ONE_FLOAT
#undef SCORED
#undef WEIGHTED
#undef ALL_WEIGHTED
