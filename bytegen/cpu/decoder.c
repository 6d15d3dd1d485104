/* One step of the transformer on a CPU: tokens of several sequences at positions of their own, over the caches that
   `bytegen.cache` keeps. Everything of a step in one call: at the sizes that a CPU decodes, a framework spends more
   time between its operations than in them. The maths is that of `bytegen.model`; weights are float32, float16 or
   bfloat16 where those hold them exactly, or int8 with a scale an output (`bytegen.precision`), which floats are
   multiplied with, or int8 (whole.h). Called through ctypes:
   see `binding.py`, which has the same structures. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64 /* outputs whose weights lie side by side */
#define WORTH_DRAWS 64 /* draws from which on a second thread pays */
#define ROOM (1 << 14) /* floats, for the input of a head: more than the widest model has */
#define MOST_HEAD 1024 /* numbers of a head in int8 */
#define KEYS 64  /* keys that attention takes at a time */
#define SEGMENT 512 /* keys, of KEYS each, that attention in whole numbers takes at a time */
#define TOKENS 32 /* tokens of a sequence, at most, that take them together */
#define WORTH_THREADS (1 << 23) /* multiply-adds from which on a second thread pays */
#define PARTS 4 /* of a task for each thread: one that the system puts aside holds up so much */

/* Memory is what attention waits for, and processors that look ahead stop at the end of a page: what lies so many rows
   ahead is asked for, all its lines. */
#ifdef __GNUC__
#define AHEAD(row, size)                                                                          \
    for (int64_t line = 0; line < (int64_t)((size) * sizeof(*(row))); line += 64)                 \
    __builtin_prefetch((const char *)((row) + ROWS_AHEAD * (size)) + line)
#else
#define AHEAD(row, size) (void)0
#endif
#define ROWS_AHEAD 12

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#include "pool.h"
#include "sets.h"

/* Floats that a vector holds at once here, at most `most` of them; float16 and bfloat16 weights need 8 or more. */
int bytegen_lanes(int most) { return set_of(most)->lanes; }

/* What a linear map is of: rows of floats, and where it is INT8_DYNAMIC the same rounded. */
typedef struct {
    const float *x, *scale;
    const uint8_t *bytes;
    int64_t stride, bytes_stride;
} input_t;

static int64_t four(int64_t size) { return (size + 3) / 4 * 4; }

/* Floats of room that an input of a linear map of `in` takes a row. */
static int64_t input_room(int64_t in) { return four(in) / 4 + 1; }

static input_t input_of(const set_t *use, const linear_t *l, const float *x, int64_t stride, int64_t n, float *room) {
    const input_t made = {x, room, (uint8_t *)(room + n), stride, four(l->in)};
    if (l->kind == INT8_DYNAMIC)
        for (int64_t r = 0; r < n; r++)
            room[r] = use->to_bytes((uint8_t *)(room + n) + r * made.bytes_stride, x + r * stride, l->in);
    return made;
}

static void blocks_of(const set_t *use, const linear_t *l, float *y, int64_t y_stride, const input_t *from, int64_t n,
                      int64_t first, int64_t last) {
    if (l->kind == INT8_DYNAMIC)
        use->whole_outputs(use->dots, y, y_stride, from->bytes, from->bytes_stride, from->scale, n, l, first, last);
    else
        use->outputs(y, y_stride, from->x, from->stride, n, l, first, last);
}

typedef struct {
    const set_t *use;
    const linear_t *l;
    float *y;
    int64_t y_stride, n, parts;
    const input_t *from;
} linear_task_t;

static void linear_part(void *given, int64_t part, int me) {
    const linear_task_t *all = given;
    const int64_t blocks = all->l->blocks;
    (void)me;
    blocks_of(all->use, all->l, all->y, all->y_stride, all->from, all->n, blocks * part / all->parts,
              blocks * (part + 1) / all->parts);
}

static void linear(const set_t *use, const linear_t *l, float *y, int64_t y_stride, const input_t *from, int64_t n,
                   int threads) {
    const int64_t cheap = l->kind == INT8_DYNAMIC ? 4 : 1; /* as many multiply-adds of bytes take as long as one */
    const int shared = threads > 1 && n * l->blocks * BLOCK * l->in >= cheap * WORTH_THREADS;
    linear_task_t all = {use, l, y, y_stride, n, shared ? smaller(l->blocks, PARTS * threads) : 1, from};
    share_out(linear_part, &all, all.parts, threads);
}

