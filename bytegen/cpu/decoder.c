/* One step of the transformer on a CPU: tokens of several sequences at positions of their own, over the caches that
   `bytegen.cache` keeps. Everything of a step in one call: at the sizes that a CPU decodes, a framework spends more
   time between its operations than in them. The maths is that of `bytegen.model`; weights are float32, or float16 where
   that holds them exactly. Called through ctypes: see `binding.py`, which has the same structures. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define BLOCK 64 /* outputs whose weights lie side by side */
#define KEYS 64  /* keys that attention takes at a time */
#define TOKENS 32 /* tokens of a sequence, at most, that take them together */
#define WORTH_THREADS (1 << 21) /* multiply-adds from which on a second thread pays for its start */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define VECTORS 1
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

typedef void outputs_fn(float *, int64_t, const float *, int64_t, int64_t, const void *, int, int64_t, const float *,
                        int64_t, int64_t);
typedef void norm_fn(float *, const float *, const float *, int64_t, float);
typedef void add_fn(float *restrict, const float *restrict, const float *restrict, int64_t);
typedef void swiglu_fn(float *, const float *, int64_t);
typedef void attend_fn(float *, const float *, int64_t, const float *, const float *, int64_t, const int64_t *, int64_t,
                       int64_t, int64_t, int64_t, int64_t, float, float *);

/* [blocks][in][BLOCK]: the weights of BLOCK outputs side by side, the last block filled up with zeros, as is the bias. */
typedef struct {
    const void *weights;
    const float *bias;
    int64_t blocks, in;
} linear_t;

typedef struct {
    linear_t q, k, v, o, gate, up, down;
    const float *attention_norm, *ffn_norm, *q_norm, *k_norm, *conv;
    int64_t window; /* 0: global */
} layer_t;

typedef struct {
    int64_t dim, layers, heads, kv_heads, head_dim, taps, half, lanes;
    float eps;
    const layer_t *layer;
    const float *embed, *norm, *inv_freq;
    linear_t head;
} model_t;

/* Rings of one layer: [batch, capacity, kv_heads, head_dim], and [batch, conv_capacity, dim]. */
typedef struct {
    float *keys, *values, *conv;
    int64_t capacity, conv_capacity;
} ring_t;

typedef struct {
    int lanes;
    outputs_fn *outputs;
    norm_fn *norm;
    add_fn *add;
    swiglu_fn *swiglu;
    attend_fn *attend;
} set_t;

#define SET(lanes, name) {lanes, JOIN(outputs, name), JOIN(norm, name), JOIN(add, name), JOIN(swiglu, name), JOIN(attend, name)}

static const set_t sets[] = {
#ifdef VECTORS
    SET(16, avx512), SET(8, avx2),
#endif
    SET(1, plain)};

/* The widest set of at most so many lanes that this processor has. */
static const set_t *set_of(int64_t lanes) {
#ifdef VECTORS
    __builtin_cpu_init();
    if (lanes >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
        return sets;
    if (lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return sets + 1;
#endif
    return sets + sizeof(sets) / sizeof(sets[0]) - 1;
}

/* Floats that a vector holds at once here, at most `most` of them; float16 weights need 8 or more. */
int bytegen_lanes(int most) { return set_of(most)->lanes; }

static void linear(const set_t *use, const linear_t *l, int half, float *y, int64_t y_stride, const float *x, int64_t x_stride, int64_t n,
                   int threads) {
    if (threads > l->blocks) threads = (int)l->blocks;
    if (threads < 2 || n * l->blocks * BLOCK * l->in < WORTH_THREADS) {
        use->outputs(y, y_stride, x, x_stride, n, l->weights, half, l->in, l->bias, 0, l->blocks);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < threads; i++)
        use->outputs(y, y_stride, x, x_stride, n, l->weights, half, l->in, l->bias, l->blocks * i / threads,
                     l->blocks * (i + 1) / threads);
}

/* The two halves of a head are the members of the pairs. */
static void rotate(float *x, const float *cosines, const float *sines, int64_t size) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosines[i] - b * sines[i];
        x[i + half] = b * cosines[i] + a * sines[i];
    }
}

