/* Linear maps and attention in whole numbers, by dots.h; included by ops.h for every instruction set. What is rounded to
   bytes is a row at a time, a scale each, so that what a token gives does not depend on the tokens beside it. */

/* Rounds a row to bytes, its largest number to 127 of the scale that is returned or to -127, and adds OFFSET. The product
   that is rounded is exact, so every instruction set gives the same. */
static float NAME(to_bytes)(uint8_t *restrict to, const float *restrict from, int64_t size) {
    int32_t most = 0;
    for (int64_t i = 0; i < size; i++) {
        union { float number; int32_t bits; } one = {from[i]};
        one.bits &= 0x7fffffff; /* without their signs, numbers are ordered as their bits are */
        most = one.bits > most ? one.bits : most;
    }
    union { int32_t bits; float number; } largest = {most};
    largest.number = largest.number > LEAST ? largest.number : LEAST;
    const float inverse = 127.0f / largest.number;
    for (int64_t i = 0; i < size; i++) {
#if LANES > 1
        union { float number; uint32_t bits; } one = {fmaf(from[i], inverse, 12582912.0f)}; /* 3 * 2^22: to nearest */
#else
        union { double number; uint64_t bits; } one = {(double)from[i] * inverse + 6755399441055744.0}; /* 3 * 2^51 */
#endif
        to[i] = (uint8_t)(one.bits + OFFSET);
    }
    return largest.number / 127.0f;
}

/* Puts the key and the value of one head into their place in the ring of that head. */
static void NAME(keep_bytes)(char *ring, int64_t place, int64_t size, const float *k, const float *v) {
    const int64_t wide = whole_size(size), lane = place % KEYS;
    const record_t record = record_of(ring, place - lane, wide);
    uint8_t bytes[MOST_HEAD] = {0};
    int32_t sum = 0;
    record.key_scale[lane] = NAME(to_bytes)(bytes, k, size);
    for (int64_t j = size; j < wide; j++) bytes[j] = OFFSET;
    for (int64_t j = 0; j < wide; j++) {
        bytes[j] ^= OFFSET;
        sum += (int8_t)bytes[j];
    }
    record.key_sums[lane] = OFFSET * sum;
    for (int64_t j = 0; j < wide; j += 4) memcpy(record.keys + (j / 4 * KEYS + lane) * 4, bytes + j, 4);
    record.value_scale[lane] = NAME(to_bytes)(bytes, v, size);
    const int64_t part = wide < BLOCK ? wide : BLOCK;
    for (int64_t at = 0; at < size; at += BLOCK) {
        uint32_t *to = (uint32_t *)(record.values + at * KEYS + lane / 4 * part * 4);
        const int up = (int)(lane % 4 * 8);
        for (int64_t j = 0; j < part; j++)
            to[j] = (to[j] & ~(255u << up)) | (uint32_t)(bytes[at + j] ^ OFFSET) << up;
    }
}

/* Blocks [first, last) of BLOCK outputs of y = w x + bias for n rows x in bytes, each with a scale. */
static void NAME(whole_outputs)(dots_fn *dots, float *y, int64_t y_stride, const uint8_t *x, int64_t x_stride,
                                const float *x_scale, int64_t n, const linear_t *l, int64_t first, int64_t last) {
    const int64_t fours = (l->in + 3) / 4, parts = (n + DOT_ROWS - 1) / DOT_ROWS;
    /* One row reads as fast as memory gives, in order, which processors see for themselves. */
    const int lines = n == 1 ? 0 : parts < 4 ? (int)((3 + parts) / parts) : 1;
    int32_t sums[DOT_ROWS][BLOCK];
    for (int64_t block = first; block < last; block++) {
        const int8_t *w = (const int8_t *)l->weights + block * fours * 4 * BLOCK;
        const int32_t *less = l->sums + block * BLOCK;
        const float *scale = l->scale + block * BLOCK;
        for (int64_t i = 0; i < parts; i++) {
            const int64_t from = n * i / parts, rows = n * (i + 1) / parts - from;
            /* The next block, a part of it each time. */
            const char *next = (const char *)w + fours * 4 * BLOCK + i * lines * fours * 64;
            dots(sums[0], x + from * x_stride, x_stride, (int)rows, w, fours, BLOCK, next, i * lines < 4 ? lines : 0);
            for (int64_t r = 0; r < rows; r++) {
                float *to = y + (from + r) * y_stride + block * BLOCK;
                const float own = x_scale[from + r];
                for (int64_t o = 0; o < BLOCK; o++) to[o] = (float)(sums[r][o] - less[o]) * (scale[o] * own);
                if (l->bias)
                    for (int64_t o = 0; o < BLOCK; o++) to[o] += l->bias[block * BLOCK + o];
            }
        }
    }
}

