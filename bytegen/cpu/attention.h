/* Attention over a ring, for every instruction set: included by ops.h, whose macros it uses. Whatever is computed beside
   it, each score and each output of a token is one sum in one order. */

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

/* Lane i is the sum of v[i], the lanes of each added pairwise in one order. */
static inline VEC NAME(sums)(VEC *v) {
#if LANES == 16
#define PAIR(a, b) ADD(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD))
#define FOUR(a, b) ADD(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD))
    for (int i = 0; i < 16; i += 2) v[i / 2] = PAIR(v[i], v[i + 1]);
    for (int i = 0; i < 8; i += 2) v[i / 2] = PAIR(v[i], v[i + 1]);
    return FOUR(FOUR(v[0], v[1]), FOUR(v[2], v[3]));
#undef FOUR
#undef PAIR
#elif LANES == 8
#define PAIR(a, b) ADD(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xDD))
    for (int i = 0; i < 8; i += 2) v[i / 2] = PAIR(v[i], v[i + 1]);
    v[0] = PAIR(v[0], v[1]), v[1] = PAIR(v[2], v[3]);
    return ADD(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31));
#undef PAIR
#else
    return v[0];
#endif
}

/* scores[low, high) = scale * query . key, of the keys at slot[i], and -inf up to whole vectors on either side; their
   maximum. */
#define SCORES(TYPE, READ, ONE)                                                                                   \
    do {                                                                                                          \
        const int64_t even = size / LANES * LANES;                                                                \
        VEC most = SPLAT(-INFINITY);                                                                              \
        for (int64_t i = low / LANES * LANES; i < high; i += LANES) {                                             \
            VEC parts[LANES];                                                                                     \
            for (int64_t k = 0; k < LANES; k++) {                                                                 \
                const TYPE *key = (const TYPE *)keys + slot[i + k] * size;                                        \
                AHEAD(key, size);                                                                                 \
                VEC sum = SPLAT(0.0f);                                                                            \
                int64_t j = 0;                                                                                    \
                for (; j + 4 * LANES <= even; j += 4 * LANES)                                                     \
                    for (int c = 0; c < 4; c++) sum = FMA(READ(key + j + c * LANES), LOAD(query + j + c * LANES), sum); \
                for (; j < even; j += LANES) sum = FMA(READ(key + j), LOAD(query + j), sum);                      \
                parts[k] = sum;                                                                                   \
            }                                                                                                     \
            STORE(scores + i, NAME(sums)(parts));                                                                 \
            if (even < size)                                                                                      \
                for (int64_t k = 0; k < LANES; k++)                                                               \
                    for (int64_t j = even; j < size; j++)                                                         \
                        scores[i + k] += ONE((const TYPE *)keys + slot[i + k] * size + j) * query[j];             \
            STORE(scores + i, MUL(LOAD(scores + i), SPLAT(scale)));                                               \
            for (int64_t k = i; k < low; k++) scores[k] = -INFINITY;                                              \
            for (int64_t k = high; k < i + LANES; k++) scores[k] = -INFINITY;                                     \
            most = MAX(most, LOAD(scores + i));                                                                   \
        }                                                                                                         \
        float lanes[LANES], best = -INFINITY;                                                                     \
        STORE(lanes, most);                                                                                       \
        for (int64_t k = 0; k < LANES; k++) best = lanes[k] > best ? lanes[k] : best;                             \
        return best;                                                                                              \
    } while (0)

static float NAME(scores)(float *scores, const float *query, const void *keys, int half, const int64_t *slot,
                          int64_t low, int64_t high, int64_t size, float scale) {
#ifdef HALVES
    if (half) SCORES(uint16_t, HALVES, NAME(one_half));
#endif
    (void)half;
    SCORES(float, LOAD, ONE_FLOAT);
}

/* COUNT vectors of out = out * keep + the values weighed. Even and odd keys are summed apart: two chains of additions
   wait half as long for each other. */
