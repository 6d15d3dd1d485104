/* Linear maps and attention in whole numbers, by dots.h; included by ops.h for every instruction set. What is rounded to
   bytes is a row at a time, a scale each, so that what a token gives does not depend on the tokens beside it. */

/* Rounds a row to bytes, its largest number to 127 of the scale that is returned or to -127, and adds OFFSET. */
static float NAME(to_bytes)(uint8_t *restrict to, const float *restrict from, int64_t size) {
    int32_t most = 0;
    for (int64_t i = 0; i < size; i++) {
        union { float number; int32_t bits; } one = {from[i]};
        one.bits &= 0x7fffffff; /* without their signs, numbers are ordered as their bits are */
        most = one.bits > most ? one.bits : most;
    }
    union { int32_t bits; float number; } largest = {most};
    const float scale = largest.number / 127.0f > FLT_MIN ? largest.number / 127.0f : FLT_MIN;
    for (int64_t i = 0; i < size; i++) {
        union { float number; uint32_t bits; } one = {from[i] / scale + 12582912.0f}; /* 3 * 2^22: to nearest */
        to[i] = (uint8_t)(one.bits + OFFSET);
    }
    return scale;
}

/* Blocks [first, last) of BLOCK outputs of y = w x + bias for n rows x in bytes, each with a scale. */
static void NAME(whole_outputs)(dots_fn *dots, float *y, int64_t y_stride, const uint8_t *x, int64_t x_stride,
                                const float *x_scale, int64_t n, const linear_t *l, int64_t first, int64_t last) {
    const int64_t fours = (l->in + 3) / 4, parts = (n + DOT_ROWS - 1) / DOT_ROWS;
    int32_t sums[DOT_ROWS][BLOCK];
    for (int64_t block = first; block < last; block++) {
        const int8_t *w = (const int8_t *)l->weights + block * fours * 4 * BLOCK;
        const int32_t *less = l->sums + block * BLOCK;
        const float *scale = l->scale + block * BLOCK;
        for (int64_t i = 0; i < parts; i++) {
            const int64_t from = n * i / parts, rows = n * (i + 1) / parts - from;
            dots(sums[0], x + from * x_stride, x_stride, (int)rows, w, fours, BLOCK, i ? 0 : w + fours * 4 * BLOCK);
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

/* One block of KEYS: the weights of a row's keys in [low, high), from the sums of products with its query. Weights times
   the values' scales are rounded to 16 bits of the greatest of the block, and given as high and low bytes; out becomes
   out * keep, and what the values are to be multiplied with is returned. */
static float NAME(whole_weights)(uint8_t *restrict high_bytes, uint8_t *restrict low_bytes, const int32_t *restrict sums,
                                 const int32_t *restrict less, const float *restrict key_scale,
                                 const float *restrict value_scale, float scale, int64_t low, int64_t high,
                                 float *most, float *total, float *keep) {
    float scores[KEYS], lanes[LANES], best = -INFINITY;
    for (int64_t i = 0; i < KEYS; i++) scores[i] = (float)(sums[i] - less[i]) * (key_scale[i] * scale);
    for (int64_t i = 0; i < low; i++) scores[i] = -INFINITY;
    for (int64_t i = high; i < KEYS; i++) scores[i] = -INFINITY;
    VEC top = SPLAT(-INFINITY);
    for (int64_t i = 0; i < KEYS; i += LANES) top = MAX(top, LOAD(scores + i));
    STORE(lanes, top);
    for (int64_t i = 0; i < LANES; i++) best = lanes[i] > best ? lanes[i] : best;
    *keep = 1.0f;
    if (best > *most) {
        STORE(lanes, NAME(exponential)(SPLAT(*most - best)));
        *keep = *most == -INFINITY ? 0.0f : lanes[0];
        *most = best;
    }
    VEC sum = SPLAT(0.0f);
    top = SPLAT(0.0f);
    for (int64_t i = 0; i < KEYS; i += LANES) {
        STORE(scores + i, NAME(exponential)(ADD(LOAD(scores + i), SPLAT(-*most))));
    }
    /* The exponential of -inf is not quite 0. */
    for (int64_t i = 0; i < low; i++) scores[i] = 0.0f;
    for (int64_t i = high; i < KEYS; i++) scores[i] = 0.0f;
    for (int64_t i = 0; i < KEYS; i += LANES) {
        const VEC e = LOAD(scores + i), weight = MUL(e, LOAD(value_scale + i));
        sum = ADD(sum, e);
        top = MAX(top, weight);
        STORE(scores + i, weight);
    }
    *total = *total * *keep + SUM(sum);
    STORE(lanes, top);
    best = 1e-30f;
    for (int64_t i = 0; i < LANES; i++) best = lanes[i] > best ? lanes[i] : best;
    const float step = best / 65535.0f;
    for (int64_t i = 0; i < KEYS; i++) {
        union { float number; uint32_t bits; } one = {scores[i] / step + 8388608.0f}; /* 2^23: to nearest */
        high_bytes[i] = (uint8_t)(one.bits >> 8);
        low_bytes[i] = (uint8_t)one.bits;
    }
    return step;
}

/* As attend of attention.h, over keys and values in bytes: see `ring_t`. */
static void NAME(whole_attend)(dots_fn *dots, float *out, const float *query, int64_t between, const ring_t *from,
                               int64_t head, int64_t tokens, const int64_t *positions, int64_t group, int64_t window, int64_t size, float scale, float *state) {
    const int64_t heads = tokens * group, wide = whole_size(size), capacity = from->capacity;
    float *most = state, *total = state + heads, *query_scale = state + 2 * heads;
    uint8_t *bytes = (uint8_t *)(state + 3 * heads);
    int32_t sums[DOT_ROWS][BLOCK], high_sums[BLOCK], low_sums[BLOCK];
    uint8_t high_bytes[KEYS], low_bytes[KEYS];
    int64_t begin = positions[0] - window + 1;
    for (int64_t i = 0; i < heads; i++) {
        const int64_t place = i / group * between + i % group * size;
        most[i] = -INFINITY, total[i] = 0.0f;
        query_scale[i] = NAME(to_bytes)(bytes + i * wide, query + place, size) * scale;
        memset(bytes + i * wide + size, 0, (size_t)(wide - size));
        for (int64_t j = 0; j < size; j++) out[place + j] = 0.0f;
    }
    if (!window || begin < 0) begin = 0;
    for (int64_t base = begin / KEYS * KEYS; base <= positions[tokens - 1]; base += KEYS) {
        const int64_t slot = head * capacity + base % capacity; /* capacity is a multiple of KEYS */
        const int8_t *keys = (const int8_t *)from->keys + slot * wide;
        const int8_t *values = (const int8_t *)from->values + slot * wide;
        const int8_t *after = base + KEYS <= positions[tokens - 1] ? keys + KEYS * wide : 0;
        for (int64_t first = 0; first < heads; first += DOT_ROWS) {
            const int rows = (int)(heads - first < DOT_ROWS ? heads - first : DOT_ROWS);
            dots(sums[0], bytes + first * wide, wide, rows, keys, wide / 4, KEYS, first ? 0 : values);
            for (int64_t i = first; i < first + rows; i++) {
                const int64_t last = positions[i / group], oldest = window && last >= window ? last - window + 1 : 0;
                const int64_t low = oldest > base ? oldest - base : 0, high = last - base < KEYS ? last - base + 1 : KEYS;
                if (low >= high) continue;
                float keep;
                const float step = NAME(whole_weights)(
                    high_bytes, low_bytes, sums[i - first], from->key_sums + slot, from->key_scale + slot,
                    from->value_scale + slot, query_scale[i], low, high, most + i, total + i, &keep);
                float *to = out + i / group * between + i % group * size;
                for (int64_t at = 0; at < size; at += BLOCK) {
                    const int64_t part = wide - at < BLOCK ? wide - at : BLOCK;
                    const int64_t used = size - at < BLOCK ? size - at : BLOCK;
                    /* values: [wide / BLOCK][KEYS / 4][part][4] */
                    const int8_t *v = values + at * KEYS;
                    dots(high_sums, high_bytes, 0, 1, v, KEYS / 4, part, first ? 0 : after ? after + at * KEYS : 0);
                    dots(low_sums, low_bytes, 0, 1, v, KEYS / 4, part, 0);
                    for (int64_t j = 0; j < used; j++)
                        to[at + j] = to[at + j] * keep + (float)(high_sums[j] * 256 + low_sums[j]) * step;
                }
            }
        }
    }
    for (int64_t i = 0; i < heads; i++)
        for (int64_t j = 0; j < size; j++) out[i / group * between + i % group * size + j] /= total[i];
}
