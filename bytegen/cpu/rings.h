/* How keys and values are put into a ring: see `ring_t`. */

/* The ring of one head in int8. */
static char *whole_ring(const ring_t *ring, int64_t head, int64_t size) {
    return (char *)ring->keys + head * (ring->capacity / KEYS) * record_bytes(whole_size(size));
}

/* Puts the keys and values of a token, one row a head, into their place. */
static void keep(const set_t *use, const model_t *m, const ring_t *ring, int64_t position, const float *k,
                 const float *v) {
    const int64_t size = m->head_dim, place = position % ring->capacity;
    for (int64_t i = 0; i < m->kv_heads; i++, k += size, v += size) {
        const int64_t at = (i * ring->capacity + place) * size;
        if (m->cache_kind == CACHE_INT8) {
            use->keep_bytes(whole_ring(ring, i, size), place, size, k, v);
        } else if (m->cache_kind == CACHE_FLOAT16) {
            use->to_half((uint16_t *)ring->keys + at, k, size);
            use->to_half((uint16_t *)ring->values + at, v, size);
        } else {
            memcpy((float *)ring->keys + at, k, (size_t)size * sizeof(float));
            memcpy((float *)ring->values + at, v, (size_t)size * sizeof(float));
        }
    }
}