/* The weights of a query's keys [low, high) in a SEGMENT, from scores that are 0 to begin with in blocks outside of them:
   times the values' scales and rounded to 16 bits of their greatest, high bytes first. What the sums of their products
   are to be multiplied with is returned, and in *keep what the segments before are. */
static float NAME(whole_weights)(uint8_t *restrict bytes, float *restrict scores, const float *restrict value_scale,
                                 int64_t low, int64_t high, int64_t count, float *most, float *total, float *keep) {
    const int64_t first = low / KEYS * KEYS, last = (high + KEYS - 1) / KEYS * KEYS;
    for (int64_t i = first; i < low; i++) scores[i] = -INFINITY;
    for (int64_t i = high; i < last; i++) scores[i] = -INFINITY;
    VEC top = LOAD(scores + first), sum = SPLAT(0.0f), greatest = SPLAT(0.0f);
    for (int64_t i = first + LANES; i < last; i += LANES) top = MAX(top, LOAD(scores + i));
    const float best = MOST(top);
    *keep = 1.0f;
    if (best > *most) {
        float lanes[LANES];
        STORE(lanes, NAME(exponential)(SPLAT(*most - best)));
        *keep = *most == -INFINITY ? 0.0f : lanes[0];
        *most = best;
    }
    const VEC shift = SPLAT(-*most);
    for (int64_t i = first; i < last; i += LANES) STORE(scores + i, NAME(exponential)(ADD(LOAD(scores + i), shift)));
    /* The exponential of -inf is not quite 0. */
    for (int64_t i = 0; i < low; i++) scores[i] = 0.0f;
    for (int64_t i = high; i < count; i++) scores[i] = 0.0f;
    for (int64_t i = first; i < last; i += LANES) {
        const VEC e = LOAD(scores + i), weight = MUL(e, LOAD(value_scale + i));
        sum = ADD(sum, e);
        greatest = MAX(greatest, weight);
        STORE(scores + i, weight);
    }
    *total = *total * *keep + SUM(sum);
    const float largest = MOST(greatest) > LEAST ? MOST(greatest) : LEAST, inverse = 65535.0f / largest;
    for (int64_t i = 0; i < count; i++) {
        union { float number; uint32_t bits; } one = {scores[i] * inverse + 8388608.0f}; /* 2^23: to nearest */
        bytes[i] = (uint8_t)(one.bits >> 8);
        bytes[SEGMENT + i] = (uint8_t)one.bits;
    }
    return largest / 65535.0f;
}

/* As attend of attention.h, over the ring of one head in bytes (see `record_t`), a SEGMENT of it at a time: they begin at
   multiples of SEGMENT, whatever the ring's capacity, which is a multiple of KEYS. `next` are the records that will be
   read after these, if there are any. */