static int64_t up(int64_t size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

/* Floats of scratch that a token needs, and a thread. */
static int64_t token_scratch(const model_t *m) {
    const int64_t q = up(m->heads * m->head_dim), kv = up(m->kv_heads * m->head_dim), ffn = m->layer[0].gate.blocks * BLOCK;
    return 3 * up(m->dim) + 2 * q + 2 * kv + 2 * ffn + m->head_dim + input_room(larger(larger(m->dim, q), ffn));
}

static int64_t thread_scratch(const model_t *m) { return (3 + whole_size(m->head_dim) / 4) * TOKENS * m->heads; }

/* Floats of scratch that a step of n tokens needs. */
int64_t bytegen_scratch(const model_t *m, int64_t n, int64_t threads) {
    return n * token_scratch(m) + threads * thread_scratch(m);
}

/* How many tokens from t on attend together, 0 where t belongs to those before it: a run of one row is cut evenly, into `least`
   parts where it has as many tokens. */
static int64_t together(const int64_t *rows, int64_t n, int64_t t, int64_t least) {
    int64_t begin = t, end = t + 1;
    while (begin > 0 && rows[begin - 1] == rows[t]) begin--;
    while (end < n && rows[end] == rows[t]) end++;
    const int64_t count = end - begin, parts = larger((count + TOKENS - 1) / TOKENS, smaller(least, count));
    for (int64_t i = 0; i < parts; i++)
        if (begin + count * i / parts == t) return begin + count * (i + 1) / parts - t;
    return 0;
}

#include "rings.h"
#include "draw.h"

/* What will be read after a head in int8: the next head's records, or where there is none those of the token t's. */
static const char *next_ring(const model_t *m, const ring_t *rings, const int64_t *rows, const int64_t *positions,
                             int64_t n, int64_t window, int64_t t, int64_t head) {
    if (head + 1 < m->kv_heads)
        t--;
    else if (t == n)
        return 0;
    const ring_t *ring = rings + rows[t] * m->layers;
    const int64_t begin = window && positions[t] >= window ? positions[t] - window + 1 : 0;
    return whole_ring(ring, (head + 1) % m->kv_heads, m->head_dim) +
           begin % ring->capacity / KEYS * record_bytes(whole_size(m->head_dim));
}

/* What attention of a layer takes, in multiply-adds of a linear map that take as long: keys and values come from memory once
   for the tokens of a sequence. */
static int64_t attention_work(const model_t *m, int64_t window, const int64_t *rows, const int64_t *positions, int64_t n) {
    int64_t seen = 0, read = 0;
    for (int64_t t = 0; t < n; t++) {
        const int64_t keys = window && window <= positions[t] ? window : positions[t] + 1;
        seen += keys;
        if (t + 1 == n || rows[t + 1] != rows[t]) read += keys;
    }
    const int64_t queries = m->heads * m->head_dim, kept = m->kv_heads * m->head_dim;
    return 2 * seen * queries + 8 * read * kept;
}

typedef struct {
    const set_t *use;
    const model_t *m;
    const ring_t *ring; /* of row r: ring[r * layers] */
    const float *q;
    float *o, *states;
    const int64_t *rows, *positions;
    int64_t n, window;
    int threads;
} attention_task_t;

/* Part i is head i % kv_heads of the tokens that attend together from i / kv_heads on. */
static void attention_part(void *given, int64_t part, int me) {
    const attention_task_t *all = given;
    const model_t *m = all->m;
    const int64_t size = m->head_dim, group = m->heads / m->kv_heads, wide = up(m->heads * size), n = all->n;
    const int64_t t = part / m->kv_heads, head = part % m->kv_heads, *positions = all->positions + t;
    /* Heads of one sequence that cannot be dealt out evenly are cut, though each part reads all of the keys. */
    const int whole = all->rows[0] != all->rows[n - 1] || head < m->kv_heads / all->threads * all->threads;
    const int64_t count = together(all->rows, n, t, whole ? 1 : all->threads);
    if (!count) return;
    const ring_t *own = all->ring + all->rows[t] * m->layers;
    const float *q = all->q + t * wide + head * group * size, scale = 1.0f / sqrtf((float)size);
    float *o = all->o + t * wide + head * group * size, *state = all->states + me * thread_scratch(m);
    if (m->cache_kind == CACHE_INT8) {
        all->use->whole_attend(
            all->use->dots, o, q, wide, whole_ring(own, head, size), count, positions, group, own->capacity, all->window,
            size, scale, state, next_ring(m, all->ring, all->rows, all->positions, n, all->window, t + count, head));
        return;
    }
    const int half = m->cache_kind == CACHE_FLOAT16;
    const int64_t base = head * own->capacity * size * (half ? 2 : 4);
    all->use->attend(o, q, wide, (const char *)own->keys + base, (const char *)own->values + base, half, count, positions,
                     group, own->capacity, all->window, size, scale, state);
}

static void step(const model_t *m, const ring_t *rings, const int64_t *tokens, const int64_t *rows,
                 const int64_t *positions, int64_t n, float *hidden, float *scratch, int threads) {
    const int64_t dim = m->dim, wide = up(dim), size = m->head_dim, pairs = size / 2;
    const int64_t q_size = m->heads * size, q_wide = up(q_size), kv_wide = up(m->kv_heads * size);
    const int64_t ffn = m->layer[0].gate.blocks * BLOCK;
    const set_t *use = set_of(m->lanes);
    float *x = scratch, *h = x + n * wide, *mixed = h + n * wide;
    float *q = mixed + n * wide, *o = q + n * q_wide, *k = o + n * q_wide, *v = k + n * kv_wide;
    float *gate = v + n * kv_wide, *raised = gate + n * ffn;
    float *cosines = raised + n * ffn, *sines = cosines + n * pairs, *room = cosines + n * size;
    float *states = room + n * input_room(larger(larger(dim, q_wide), ffn));
    input_t from;
    const int64_t many_layers = m->layers;
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
        const ring_t *ring = rings + l; /* of row r: ring[r * many_layers] */
        for (int64_t t = 0; t < n; t++) use->norm(h + t * wide, x + t * wide, layer->attention_norm, dim, m->eps);
        const float *in = h;
        if (m->taps > 1) {
            for (int64_t t = 0; t < n; t++) {
                const ring_t *own = ring + rows[t] * many_layers;
                memcpy(own->conv + positions[t] % own->conv_capacity * dim, h + t * wide, (size_t)dim * sizeof(float));
            }
            for (int64_t t = 0; t < n; t++) {
                const ring_t *own = ring + rows[t] * many_layers;
                float *out = mixed + t * wide;
                for (int64_t i = 0; i < dim; i++) out[i] = h[t * wide + i] * layer->conv[i];
                for (int64_t j = 1; j < m->taps && positions[t] - j >= 0; j++)
                    use->add(out, own->conv + (positions[t] - j) % own->conv_capacity * dim, layer->conv + j * dim, dim);
            }
            in = mixed;
        }
        from = input_of(use, &layer->q, in, wide, n, room);
        linear(use, &layer->q, q, q_wide, &from, n, threads);
        linear(use, &layer->k, k, kv_wide, &from, n, threads);
        linear(use, &layer->v, v, kv_wide, &from, n, threads);
        for (int64_t t = 0; t < n; t++) {
            const ring_t *own = ring + rows[t] * many_layers;
            for (int64_t i = 0; i < m->heads; i++) {
                float *one = q + t * q_wide + i * size;
                if (layer->q_norm) use->norm(one, one, layer->q_norm, size, m->eps);
                use->rotate(one, cosines + t * pairs, sines + t * pairs, size);
            }
            for (int64_t i = 0; i < m->kv_heads; i++) {
                float *one = k + t * kv_wide + i * size;
                if (layer->k_norm) use->norm(one, one, layer->k_norm, size, m->eps);
                use->rotate(one, cosines + t * pairs, sines + t * pairs, size);
            }
            keep(use, m, own, positions[t], k + t * kv_wide, v + t * kv_wide);
        }
        const int shared = threads > 1 && attention_work(m, layer->window, rows, positions, n) >= WORTH_THREADS;
        attention_task_t attention = {use, m, ring, q, o, states, rows, positions, n, layer->window, shared ? threads : 1};
        share_out(attention_part, &attention, n * m->kv_heads, attention.threads);
        from = input_of(use, &layer->o, o, q_wide, n, room);
        linear(use, &layer->o, h, wide, &from, n, threads);
        for (int64_t t = 0; t < n; t++) {
            use->add(x + t * wide, h + t * wide, 0, dim);
            use->norm(h + t * wide, x + t * wide, layer->ffn_norm, dim, m->eps);
        }
        from = input_of(use, &layer->gate, h, wide, n, room);
        linear(use, &layer->gate, gate, ffn, &from, n, threads);
        linear(use, &layer->up, raised, ffn, &from, n, threads);
        use->swiglu(gate, raised, n * ffn);
        from = input_of(use, &layer->down, gate, ffn, n, room);
        linear(use, &layer->down, h, wide, &from, n, threads);
        for (int64_t t = 0; t < n; t++) use->add(x + t * wide, h + t * wide, 0, dim);
    }
    for (int64_t t = 0; t < n; t++) use->norm(hidden + t * wide, x + t * wide, m->norm, dim, m->eps);
}

