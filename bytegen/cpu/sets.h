/* What a step is given (`binding.py` has the same structures), and the operations of each instruction set. */

/* Kinds of weights, and their bytes. Those of INT8_DYNAMIC are multiplied with inputs that are rounded to int8 too. */
enum { FLOAT32, FLOAT16, BFLOAT16, INT8, INT8_DYNAMIC };
static const int64_t bytes_of[] = {4, 2, 2, 1, 1};

/* [blocks][in][BLOCK]: the weights of BLOCK outputs side by side, the last block filled up with zeros, as are bias, scale
   and sums. INT8_DYNAMIC: [blocks][fours of in][BLOCK][4], and `sums` are OFFSET times the sum of an output's weights. */
typedef struct {
    const void *weights;
    const float *bias, *scale; /* one an output, or none */
    const int32_t *sums;
    int64_t blocks, in, kind;
} linear_t;

/* Rings of one sequence and layer: [kv_heads, capacity, head_dim], in what the model's `cache_kind` says; and float32
   [conv_capacity, dim]. In int8 keys and values are together in `keys`: [kv_heads, capacity / KEYS] of `record_t`. */
typedef struct {
    void *keys, *values;
    float *conv;
    int64_t capacity, conv_capacity;
} ring_t;

/* KEYS positions of a head in int8, one behind the other in memory, whose head is filled up to `whole_size`: a scale a key
   and a value, OFFSET times the sum of each key, keys [fours of the head, KEYS, 4], values [blocks of the head,
   KEYS / 4, BLOCK or a smaller head, 4]. */
typedef struct {
    float *key_scale, *value_scale;
    int32_t *key_sums;
    int8_t *keys, *values;
} record_t;

enum { CACHE_FLOAT32, CACHE_FLOAT16, CACHE_INT8 };

#define LEAST 1e-30f /* largest number of a row, at least: scales stay in float32's range */
#define OFFSET 128 /* what makes a byte with a sign one without */

static int64_t whole_size(int64_t size) {
    const int64_t even = size < BLOCK ? 16 : BLOCK;
    return (size + even - 1) / even * even;
}

static int64_t record_bytes(int64_t wide) { return KEYS * (3 * 4 + 2 * wide); }

static inline record_t record_of(char *ring, int64_t place, int64_t wide) {
    char *at = ring + place / KEYS * record_bytes(wide);
    const record_t one = {(float *)at, (float *)at + KEYS, (int32_t *)at + 2 * KEYS, (int8_t *)at + 12 * KEYS,
                          (int8_t *)at + 12 * KEYS + KEYS * wide};
    return one;
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define VECTORS 1
#endif
#include "dots.h"

#ifdef VECTORS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,f16c")
#define NAME(a) JOIN(a, avx512)
#define LANES 16
#include "ops.h"
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define NAME(a) JOIN(a, avx2)
#define LANES 8
#include "ops.h"
#pragma GCC pop_options
#endif
#define NAME(a) JOIN(a, plain)
#define LANES 1
#include "ops.h"

typedef void outputs_fn(float *, int64_t, const float *, int64_t, int64_t, const linear_t *, int64_t, int64_t);
typedef void whole_outputs_fn(dots_fn *, float *, int64_t, const uint8_t *, int64_t, const float *, int64_t,
                              const linear_t *, int64_t, int64_t);
typedef float to_bytes_fn(uint8_t *restrict, const float *restrict, int64_t);
typedef void norm_fn(float *, const float *, const float *, int64_t, float);
typedef void add_fn(float *restrict, const float *restrict, const float *restrict, int64_t);
typedef void swiglu_fn(float *, const float *, int64_t);
typedef void residual_silu_fn(float *, const float *, int64_t);
typedef void attend_fn(float *, const float *, int64_t, const void *, const void *, int, int64_t, const int64_t *, int64_t,
                       int64_t, int64_t, int64_t, float, float *);
typedef void whole_attend_fn(dots_fn *, float *, const float *, int64_t, char *, int64_t, const int64_t *, int64_t, int64_t,
                             int64_t, int64_t, float, float *, const char *);
typedef void keep_bytes_fn(char *, int64_t, int64_t, const float *, const float *);
typedef void rotate_fn(float *restrict, const float *restrict, const float *restrict, int64_t);
typedef void to_half_fn(uint16_t *restrict, const float *restrict, int64_t);
typedef void weigh_fn(double *restrict, const float *restrict, double, double, int64_t);

typedef struct {
    linear_t q, k, v, o, gate, up, down;
    const float *attention_norm, *ffn_norm, *q_norm, *k_norm, *conv;
    int64_t window; /* 0: global */
} layer_t;

typedef struct {
    int64_t dim, layers, heads, kv_heads, head_dim, taps, cache_kind, lanes;
    float eps;
    const layer_t *layer;
    const float *embed, *norm, *inv_freq;
    linear_t head;
    const linear_t *mtp; /* multi-token prediction heads: see bytegen_ahead */
    int64_t mtp_heads;
} model_t;

typedef struct {
    int lanes;
    outputs_fn *outputs;
    norm_fn *norm;
    add_fn *add;
    swiglu_fn *swiglu;
    residual_silu_fn *residual_silu;
    attend_fn *attend;
    whole_outputs_fn *whole_outputs;
    whole_attend_fn *whole_attend;
    to_bytes_fn *to_bytes;
    keep_bytes_fn *keep_bytes;
    rotate_fn *rotate;
    dots_fn *dots;
    to_half_fn *to_half;
    weigh_fn *weigh;
} set_t;

#define SET(lanes, name, dots, to_half)                                                                           \
    {lanes, JOIN(outputs, name), JOIN(norm, name), JOIN(add, name), JOIN(swiglu, name), JOIN(residual_silu, name),  \
     JOIN(attend, name), JOIN(whole_outputs, name), JOIN(whole_attend, name), JOIN(to_bytes, name),                 \
     JOIN(keep_bytes, name), JOIN(rotate, name), dots, to_half, JOIN(weigh, name)}

static const set_t sets[] = {
#ifdef VECTORS
    SET(16, avx512, dots_vnni, to_half_avx512), SET(16, avx512, dots_avx2, to_half_avx512),
    SET(8, avx2, dots_avx2, to_half_avx2),
#endif
    SET(1, plain, dots_plain, 0)};

/* The widest set of at most so many lanes that this processor has. */
static const set_t *set_of(int64_t lanes) {
#ifdef VECTORS
    __builtin_cpu_init();
    if (lanes >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return __builtin_cpu_supports("avx512vnni") ? sets : sets + 1;
    if (lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return sets + 2;
#endif
    return sets + sizeof(sets) / sizeof(sets[0]) - 1;
}