static void NAME(whole_attend)(dots_fn *dots, float *out, const float *query, int64_t between, char *ring,
                               int64_t tokens, const int64_t *positions, int64_t group, int64_t capacity,
                               int64_t window, int64_t size, float scale, float *state, const char *next) {
    const int64_t heads = tokens * group, wide = whole_size(size), part = wide < BLOCK ? wide : BLOCK;
    const int64_t end = (positions[tokens - 1] / KEYS + 1) * KEYS, record = record_bytes(wide);
    float *most = state, *total = state + heads, *query_scale = state + 2 * heads;
    float scores[DOT_ROWS][SEGMENT], value_scale[SEGMENT];
    uint8_t *bytes = (uint8_t *)(state + 3 * heads), weights[2 * DOT_ROWS][SEGMENT];
    int32_t block[DOT_ROWS][BLOCK], sums[2 * DOT_ROWS][BLOCK];
    for (int64_t i = 0; i < heads; i++) {
        const int64_t place = i / group * between + i % group * size;
        most[i] = -INFINITY, total[i] = 0.0f;
        query_scale[i] = NAME(to_bytes)(bytes + i * wide, query + place, size) * scale;
        memset(bytes + i * wide + size, 0, (size_t)(wide - size));
        for (int64_t j = 0; j < size; j++) out[place + j] = 0.0f;
    }
    int64_t begin = window && positions[0] >= window ? positions[0] - window + 1 : 0, until;
    for (begin = begin / KEYS * KEYS; begin < end; begin = until) {
        until = smaller(begin / SEGMENT * SEGMENT + SEGMENT, end);
        const int64_t count = until - begin;
        for (int64_t i = 0; i < heads; i += DOT_ROWS) {
            const int rows = (int)smaller(heads - i, DOT_ROWS), lines = i || !next ? 0 : 5;
            float keep[DOT_ROWS], step[DOT_ROWS];
            for (int64_t at = 0; at < count; at += KEYS) {
                const record_t one = record_of(ring, (begin + at) % capacity, wide);
                dots(block[0], bytes + i * wide, wide, rows, one.keys, wide / 4, KEYS, next + at / KEYS * record, lines);
                memcpy(value_scale + at, one.value_scale, KEYS * sizeof(float));
                for (int r = 0; r < rows; r++) {
                    const float own = query_scale[i + r];
                    for (int64_t j = 0; j < KEYS; j++)
                        scores[r][at + j] = (float)(block[r][j] - one.key_sums[j]) * (one.key_scale[j] * own);
                }
            }
            for (int r = 0; r < rows; r++) {
                const int64_t last = positions[(i + r) / group];
                const int64_t oldest = window && last >= window ? last - window + 1 : 0;
                const int64_t low = larger(oldest - begin, 0), high = smaller(last - begin + 1, count);
                step[r] = -1.0f; /* no key of these */
                if (low < high)
                    step[r] = NAME(whole_weights)(weights[2 * r], scores[r], value_scale, low, high, count,
                                                  most + i + r, total + i + r, keep + r);
            }
            for (int64_t at = 0; at < size; at += BLOCK) {
                const int64_t used = smaller(size - at, BLOCK);
                memset(sums, 0, (size_t)(2 * rows) * sizeof(sums[0]));
                for (int64_t key = 0; key < count; key += KEYS) {
                    const record_t one = record_of(ring, (begin + key) % capacity, wide);
                    const int64_t there = smaller(KEYS, positions[tokens - 1] + 1 - begin - key); /* others weigh 0 */
                    for (int first = 0; first < 2 * rows; first += DOT_ROWS) { /* a weight is two rows of bytes */
                        const int some = (int)smaller(2 * rows - first, DOT_ROWS);
                        dots(block[0], weights[first] + key, SEGMENT, some, one.values + at * KEYS, (there + 3) / 4, part,
                             next + key / KEYS * record + record / 2, at || first ? 0 : lines);
                        for (int r = 0; r < some; r++)
                            for (int64_t j = 0; j < BLOCK; j++) sums[first + r][j] += block[r][j];
                    }
                }
                for (int r = 0; r < rows; r++) {
                    float *to = out + (i + r) / group * between + (i + r) % group * size + at;
                    if (step[r] < 0.0f) continue;
                    for (int64_t j = 0; j < used; j++)
                        to[j] = to[j] * keep[r] + ((float)sums[2 * r][j] * 256.0f + (float)sums[2 * r + 1][j]) * step[r];
                }
            }
        }
    }
    for (int64_t i = 0; i < heads; i++)
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] /= total[i];
}
