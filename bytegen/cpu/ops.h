/* Vector operations of the decoder, once for every instruction set: included several times with NAME, LANES and the
   macros of a vector set. Whatever the number of rows, each output is one sum in one order, so that what a token gives
   does not depend on the tokens beside it. */

#if LANES == 16
typedef __m512 NAME(vec);
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, a) _mm512_storeu_ps(p, a)
#define SPLAT(a) _mm512_set1_ps(a)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
#define MUL(a, b) _mm512_mul_ps(a, b)
#define MAX(a, b) _mm512_max_ps(a, b)
#define MIN(a, b) _mm512_min_ps(a, b)
#define DIV(a, b) _mm512_div_ps(a, b)
#define POSITIVE(x, a, b) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), b, a)
#define ROW_TILE 4
#define VECTOR_TILE 4
#define SUM(a) _mm512_reduce_add_ps(a)
#define HALVES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#elif LANES == 8
typedef __m256 NAME(vec);
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, a) _mm256_storeu_ps(p, a)
#define SPLAT(a) _mm256_set1_ps(a)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define MAX(a, b) _mm256_max_ps(a, b)
#define MIN(a, b) _mm256_min_ps(a, b)
#define DIV(a, b) _mm256_div_ps(a, b)
#define POSITIVE(x, a, b) _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ))
#define ROW_TILE 4
#define VECTOR_TILE 2
#define HALVES(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
static inline float NAME(sum)(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
#define SUM(a) NAME(sum)(a)
#else
typedef float NAME(vec);
#define LOAD(p) (*(p))
#define STORE(p, a) (*(p) = (a))
#define SPLAT(a) (a)
#define FMA(a, b, c) ((a) * (b) + (c))
#define ADD(a, b) ((a) + (b))
#define MUL(a, b) ((a) * (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define DIV(a, b) ((a) / (b))
#define POSITIVE(x, a, b) ((x) >= 0 ? (a) : (b))
#define ROW_TILE 4
#define VECTOR_TILE 4
#define SUM(a) (a)
#endif

#define VEC NAME(vec)

/* exp, for x <= 0 as softmax has it: 2^n times a polynomial, within 2 units in the last place of float32. */
static inline VEC NAME(exponential)(VEC x) {
#if LANES == 16
    x = MAX(x, SPLAT(-87.0f));
    VEC n = _mm512_roundscale_ps(MUL(x, SPLAT(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif LANES == 8
    x = MAX(x, SPLAT(-87.0f));
    VEC n = _mm256_round_ps(MUL(x, SPLAT(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    return expf(x);
#endif
#if LANES > 1
    VEC r = FMA(n, SPLAT(-0.693359375f), x);
    r = FMA(n, SPLAT(2.12194440e-4f), r);
    VEC p = SPLAT(1.9875691500e-4f);
    p = FMA(p, r, SPLAT(1.3981999507e-3f));
    p = FMA(p, r, SPLAT(8.3334519073e-3f));
    p = FMA(p, r, SPLAT(4.1665795894e-2f));
    p = FMA(p, r, SPLAT(1.6666665459e-1f));
    p = FMA(p, r, SPLAT(5.0000001201e-1f));
    p = ADD(FMA(p, MUL(r, r), r), SPLAT(1.0f));
#if LANES == 16
    return _mm512_scalef_ps(p, n);
#else
    __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return MUL(p, _mm256_castsi256_ps(bits));
#endif
#endif
}

/* ROWS x COUNT vectors of outputs at once, the sums in the order of the inputs: y[r] = w x[r]. w is a block, [width][BLOCK]. */
#define TILE(ROWS, COUNT, TYPE, READ)                                                                             \
    do {                                                                                                          \
        const TYPE *weight = weights;                                                                             \
        VEC sums[ROWS][COUNT];                                                                                    \
        for (int r = 0; r < ROWS; r++)                                                                            \
            for (int c = 0; c < COUNT; c++) sums[r][c] = bias ? LOAD(bias + c * LANES) : SPLAT(0.0f);             \
        for (int64_t i = 0; i < width; i++) {                                                                     \
            VEC ws[COUNT];                                                                                        \
            for (int c = 0; c < COUNT; c++) ws[c] = READ(weight + i * BLOCK + c * LANES);                         \
            for (int r = 0; r < ROWS; r++) {                                                                      \
                const VEC one = SPLAT(x[r * x_stride + i]);                                                       \
                for (int c = 0; c < COUNT; c++) sums[r][c] = FMA(ws[c], one, sums[r][c]);                         \
            }                                                                                                     \
        }                                                                                                         \
        for (int r = 0; r < ROWS; r++)                                                                            \
            for (int c = 0; c < COUNT; c++) STORE(y + r * y_stride + c * LANES, sums[r][c]);                      \
    } while (0)

#define PARAMETERS                                                                                                \
    float *restrict y, int64_t y_stride, const float *restrict x, int64_t x_stride, const void *restrict weights, \
        int64_t width, const float *bias

static void NAME(one_row)(PARAMETERS) { TILE(1, 4, float, LOAD); }
static void NAME(rows)(PARAMETERS) { TILE(ROW_TILE, VECTOR_TILE, float, LOAD); }
#ifdef HALVES
static void NAME(one_row_half)(PARAMETERS) { TILE(1, 4, uint16_t, HALVES); }
static void NAME(rows_half)(PARAMETERS) { TILE(ROW_TILE, VECTOR_TILE, uint16_t, HALVES); }
#endif

/* Blocks [first, last) of BLOCK outputs of y = w x + bias for n rows; w is float32, or float16 where `half`. */
static void NAME(outputs)(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t n, const void *weights,
                          int half, int64_t width, const float *bias, int64_t first, int64_t last) {
    void (*one)(PARAMETERS) = NAME(one_row), (*many)(PARAMETERS) = NAME(rows);
    const int64_t bytes = half ? 2 : 4;
#ifdef HALVES
    if (half) one = NAME(one_row_half), many = NAME(rows_half);
#endif
    for (int64_t block = first; block < last; block++) {
        int64_t r = 0;
        for (; r + ROW_TILE <= n; r += ROW_TILE)
            for (int64_t o = 0; o < BLOCK; o += VECTOR_TILE * LANES)
                many(y + r * y_stride + block * BLOCK + o, y_stride, x + r * x_stride, x_stride,
                     (const char *)weights + (block * BLOCK * width + o) * bytes, width,
                     bias ? bias + block * BLOCK + o : 0);
        for (; r < n; r++)
            for (int64_t o = 0; o < BLOCK; o += 4 * LANES)
                one(y + r * y_stride + block * BLOCK + o, y_stride, x + r * x_stride, x_stride,
                    (const char *)weights + (block * BLOCK * width + o) * bytes, width,
                    bias ? bias + block * BLOCK + o : 0);
    }
}

/* y = x / root mean square * weight. The squares are summed by lanes. */
static void NAME(norm)(float *y, const float *x, const float *weight, int64_t size, float eps) {
    float sum = 0.0f;
    int64_t i = 0;
    VEC squares = SPLAT(0.0f);
    for (; i + LANES <= size; i += LANES) squares = FMA(LOAD(x + i), LOAD(x + i), squares);
    sum = SUM(squares);
    for (; i < size; i++) sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(sum / (float)size + eps);
    for (i = 0; i < size; i++) y[i] = x[i] * scale * weight[i];
}

/* y += a * x */
static void NAME(add)(float *restrict y, const float *restrict x, const float *restrict a, int64_t size) {
    if (a)
        for (int64_t i = 0; i < size; i++) y[i] += x[i] * a[i];
    else
        for (int64_t i = 0; i < size; i++) y[i] += x[i];
}

/* gate = silu(gate) * raised; both have room up to a multiple of BLOCK. */
static void NAME(swiglu)(float *gate, const float *raised, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        const VEC x = LOAD(gate + i), negative = MIN(x, MUL(x, SPLAT(-1.0f)));
        /* e = exp(-|x|); the logistic function is 1 / (1 + e) above 0 and e / (1 + e) below. */
        const VEC e = NAME(exponential)(negative), one = SPLAT(1.0f);
        const VEC above = DIV(one, ADD(one, e)), below = DIV(e, ADD(one, e));
        STORE(gate + i, MUL(MUL(x, POSITIVE(x, above, below)), LOAD(raised + i)));
    }
}

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

/* scores[low, high) = scale * query . key, of the keys at `keys + offset[i]`, and -inf up to whole vectors on either side;
   their maximum. */
static float NAME(scores)(float *scores, const float *query, const float *keys, const int64_t *offset, int64_t low,
                          int64_t high, int64_t size, float scale) {
    const int64_t even = size / LANES * LANES;
    VEC most = SPLAT(-INFINITY);
    for (int64_t i = low / LANES * LANES; i < high; i += LANES) {
        VEC parts[LANES];
        for (int64_t k = 0; k < LANES; k++) {
            const float *key = keys + offset[i + k];
            VEC sum = SPLAT(0.0f);
            int64_t j = 0;
            for (; j + 4 * LANES <= even; j += 4 * LANES)
                for (int c = 0; c < 4; c++) sum = FMA(LOAD(key + j + c * LANES), LOAD(query + j + c * LANES), sum);
            for (; j < even; j += LANES) sum = FMA(LOAD(key + j), LOAD(query + j), sum);
            parts[k] = sum;
        }
        STORE(scores + i, NAME(sums)(parts));
        if (even < size)
            for (int64_t k = 0; k < LANES; k++)
                for (int64_t j = even; j < size; j++) scores[i + k] += keys[offset[i + k] + j] * query[j];
        STORE(scores + i, MUL(LOAD(scores + i), SPLAT(scale)));
        for (int64_t k = i; k < low; k++) scores[k] = -INFINITY;
        for (int64_t k = high; k < i + LANES; k++) scores[k] = -INFINITY;
        most = MAX(most, LOAD(scores + i));
    }
    float lanes[LANES], best = -INFINITY;
    STORE(lanes, most);
    for (int64_t k = 0; k < LANES; k++) best = lanes[k] > best ? lanes[k] : best;
    return best;
}

/* COUNT vectors of out = out * kept + the values weighed. Even and odd keys are summed apart: two chains of additions
   wait half as long for each other. */
#define WEIGH(COUNT)                                                                                              \
    do {                                                                                                          \
        VEC sums[2][COUNT];                                                                                       \
        for (int c = 0; c < COUNT; c++) sums[0][c] = MUL(LOAD(to + c * LANES), kept), sums[1][c] = SPLAT(0.0f);   \
        int64_t i = low;                                                                                          \
        if (i & 1) {                                                                                              \
            for (int c = 0; c < COUNT; c++)                                                                       \
                sums[1][c] = FMA(LOAD(from + offset[i] + c * LANES), SPLAT(weights[i]), sums[1][c]);              \
            i++;                                                                                                  \
        }                                                                                                         \
        for (; i + 1 < high; i += 2)                                                                              \
            for (int o = 0; o < 2; o++)                                                                           \
                for (int c = 0; c < COUNT; c++)                                                                   \
                    sums[o][c] = FMA(LOAD(from + offset[i + o] + c * LANES), SPLAT(weights[i + o]), sums[o][c]);  \
        if (i < high)                                                                                             \
            for (int c = 0; c < COUNT; c++)                                                                       \
                sums[0][c] = FMA(LOAD(from + offset[i] + c * LANES), SPLAT(weights[i]), sums[0][c]);              \
        for (int c = 0; c < COUNT; c++) STORE(to + c * LANES, ADD(sums[0][c], sums[1][c]));                       \
    } while (0)

static void NAME(weigh)(float *out, const float *values, const int64_t *offset, const float *weights, int64_t low,
                        int64_t high, int64_t size, float keep) {
    const VEC kept = SPLAT(keep);
    int64_t j = 0;
    for (; j + 4 * LANES <= size; j += 4 * LANES) {
        float *to = out + j;
        const float *from = values + j;
        WEIGH(4);
    }
    for (; j + LANES <= size; j += LANES) {
        float *to = out + j;
        const float *from = values + j;
        WEIGH(1);
    }
    for (; j < size; j++) {
        float sum = out[j] * keep;
        for (int64_t i = low; i < high; i++) sum += values[offset[i] + j] * weights[i];
        out[j] = sum;
    }
}

/* Tokens of one sequence and the `group` heads of each that share a key head, against the keys of a ring [capacity] with
   `stride` between them; `state` has room for two numbers a head. Keys are taken KEYS at a time, which all the tokens read while they are at hand;
   the softmax is corrected as greater scores come (Milakov and Gimelshein 2018). The KEYS begin at multiples of KEYS, so
   that the sums of a token do not depend on the tokens beside it. */
static void NAME(attend)(float *out, const float *query, int64_t between, const float *keys, const float *values,
                         int64_t tokens, const int64_t *positions, int64_t group, int64_t stride, int64_t capacity,
                         int64_t window, int64_t size, float scale, float *state) {
    const int64_t heads = tokens * group;
    float weights[KEYS], *most = state, *total = state + heads;
    int64_t offset[KEYS], begin = positions[0] - window + 1;
    for (int64_t i = 0; i < heads; i++) {
        most[i] = -INFINITY, total[i] = 0.0f;
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] = 0.0f;
    }
    if (!window || begin < 0) begin = 0;
    for (int64_t base = begin / KEYS * KEYS; base <= positions[tokens - 1]; base += KEYS) {
        int64_t slot = base % capacity;
        for (int64_t i = 0; i < KEYS; i++) {
            offset[i] = slot * stride;
            if (++slot == capacity) slot = 0;
        }
        for (int64_t i = 0; i < heads; i++) {
            const int64_t last = positions[i / group], first = window && last >= window ? last - window + 1 : 0;
            const int64_t low = first > base ? first - base : 0, high = last - base < KEYS ? last - base + 1 : KEYS;
            if (low >= high) continue;
            const int64_t place = i / group * between + i % group * size;
            const float best = NAME(scores)(weights, query + place, keys, offset, low, high, size, scale);
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
            NAME(weigh)(out + place, values, offset, weights, low, high, size, keep[0]);
        }
    }
    for (int64_t i = 0; i < heads; i++)
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] /= total[i];
}

#undef LOAD
#undef STORE
#undef SPLAT
#undef FMA
#undef ADD
#undef MUL
#undef MAX
#undef MIN
#undef DIV
#undef POSITIVE
#undef ROW_TILE
#undef VECTOR_TILE
#undef PARAMETERS
#undef SUM
#undef HALVES
#undef VEC
#undef TILE
#undef WEIGH
#undef LANES
#undef NAME
