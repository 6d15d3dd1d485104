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
#define MOST(a) _mm512_reduce_max_ps(a)
#define HALVES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define BRAINS(p) \
    _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(p))), 16))
#define BYTES(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))
#define STORE_HALVES(p, a) _mm256_storeu_si256((__m256i *)(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT))
#define LARGE_TILE 1
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
#define BRAINS(p) \
    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p))), 16))
#define BYTES(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p))))
#define STORE_HALVES(p, a) _mm_storeu_si128((__m128i *)(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT))
static inline float NAME(sum)(__m256 a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}
#define SUM(a) NAME(sum)(a)
static inline float NAME(most)(__m256 a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
#define MOST(a) NAME(most)(a)
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
#define MOST(a) (a)
#define BYTES(p) ((float)*(p))
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

/* ROWS x COUNT vectors of outputs at once, the sums in the order of the inputs: y[r] = w x[r]. w is a block,
   [width][BLOCK]; with scales, one an output, the sums are of whole numbers times x. */
#define TILE(ROWS, COUNT, TYPE, READ)                                                                             \
    do {                                                                                                          \
        const TYPE *weight = weights;                                                                             \
        VEC sums[ROWS][COUNT];                                                                                    \
        for (int r = 0; r < ROWS; r++)                                                                            \
            for (int c = 0; c < COUNT; c++) sums[r][c] = bias && !scale ? LOAD(bias + c * LANES) : SPLAT(0.0f);   \
        for (int64_t i = 0; i < width; i++) {                                                                     \
            VEC ws[COUNT];                                                                                        \
            for (int c = 0; c < COUNT; c++) ws[c] = READ(weight + i * BLOCK + c * LANES);                         \
            for (int r = 0; r < ROWS; r++) {                                                                      \
                const VEC one = SPLAT(x[r * x_stride + i]);                                                       \
                for (int c = 0; c < COUNT; c++) sums[r][c] = FMA(ws[c], one, sums[r][c]);                         \
            }                                                                                                     \
        }                                                                                                         \
        if (scale)                                                                                                \
            for (int r = 0; r < ROWS; r++)                                                                        \
                for (int c = 0; c < COUNT; c++)                                                                   \
                    sums[r][c] = FMA(sums[r][c], LOAD(scale + c * LANES),                                         \
                                     bias ? LOAD(bias + c * LANES) : SPLAT(0.0f));                                \
        for (int r = 0; r < ROWS; r++)                                                                            \
            for (int c = 0; c < COUNT; c++) STORE(y + r * y_stride + c * LANES, sums[r][c]);                      \
    } while (0)

#define PARAMETERS                                                                                                \
    float *restrict y, int64_t y_stride, const float *restrict x, int64_t x_stride, const void *restrict weights, \
        int64_t width, const float *bias, const float *scale

typedef void NAME(tile_fn)(PARAMETERS);

#define TILES(SUFFIX, TYPE, READ)                                                             \
    static void NAME(JOIN(one_row, SUFFIX))(PARAMETERS) { TILE(1, 4, TYPE, READ); }           \
    static void NAME(JOIN(rows, SUFFIX))(PARAMETERS) { TILE(ROW_TILE, VECTOR_TILE, TYPE, READ); }
TILES(float, float, LOAD)
TILES(int8, int8_t, BYTES)
#ifdef HALVES
TILES(half, uint16_t, HALVES)
TILES(brain, uint16_t, BRAINS)
#endif
#ifdef LARGE_TILE /* 32 registers: widening a weight serves eight rows */
static void NAME(many_rows_float)(PARAMETERS) { TILE(8, 2, float, LOAD); }
static void NAME(many_rows_int8)(PARAMETERS) { TILE(8, 2, int8_t, BYTES); }
static void NAME(many_rows_half)(PARAMETERS) { TILE(8, 2, uint16_t, HALVES); }
static void NAME(many_rows_brain)(PARAMETERS) { TILE(8, 2, uint16_t, BRAINS); }
#endif

/* Blocks [first, last) of BLOCK outputs of y = w x + bias for n rows. */
static void NAME(outputs)(float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t n, const linear_t *l,
                          int64_t first, int64_t last) {
    /* Rows at once, and vectors of outputs, from the largest tile to the least; a function for each kind of weights. */
#ifdef HALVES
#define KINDS(a) {NAME(JOIN(a, float)), NAME(JOIN(a, half)), NAME(JOIN(a, brain)), NAME(JOIN(a, int8))}
#else
#define KINDS(a) {NAME(JOIN(a, float)), 0, 0, NAME(JOIN(a, int8))}
#endif
    static const struct {
        NAME(tile_fn) * functions[4];
        int64_t rows, vectors;
    } tiles[] = {
#ifdef LARGE_TILE
        {KINDS(many_rows), 8, 2},
#endif
        {KINDS(rows), ROW_TILE, VECTOR_TILE}, {KINDS(one_row), 1, 4}};
    const int64_t width = l->in, bytes = bytes_of[l->kind];
    for (int64_t block = first; block < last; block++) {
        int64_t r = 0;
        for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++)
            for (; r + tiles[i].rows <= n; r += tiles[i].rows)
                for (int64_t o = 0; o < BLOCK; o += tiles[i].vectors * LANES)
                    tiles[i].functions[l->kind](
                        y + r * y_stride + block * BLOCK + o, y_stride, x + r * x_stride, x_stride,
                        (const char *)l->weights + (block * BLOCK * width + o) * bytes, width,
                        l->bias ? l->bias + block * BLOCK + o : 0, l->scale ? l->scale + block * BLOCK + o : 0);
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

/* The two halves of a head are the members of the pairs. */
static void NAME(rotate)(float *restrict x, const float *restrict cosines, const float *restrict sines, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

/* x times the logistic function of it: with e = exp(-|x|), 1 / (1 + e) above 0 and e / (1 + e) below. */
static inline VEC NAME(silu)(VEC x) {
    const VEC e = NAME(exponential)(MIN(x, MUL(x, SPLAT(-1.0f))));
    return DIV(POSITIVE(x, x, MUL(x, e)), ADD(SPLAT(1.0f), e));
}

/* gate = silu(gate) * raised; both have room up to a multiple of BLOCK. */
static void NAME(swiglu)(float *gate, const float *raised, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) STORE(gate + i, MUL(NAME(silu)(LOAD(gate + i)), LOAD(raised + i)));
}

/* y = x + silu(y); both have room up to a multiple of BLOCK. */
static void NAME(residual_silu)(float *y, const float *x, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) STORE(y + i, ADD(LOAD(x + i), NAME(silu)(LOAD(y + i))));
}

/* w[i] = exp((x[i] - most) / temperature), for x <= most: 2^n times a Taylor polynomial, to double's last places;
   0 below what double can hold. */
static void NAME(weigh)(double *restrict w, const float *restrict x, double most, double temperature, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const double y = ((double)x[i] - most) / temperature, z = y < -700.0 ? -700.0 : y;
        const double shifted = z * 1.4426950408889634 + 6755399441055744.0, n = shifted - 6755399441055744.0;
        const double r = (z - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
        double p = 1.0 / 6227020800.0;
        p = p * r + 1.0 / 479001600.0;
        p = p * r + 1.0 / 39916800.0;
        p = p * r + 1.0 / 3628800.0;
        p = p * r + 1.0 / 362880.0;
        p = p * r + 1.0 / 40320.0;
        p = p * r + 1.0 / 5040.0;
        p = p * r + 1.0 / 720.0;
        p = p * r + 1.0 / 120.0;
        p = p * r + 1.0 / 24.0;
        p = p * r + 1.0 / 6.0;
        p = p * r + 0.5;
        p = p * r + 1.0;
        p = p * r + 1.0;
        union { double number; uint64_t bits; } whole = {shifted}, power;
        power.bits = (whole.bits + 1023) << 52;
        w[i] = y < -700.0 ? 0.0 : p * power.number;
    }
}

#include "attention.h"
#include "whole.h"

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
#undef MOST
#undef HALVES
#undef BRAINS
#undef BYTES
#undef TILES
#undef KINDS
#undef VEC
#undef TILE
#undef LARGE_TILE
#undef LANES
#undef NAME
