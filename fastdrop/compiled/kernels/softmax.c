/* Softmax row by row: a row stays in the cache from its first pass to its last. */
#include <math.h>
#include <string.h>

#include "softmax.h"

/* ---- mask bits of a row ------------------------------------------------------------------------- */

/* The tile in which the last row ended; short rows share one. */
typedef struct {
    const fd_bits *bits;
    uint64_t tile;
    uint32_t words[FD_TILE_WORDS];
} window;

static inline uint32_t word_at(window *w, uint64_t i)
{
    const uint64_t tile = i / FD_TILE_WORDS;
    if (tile != w->tile) {
        w->bits->kernels->mask_tile(&w->bits->key, (uint32_t)w->bits->threshold, tile, w->words);
        w->tile = tile;
    }
    return w->words[i % FD_TILE_WORDS];
}

/* Computes bits [at, at + n) of the whole mask, from bit 0 on. */
static void kept_words(window *w, uint64_t at, uint64_t n, uint32_t *words)
{
    const fd_bits *b = w->bits;
    const uint64_t count = (n + 31) / 32, first = at / 32;
    const unsigned shift = at % 32;
    if (b->threshold == 0 || b->threshold >> 32) {
        memset(words, b->threshold ? 0xFF : 0, count * sizeof *words);
        return;
    }
    uint64_t low = word_at(w, first);
    for (uint64_t k = 0; k < count; k++) {
        const int more = shift + n > 32 * (k + 1);
        const uint64_t next = more ? word_at(w, first + k + 1) : 0;
        words[k] = (uint32_t)((next << 32 | low) >> shift);
        low = next;
    }
}

/* ---- the other mask ----------------------------------------------------------------------------- */

/* Returns where the mask's row for a row of scores starts, in elements. */
static uint64_t mask_row(const fd_softmax *s, uint64_t row)
{
    uint64_t at = 0;
    for (int d = s->ndim - 1; d >= 0; d--) {
        at += row % s->shape[d] * s->mask_stride[d];
        row /= s->shape[d];
    }
    return at;
}

/* Turns bytes, of which 0 means no and all others yes, into bits. */
static void taken_words(const uint8_t *taken, uint64_t n, uint32_t *words)
{
    for (uint64_t i = 0; i < n; i += 32) {
        const uint64_t left = n - i;
        uint8_t bytes[32] = {0};
        uint32_t word = 0;
        memcpy(bytes, taken + i, left < 32 ? left : 32);
        for (int k = 0; k < 4; k++) {
            uint64_t b;
            memcpy(&b, bytes + 8 * k, sizeof b);
            b |= b >> 4 & 0x0F0F0F0F0F0F0F0F;
            b |= b >> 2 & 0x0303030303030303;
            b |= b >> 1 & 0x0101010101010101;
            /* moves the lowest bit of byte i to bit 56 + i */
            word |= (uint32_t)((b & 0x0101010101010101) * 0x0102040810204080 >> 56) << 8 * k;
        }
        words[i / 32] = word;
    }
}

/* ---- rows --------------------------------------------------------------------------------------- */

static size_t row_itemsize(const fd_softmax *s)
{
    return s->dtype == FD_FLOAT64 ? sizeof(double) : sizeof(float);
}

static uint64_t row_bytes(const fd_softmax *s)
{
    return (s->stride + 63) / 64 * 64 * row_itemsize(s);
}

static uint64_t words_bytes(const fd_softmax *s)
{
    return (s->stride + 511) / 512 * 64;
}

uint64_t fd_softmax_scratch(const fd_softmax *s)
{
    return row_bytes(s) + 2 * words_bytes(s);
}

/* Computes row = the exponentials of the row with n keys; returns their sum. */
static double exponentials_of(const fd_softmax *s, uint64_t r, uint64_t n, const void *x,
                              uint32_t *taken, void *row)
{
    const struct fd_softmax_loops *loops = s->kernels->softmax;
    const void *add = NULL;
    if (s->taken)
        taken_words(s->taken + mask_row(s, r), n, taken);
    else if (s->add)
        add = (const char *)s->add + mask_row(s, r) * row_itemsize(s);
    const double top = loops->load[s->dtype](n, x, s->taken ? taken : NULL, add, row);
    return loops->exponentials[s->dtype == FD_FLOAT64](n, top > -INFINITY ? top : 0, row);
}

void fd_softmax_rows(const fd_softmax *s, uint64_t first, uint64_t last, void *scratch)
{
    const struct fd_softmax_loops *loops = s->kernels->softmax;
    const size_t size = fd_itemsize[s->dtype];
    void *const row = scratch;
    uint32_t *const kept = (uint32_t *)((char *)scratch + row_bytes(s));
    uint32_t *const taken = (uint32_t *)((char *)kept + words_bytes(s));
    window w = {s->bits, UINT64_MAX, {0}};
    for (uint64_t r = first; r < last; r++) {
        const size_t at = r * s->stride * size;
        const uint64_t query = (s->first_query + r) % s->queries;
        const uint64_t n = s->causal && query < s->stride ? query + 1 : s->stride;
        const double sum = exponentials_of(s, r, n, (const char *)s->x + at, taken, row);
        kept_words(&w, s->bits->offset + r * s->keys, n, kept);
        if (s->y) {
            char *const y = (char *)s->y + at;
            loops->store[s->dtype](n, kept, row, sum == 0 ? 0 : s->scale / sum, y);
            memset(y + n * size, 0, (s->stride - n) * size);
        }
        if (s->dy) {
            const char *const dy = (const char *)s->dy + at;
            char *const dx = (char *)s->dx + at;
            const double dot =
                loops->dot[s->dtype](n, kept, dy, s->scale, sum == 0 ? 0 : 1 / sum, row);
            loops->gradient[s->dtype](n, kept, dy, s->scale, dot, row, dx);
            memset(dx + n * size, 0, (s->stride - n) * size);
        }
    }
}