static int64_t up(int64_t size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

/* Floats of scratch that a step of n tokens needs. */
int64_t bytegen_scratch(const model_t *m, int64_t n, int64_t threads) {
    const int64_t q = up(m->heads * m->head_dim), kv = up(m->kv_heads * m->head_dim), ffn = m->layer[0].gate.blocks * BLOCK;
    return n * (3 * up(m->dim) + 2 * q + 2 * kv + 2 * ffn + m->head_dim) + threads * 2 * TOKENS * m->heads;
}

/* How many tokens from t on attend together, 0 where t belongs to those before it: a run of one row is cut evenly. */
static int64_t together(const int64_t *rows, int64_t n, int64_t t) {
    int64_t begin = t, end = t + 1;
    while (begin > 0 && rows[begin - 1] == rows[t]) begin--;
    while (end < n && rows[end] == rows[t]) end++;
    const int64_t count = end - begin, parts = (count + TOKENS - 1) / TOKENS;
    for (int64_t i = 0; i < parts; i++)
        if (begin + count * i / parts == t) return begin + count * (i + 1) / parts - t;
    return 0;
}

/* Hidden states [n, dim] after the last norm. Token i is of sequence rows[i], at position positions[i]; the tokens of a
   sequence come in order. */
void bytegen_step(const model_t *m, const ring_t *rings, const int64_t *tokens, const int64_t *rows,
                  const int64_t *positions, int64_t n, float *hidden, float *scratch, int threads) {
    const int64_t dim = m->dim, wide = up(dim), size = m->head_dim, pairs = size / 2;
    const int64_t q_size = m->heads * size, kv_size = m->kv_heads * size, q_wide = up(q_size), kv_wide = up(kv_size);
    const int64_t ffn = m->layer[0].gate.blocks * BLOCK, group = m->heads / m->kv_heads;
    const int half = (int)m->half;
    const set_t *use = set_of(m->lanes);
    const float scale = 1.0f / sqrtf((float)size);
    float *x = scratch, *h = x + n * wide, *mixed = h + n * wide;
    float *q = mixed + n * wide, *o = q + n * q_wide, *k = o + n * q_wide, *v = k + n * kv_wide;
    float *gate = v + n * kv_wide, *raised = gate + n * ffn;
    float *cosines = raised + n * ffn, *sines = cosines + n * pairs, *states = cosines + n * size;
    memset(scratch, 0, (size_t)(cosines - scratch) * sizeof(float));
    for (int64_t t = 0; t < n; t++) {
        memcpy(x + t * wide, m->embed + tokens[t] * dim, (size_t)dim * sizeof(float));
        for (int64_t i = 0; i < pairs; i++) {
            const float angle = (float)positions[t] * m->inv_freq[i];
            cosines[t * pairs + i] = cosf(angle);
            sines[t * pairs + i] = sinf(angle);
        }
    }
    for (int64_t l = 0; l < m->layers; l++) {
        const layer_t *layer = m->layer + l;
        const ring_t *ring = rings + l;
        for (int64_t t = 0; t < n; t++) use->norm(h + t * wide, x + t * wide, layer->attention_norm, dim, m->eps);
        const float *in = h;
        if (m->taps > 1) {
            for (int64_t t = 0; t < n; t++)
                memcpy(ring->conv + (rows[t] * ring->conv_capacity + positions[t] % ring->conv_capacity) * dim,
                       h + t * wide, (size_t)dim * sizeof(float));
            for (int64_t t = 0; t < n; t++) {
                float *out = mixed + t * wide;
                for (int64_t i = 0; i < dim; i++) out[i] = h[t * wide + i] * layer->conv[i];
                for (int64_t j = 1; j < m->taps && positions[t] - j >= 0; j++) {
                    const float *back =
                        ring->conv + (rows[t] * ring->conv_capacity + (positions[t] - j) % ring->conv_capacity) * dim;
                    const float *tap = layer->conv + j * dim;
                    use->add(out, back, tap, dim);
                }
            }
            in = mixed;
        }
        linear(use, &layer->q, half, q, q_wide, in, wide, n, threads);
        linear(use, &layer->k, half, k, kv_wide, in, wide, n, threads);
        linear(use, &layer->v, half, v, kv_wide, in, wide, n, threads);
        for (int64_t t = 0; t < n; t++) {
            const int64_t place = rows[t] * ring->capacity + positions[t] % ring->capacity;
            for (int64_t i = 0; i < m->heads; i++) {
                float *one = q + t * q_wide + i * size;
                if (layer->q_norm) use->norm(one, one, layer->q_norm, size, m->eps);
                rotate(one, cosines + t * pairs, sines + t * pairs, size);
            }
            for (int64_t i = 0; i < m->kv_heads; i++) {
                float *one = k + t * kv_wide + i * size;
                if (layer->k_norm) use->norm(one, one, layer->k_norm, size, m->eps);
                rotate(one, cosines + t * pairs, sines + t * pairs, size);
            }
            memcpy(ring->keys + place * kv_size, k + t * kv_wide, (size_t)kv_size * sizeof(float));
            memcpy(ring->values + place * kv_size, v + t * kv_wide, (size_t)kv_size * sizeof(float));
        }
        int64_t seen = 0;
        for (int64_t t = 0; t < n; t++)
            seen += layer->window && layer->window <= positions[t] ? layer->window : positions[t] + 1;
        const int shared = threads > 1 && 8 * seen * q_size >= WORTH_THREADS; /* memory is what it waits for */
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (shared)
        for (int64_t i = 0; i < n * m->kv_heads; i++) {
            const int64_t t = i / m->kv_heads, head = i % m->kv_heads, count = together(rows, n, t);
            if (!count) continue;
            const int64_t base = rows[t] * ring->capacity * kv_size + head * size, place = t * q_wide + head * group * size;
#ifdef _OPENMP
            float *own = states + omp_get_thread_num() * 2 * TOKENS * m->heads;
#else
            float *own = states;
#endif
            use->attend(o + place, q + place, q_wide, ring->keys + base, ring->values + base, count, positions + t, group,
                        kv_size, ring->capacity, layer->window, size, scale, own);
        }
        linear(use, &layer->o, half, h, wide, o, q_wide, n, threads);
        for (int64_t t = 0; t < n; t++) {
            use->add(x + t * wide, h + t * wide, 0, dim);
            use->norm(h + t * wide, x + t * wide, layer->ffn_norm, dim, m->eps);
        }
        linear(use, &layer->gate, half, gate, ffn, h, wide, n, threads);
        linear(use, &layer->up, half, raised, ffn, h, wide, n, threads);
        use->swiglu(gate, raised, n * ffn);
        linear(use, &layer->down, half, h, wide, gate, ffn, n, threads);
        for (int64_t t = 0; t < n; t++) use->add(x + t * wide, h + t * wide, 0, dim);
    }
    for (int64_t t = 0; t < n; t++) use->norm(hidden + t * wide, x + t * wide, m->norm, dim, m->eps);
}

/* Logits [n, blocks * BLOCK] of hidden states, the first so many blocks of the vocabulary; rows of both are padded to a
   multiple of BLOCK. */
void bytegen_logits(const model_t *m, const float *hidden, int64_t n, int64_t blocks, float *logits, int threads) {
    const set_t *use = set_of(m->lanes);
    linear_t head = m->head;
    head.blocks = blocks;
    linear(use, &head, (int)m->half, logits, blocks * BLOCK, hidden, up(m->dim), n, threads);
}

typedef struct {
    double weight;
    int64_t id;
} choice_t;

static int likelier(const void *a, const void *b) {
    const choice_t *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* One draw a row, as kernels/sampling/masked.py has it: likeliest first, the inverse of the cumulative distribution at
   `uniform`. numbers: [4][n] uniform, temperature (0: the likeliest), top_p, min_p; results: [2][n] the natural log of
   the choice's probability, and the probability that the mask took at temperature 1. */
void bytegen_sample(const float *logits, int64_t n, int64_t choices, const uint8_t *mask, const double *numbers,
                    int64_t *choice, double *results) {
    choice_t *kept = malloc((size_t)choices * sizeof(choice_t));
    for (int64_t r = 0; r < n; r++) {
        const float *row = logits + r * choices;
        const uint8_t *allowed = mask + r * choices;
        const double uniform = numbers[r], temperature = numbers[n + r], top_p = numbers[2 * n + r],
                     min_p = numbers[3 * n + r];
        double highest = -INFINITY, best = -INFINITY, all = 0.0, inside = 0.0;
        int64_t likeliest = -1;
        for (int64_t i = 0; i < choices; i++) {
            if (row[i] > highest) highest = row[i];
            if (allowed[i] && row[i] > best) best = row[i], likeliest = i;
        }
        for (int64_t i = 0; i < choices; i++) {
            const double p = exp((double)row[i] - highest);
            all += p;
            if (allowed[i]) inside += p;
        }
        results[n + r] = inside < all ? 1.0 - inside / all : 0.0;
        choice[r] = likeliest;
        results[r] = 0.0;
        if (temperature == 0.0 || likeliest < 0) continue;
        int64_t count = 0;
        double total = 0.0;
        for (int64_t i = 0; i < choices; i++)
            if (allowed[i]) {
                const double p = exp(((double)row[i] - best) / temperature);
                if (p > 0.0) kept[count++] = (choice_t){p, i}, total += p;
            }
        qsort(kept, (size_t)count, sizeof(choice_t), likelier);
        double before = 0.0;
        int64_t last = 1;
        before = kept[0].weight / total;
        while (last < count && before < top_p && kept[last].weight >= min_p * kept[0].weight)
            before += kept[last++].weight / total;
        double sum = 0.0, target = 0.0, reached = 0.0;
        for (int64_t i = 0; i < last; i++) sum += kept[i].weight;
        target = uniform * sum;
        int64_t drawn = 0;
        for (; drawn < last - 1; drawn++) {
            reached += kept[drawn].weight;
            if (reached > target) break;
        }
        choice[r] = kept[drawn].id;
        results[r] = log(kept[drawn].weight / sum);
    }
    free(kept);
}

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_decoder", .m_doc = "Functions for ctypes.", .m_size = -1};

PyMODINIT_FUNC PyInit__decoder(void) { return PyModule_Create(&definition); }
