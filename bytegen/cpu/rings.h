/* How keys and values are put into a ring: see `ring_t`. */

static int32_t sum_of(const uint8_t *bytes, int64_t size) {
    int32_t sum = 0;
    for (int64_t j = 0; j < size; j++) sum += bytes[j];
    return sum - OFFSET * (int32_t)size;
}

/* The key and the value of one head in int8; `row` counts positions of all heads. */
static void keep_bytes(to_bytes_fn *to_bytes, const ring_t *ring, int64_t row, int64_t size, const float *k,
                       const float *v) {
    const int64_t wide = whole_size(size), lane = row % KEYS, first = (row - lane) * wide;
    uint8_t bytes[MOST_HEAD];
    int8_t *keys = (int8_t *)ring->keys + first + 4 * lane, *values = (int8_t *)ring->values + first;
    ring->key_scale[row] = to_bytes(bytes, k, size);
    ring->key_sums[row] = OFFSET * sum_of(bytes, size);
    for (int64_t j = 0; j < size; j++) keys[j / 4 * KEYS * 4 + j % 4] = (int8_t)(bytes[j] - OFFSET);
    ring->value_scale[row] = to_bytes(bytes, v, size);
    for (int64_t at = 0; at < size; at += BLOCK) {
        const int64_t part = wide - at < BLOCK ? wide - at : BLOCK, used = size - at < BLOCK ? size - at : BLOCK;
        int8_t *to = values + at * KEYS + lane / 4 * part * 4 + lane % 4;
        for (int64_t j = 0; j < used; j++) to[4 * j] = (int8_t)(bytes[at + j] - OFFSET);
    }
}

/* Puts the keys and values of a token, one row a head, into their place. */
static void keep(const set_t *use, const model_t *m, const ring_t *ring, int64_t position, const float *k,
                 const float *v) {
    const int64_t size = m->head_dim, place = position % ring->capacity;
    for (int64_t i = 0; i < m->kv_heads; i++, k += size, v += size) {
        const int64_t row = i * ring->capacity + place, at = row * size;
        if (m->cache_kind == CACHE_INT8) {
            keep_bytes(use->to_bytes, ring, row, size, k, v);
        } else if (m->cache_kind == CACHE_FLOAT16) {
            use->to_half((uint16_t *)ring->keys + at, k, size);
            use->to_half((uint16_t *)ring->values + at, v, size);
        } else {
            memcpy((float *)ring->keys + at, k, (size_t)size * sizeof(float));
            memcpy((float *)ring->values + at, v, (size_t)size * sizeof(float));
        }
    }
}
