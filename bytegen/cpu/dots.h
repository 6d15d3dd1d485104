/* Products of whole numbers: sums[r][o] = sum over i of x[r][i] * w[i][o], x of bytes without a sign and w of bytes with
   one, the sums exact in 32 bits. So every instruction set gives the same. Inputs lie in fours, as the instruction of
   AVX-512 VNNI takes them: w is [fours][wide][4], wide a multiple of 16 and at most BLOCK. Meanwhile `fetch` lines of 64
   bytes for each four are asked for from `next` on, which will be read soon. */

#define DOT_ROWS 6 /* rows, at most, of one call */

typedef void dots_fn(int32_t *restrict sums, const uint8_t *restrict x, int64_t x_stride, int rows,
                     const int8_t *restrict w, int64_t fours, int64_t wide, const char *next, int fetch);

#ifdef __GNUC__
#define FETCH(p) __builtin_prefetch(p)
#define FIXED static inline __attribute__((always_inline))
#else
#define FETCH(p) (void)0
#define FIXED static inline
#endif

#ifdef VECTORS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni")
/* gcc 12 keeps a copy in memory of every sum that its own intrinsic adds to, which with six rows takes 2.6 times as long. */
#define ADD_DOTS(sum, one, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(one), "v"(w))
FIXED void dot_tile_vnni(const int rows, const int count, int32_t *restrict sums, const uint8_t *restrict x,
                         int64_t x_stride, const int8_t *restrict w, int64_t fours, int64_t wide, const char *next,
                         int fetch) {
    __m512i all[DOT_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < count; c++) all[r][c] = _mm512_setzero_si512();
    for (int64_t i = 0; i < fours; i++) {
        __m512i ws[4];
        for (int f = 0; f < fetch; f++, next += 64) FETCH(next);
        for (int c = 0; c < count; c++) ws[c] = _mm512_loadu_si512(w + (i * wide + c * 16) * 4);
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * x_stride + 4 * i, 4);
            const __m512i one = _mm512_set1_epi32(four);
            for (int c = 0; c < count; c++) ADD_DOTS(all[r][c], one, ws[c]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < count; c++) _mm512_storeu_si512(sums + r * BLOCK + c * 16, all[r][c]);
}

static void dots_vnni(int32_t *restrict sums, const uint8_t *restrict x, int64_t x_stride, int rows,
                      const int8_t *restrict w, int64_t fours, int64_t wide, const char *next, int fetch) {
    int64_t at = 0;
    for (; at + 64 <= wide; at += 64) {
#define ROWS_OF(n) \
    case n: dot_tile_vnni(n, 4, sums + at, x, x_stride, w + 4 * at, fours, wide, next, fetch); break;
        switch (rows) { ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4) ROWS_OF(5) ROWS_OF(6) }
#undef ROWS_OF
    }
    for (; at < wide; at += 16)
        for (int r = 0; r < rows; r++)
            dot_tile_vnni(1, 1, sums + r * BLOCK + at, x + r * x_stride, 0, w + 4 * at, fours, wide, next, 0);
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2")
/* Numbers of 16 bits, whose products are added in pairs: each output is the sum of two lanes. */
FIXED void dot_tile_avx2(const int rows, int32_t *restrict sums, const uint8_t *restrict x, int64_t x_stride,
                         const int8_t *restrict w, int64_t fours, int64_t wide, const char *next, int fetch) {
    __m256i all[2][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++) all[r][c] = _mm256_setzero_si256();
    for (int64_t i = 0; i < fours; i++) {
        __m256i ws[4];
        for (int f = 0; f < fetch; f++, next += 64) FETCH(next);
        for (int c = 0; c < 4; c++)
            ws[c] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + (i * wide + c * 4) * 4)));
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * x_stride + 4 * i, 4);
            const __m256i one = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
            for (int c = 0; c < 4; c++) all[r][c] = _mm256_add_epi32(all[r][c], _mm256_madd_epi16(ws[c], one));
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c += 2) {
            const __m256i both = _mm256_hadd_epi32(all[r][c], all[r][c + 1]);
            _mm256_storeu_si256((__m256i *)(sums + r * BLOCK + c * 4), _mm256_permute4x64_epi64(both, 0xD8));
        }
}

static void dots_avx2(int32_t *restrict sums, const uint8_t *restrict x, int64_t x_stride, int rows,
                      const int8_t *restrict w, int64_t fours, int64_t wide, const char *next, int fetch) {
    for (int64_t at = 0; at < wide; at += 16) {
        int r = 0;
        for (; r + 2 <= rows; r += 2)
            dot_tile_avx2(2, sums + r * BLOCK + at, x + r * x_stride, x_stride, w + 4 * at, fours, wide, next, at ? 0 : fetch);
        if (r < rows)
            dot_tile_avx2(1, sums + r * BLOCK + at, x + r * x_stride, x_stride, w + 4 * at, fours, wide, next, at ? 0 : fetch);
    }
}
#pragma GCC pop_options
#endif

static void dots_plain(int32_t *restrict sums, const uint8_t *restrict x, int64_t x_stride, int rows,
                       const int8_t *restrict w, int64_t fours, int64_t wide, const char *next, int fetch) {
    (void)next, (void)fetch;
    for (int r = 0; r < rows; r++)
        for (int64_t o = 0; o < wide; o++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < fours; i++)
                for (int j = 0; j < 4; j++) sum += (int32_t)x[r * x_stride + 4 * i + j] * w[(i * wide + o) * 4 + j];
            sums[r * BLOCK + o] = sum;
        }
}