/* Where part i of `parts` begins when n tokens are shared out so that each sequence is in one part. */
static int64_t share(const int64_t *rows, int64_t n, int64_t i, int64_t parts) {
    int64_t at = n * i / parts;
    while (at > 0 && at < n && rows[at] == rows[at - 1]) at++;
    return at;
}

typedef struct {
    const model_t *m;
    const ring_t *rings;
    const int64_t *tokens, *rows, *positions;
    int64_t n, parts;
    float *hidden, *scratch;
} step_task_t;

static void step_part(void *given, int64_t part, int me) {
    const step_task_t *all = given;
    const model_t *m = all->m;
    const int64_t from = share(all->rows, all->n, part, all->parts), to = share(all->rows, all->n, part + 1, all->parts);
    (void)me;
    if (from < to)
        step(m, all->rings, all->tokens + from, all->rows + from, all->positions + from, to - from,
             all->hidden + from * up(m->dim), all->scratch + from * token_scratch(m) + part * thread_scratch(m), 1);
}

/* Hidden states [n, dim] after the last norm. ids: [3][n] tokens, the sequence of each, and its position in it; the tokens
   of a sequence lie together, in order. Ring l of row r is rings[r * layers + l]. */
void bytegen_step(const model_t *m, const ring_t *rings, const int64_t *ids, int64_t n, float *hidden, float *scratch,
                  int threads) {
    const int64_t *tokens = ids, *rows = ids + n, *positions = ids + 2 * n;
    int64_t largest = 0;
    for (int i = 0; i < threads; i++)
        largest = larger(largest, share(rows, n, i + 1, threads) - share(rows, n, i, threads));
    const int64_t work = n * m->layers * m->dim * 64 * m->layer[0].gate.blocks;
    /* Threads that each take their sequences through all layers wait for each other once. */
    if (threads < 2 || work < WORTH_THREADS || largest * threads > n + n / 2) {
        step(m, rings, tokens, rows, positions, n, hidden, scratch, threads);
        return;
    }
    step_task_t all = {m, rings, tokens, rows, positions, n, threads, hidden, scratch};
    share_out(step_part, &all, threads, threads);
}