#define WEIGHTED(COUNT, READ)                                                                                     \
    do {                                                                                                          \
        VEC sums[2][COUNT];                                                                                       \
        for (int c = 0; c < COUNT; c++) sums[0][c] = MUL(LOAD(out + at + c * LANES), kept), sums[1][c] = SPLAT(0.0f); \
        int64_t i = low;                                                                                          \
        if (i & 1) {                                                                                              \
            for (int c = 0; c < COUNT; c++)                                                                       \
                sums[1][c] = FMA(READ(value + slot[i] * size + at + c * LANES), SPLAT(weights[i]), sums[1][c]);   \
            i++;                                                                                                  \
        }                                                                                                         \
        for (; i + 1 < high; i += 2)                                                                              \
            for (int o = 0; o < 2; o++) {                                                                         \
                AHEAD(value + slot[i + o] * size + at, COUNT * LANES);                                            \
                for (int c = 0; c < COUNT; c++)                                                                   \
                    sums[o][c] =                                                                                  \
                        FMA(READ(value + slot[i + o] * size + at + c * LANES), SPLAT(weights[i + o]), sums[o][c]); \
            }                                                                                                     \
        if (i < high)                                                                                             \
            for (int c = 0; c < COUNT; c++)                                                                       \
                sums[0][c] = FMA(READ(value + slot[i] * size + at + c * LANES), SPLAT(weights[i]), sums[0][c]);   \
        for (int c = 0; c < COUNT; c++) STORE(out + at + c * LANES, ADD(sums[0][c], sums[1][c]));                 \
    } while (0)

#define ALL_WEIGHTED(TYPE, READ, ONE)                                                                             \
    do {                                                                                                          \
        const TYPE *value = values;                                                                               \
        int64_t at = 0;                                                                                           \
        for (; at + 4 * LANES <= size; at += 4 * LANES) WEIGHTED(4, READ);                                        \
        for (; at + LANES <= size; at += LANES) WEIGHTED(1, READ);                                                \
        for (; at < size; at++) {                                                                                 \
            float sum = out[at] * keep;                                                                           \
            for (int64_t i = low; i < high; i++) sum += ONE(value + slot[i] * size + at) * weights[i];            \
            out[at] = sum;                                                                                        \
        }                                                                                                         \
    } while (0)

static void NAME(weighted)(float *restrict out, const void *restrict values, int half, const int64_t *restrict slot,
                           const float *restrict weights, int64_t low, int64_t high, int64_t size, float keep) {
    const VEC kept = SPLAT(keep);
#ifdef HALVES
    if (half) {
        ALL_WEIGHTED(uint16_t, HALVES, NAME(one_half));
        return;
    }
#endif
    (void)half;
    ALL_WEIGHTED(float, LOAD, ONE_FLOAT);
}

/* Tokens of one sequence and the `group` heads of each that share a key head, against the keys of a ring [capacity, size];
   `state` has room for two numbers a head. Keys are taken KEYS at a time, which all the tokens read while they are at
   hand; the softmax is corrected as greater scores come (Milakov and Gimelshein 2018). The KEYS begin at multiples of
   KEYS, so that the sums of a token do not depend on the tokens beside it. */
static void NAME(attend)(float *out, const float *query, int64_t between, const void *keys, const void *values,
                         int half, int64_t tokens, const int64_t *positions, int64_t group, int64_t capacity,
                         int64_t window, int64_t size, float scale, float *state) {
    const int64_t heads = tokens * group;
    float weights[KEYS], *most = state, *total = state + heads;
    int64_t slot[KEYS], begin = positions[0] - window + 1;
    for (int64_t i = 0; i < heads; i++) {
        most[i] = -INFINITY, total[i] = 0.0f;
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] = 0.0f;
    }
    if (!window || begin < 0) begin = 0;
    for (int64_t base = begin / KEYS * KEYS; base <= positions[tokens - 1]; base += KEYS) {
        int64_t at = base % capacity;
        for (int64_t i = 0; i < KEYS; i++) {
            slot[i] = at;
            if (++at == capacity) at = 0;
        }
        for (int64_t i = 0; i < heads; i++) {
            const int64_t last = positions[i / group], first = window && last >= window ? last - window + 1 : 0;
            const int64_t low = first > base ? first - base : 0, high = last - base < KEYS ? last - base + 1 : KEYS;
            if (low >= high) continue;
            const int64_t place = i / group * between + i % group * size;
            const float best = NAME(scores)(weights, query + place, keys, half, slot, low, high, size, scale);
            float keep[LANES];
            STORE(keep, SPLAT(1.0f));
            if (best > most[i]) {
                STORE(keep, NAME(exponential)(SPLAT(most[i] - best)));
                most[i] = best;
            }
            VEC sum = SPLAT(0.0f);
            for (int64_t k = low / LANES * LANES; k < high; k += LANES) {
                const VEC e = NAME(exponential)(ADD(LOAD(weights + k), SPLAT(-most[i])));
                STORE(weights + k, e);
                sum = ADD(sum, e);
            }
            total[i] = total[i] * keep[0] + SUM(sum);
            NAME(weighted)(out + place, values, half, slot, weights, low, high, size, keep[0]);
        }
    }
    for (int64_t i = 0; i < heads; i++)
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] /= total[i];
}

#undef STORE_HALVES
#undef ONE_FLOAT
#undef SCORES
#undef WEIGHTED
#undef ALL_WEIGHTED