/* y = l x of n hidden states x, rows padded to a multiple of BLOCK; those of y are y_stride apart. */
static void linear_of_hidden(const model_t *m, const linear_t *l, float *y, int64_t y_stride, const float *x, int64_t n,
                             int threads) {
    const set_t *use = set_of(m->lanes);
    float room[ROOM];
    const int64_t rows = l->kind == INT8_DYNAMIC ? larger(1, ROOM / input_room(m->dim)) : n, wide = up(m->dim);
    for (int64_t r = 0; r < n; r += rows) {
        const int64_t count = smaller(n - r, rows);
        const input_t from = input_of(use, l, x + r * wide, wide, count, room);
        linear(use, l, y + r * y_stride, y_stride, &from, count, threads);
    }
}

/* Logits [n, blocks * BLOCK] of hidden states, the first so many blocks of the vocabulary; rows of both are padded to a
   multiple of BLOCK. */
void bytegen_logits(const model_t *m, const float *hidden, int64_t n, int64_t blocks, float *logits, int threads) {
    linear_t head = m->head;
    head.blocks = blocks;
    linear_of_hidden(m, &head, logits, blocks * BLOCK, hidden, n, threads);
}

/* What the multi-token prediction heads expect after n hidden states: head k (from 0), which adds silu of its own linear map
   to the hidden state, of the byte k + 1 places behind the one whose logits are above. Natural logs of probabilities among
   the first `choices` ids: found [n][heads][choices]. Scratch: rows [n * heads, dim], logits [n * heads, blocks * BLOCK],
   padded as above. */
void bytegen_ahead(const model_t *m, const float *hidden, int64_t n, int64_t blocks, int64_t choices, float *rows,
                   float *logits, float *found, int threads) {
    const set_t *use = set_of(m->lanes);
    const int64_t heads = m->mtp_heads, wide = up(m->dim);
    for (int64_t k = 0; k < heads; k++) {
        linear_of_hidden(m, m->mtp + k, rows + k * wide, heads * wide, hidden, n, threads);
        for (int64_t i = 0; i < n; i++) use->residual_silu(rows + (i * heads + k) * wide, hidden + i * wide, wide);
    }
    bytegen_logits(m, rows, n * heads, blocks, logits, threads);
    for (int64_t i = 0; i < n * heads; i++) {
        const float *row = logits + i * blocks * BLOCK;
        double w[MOST_CHOICES], highest = row[0], sum = 0.0;
        for (int64_t j = 1; j < choices; j++) highest = row[j] > highest ? row[j] : highest;
        use->weigh(w, row, highest, 1.0, choices);
        for (int64_t j = 0; j < choices; j++) sum += w[j];
        const double shift = highest + log(sum);
        for (int64_t j = 0; j < choices; j++) found[i * choices + j] = (float)(row[j] - shift);
    }
}

typedef struct {
    const model_t *m;
    const float *logits;
    int64_t stride, n, choices, parts;
    const uint8_t *mask;
    const double *numbers;
    int64_t *choice;
    double *results;
} sample_task_t;

static void sample_part(void *given, int64_t part, int me) {
    const sample_task_t *all = given;
    const set_t *use = set_of(all->m->lanes);
    const int64_t n = all->n, choices = all->choices;
    const double *numbers = all->numbers;
    (void)me;
    for (int64_t r = n * part / all->parts; r < n * (part + 1) / all->parts; r++)
        all->choice[r] = draw(use->weigh, all->logits + r * all->stride, all->mask + r * choices, choices, numbers[r],
                              numbers[n + r], numbers[2 * n + r], numbers[3 * n + r], all->results + r, all->results + n + r);
}

/* One draw a row: see draw.h. Rows of logits are `stride` apart; `numbers` is [4][n]: uniform, temperature, top_p, min_p;
   `results` [2][n]: the natural log of the choice's probability, and what the mask took at temperature 1. */
void bytegen_sample(const model_t *m, const float *logits, int64_t stride, int64_t n, int64_t choices,
                    const uint8_t *mask, const double *numbers, int64_t *choice, double *results, int threads) {
    const int64_t parts = n < WORTH_DRAWS ? 1 : PARTS * threads;
    sample_task_t all = {m, logits, stride, n, choices, parts, mask, numbers, choice, results};
    share_out(sample_part, &all, parts, threads);
}

/* Draws after the tokens at n `places` of a step: `gathered` and `logits` are scratch, rows padded as above. */
void bytegen_draw(const model_t *m, const float *hidden, const int64_t *places, int64_t n, int64_t blocks,
                  int64_t choices, const uint8_t *mask, const double *numbers, float *gathered, float *logits,
                  int64_t *choice, double *results, int threads) {
    const int64_t wide = up(m->dim);
    for (int64_t i = 0; i < n; i++)
        memcpy(gathered + i * wide, hidden + places[i] * wide, (size_t)wide * sizeof(float));
    bytegen_logits(m, gathered, n, blocks, logits, threads);
    bytegen_sample(m, logits, blocks * BLOCK, n, choices, mask, numbers, choice, results, threads);
}

#include "calls.h"

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "_decoder",
                                        .m_doc = "Functions of Python, and for ctypes.",
                                        .m_size = -1,
                                        .m_methods = calls};

PyMODINIT_FUNC PyInit__decoder(void) { return PyModule_Create(&definition); }
