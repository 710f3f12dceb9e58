/* A mask over an array, tile by tile: get 64 words of mask bits, then do something with them.
 *
 *   array       |--2048--|--2048--|--...           one call of fill_words each
 *                \        \
 *   bits      ....|---------|---------|...          generated: tiles of the contract, shifted by
 *             tile t   ^    tile t+1               offset mod 2048, or stored bits, read through
 *                  offset                          axes so that shared axes repeat them
 */
#include <math.h>
#include <string.h>

#include "kernels.h"

uint64_t fd_threshold(double p)
{
    return (uint64_t)rint((1.0 - p) * 4294967296.0);
}

/* ---- generated bits ---------------------------------------------------------------------------- */

/* Two neighbouring tiles, so that an unaligned walk makes each tile once. */
typedef struct {
    uint64_t first;    /* the tile in the lower half; meaningful once valid */
    int valid;
    uint32_t words[2 * FD_TILE_WORDS];
} tile_pair;

static void tile_words(const fd_bits *m, uint64_t tile, uint32_t *words)
{
    if (m->threshold == 0 || m->threshold >> 32)
        memset(words, m->threshold ? 0xFF : 0, FD_TILE_WORDS * sizeof *words);
    else
        m->kernels->mask_tile(&m->key, (uint32_t)m->threshold, tile, words);
}

static void generated_words(const fd_bits *m, tile_pair *pair, uint64_t start, uint64_t n,
                            uint32_t *words)
{
    const uint64_t bit = m->offset + start, tile = bit / FD_TILE;
    const unsigned skip = (unsigned)(bit % FD_TILE), skip_words = skip / 32, shift = skip % 32;
    if (skip == 0) {
        tile_words(m, tile, words);
        return;
    }
    if (pair->valid && pair->first + 1 == tile)
        memcpy(pair->words, pair->words + FD_TILE_WORDS, FD_TILE_WORDS * sizeof *words);
    else
        tile_words(m, tile, pair->words);
    const int both = skip + n > FD_TILE;
    if (both)
        tile_words(m, tile + 1, pair->words + FD_TILE_WORDS);
    else
        memset(pair->words + FD_TILE_WORDS, 0, FD_TILE_WORDS * sizeof *words);
    pair->first = tile;
    pair->valid = both;
    const uint32_t *from = pair->words + skip_words;
    if (shift == 0)
        memcpy(words, from, FD_TILE_WORDS * sizeof *words);
    else
        for (int w = 0; w < FD_TILE_WORDS; w++)
            words[w] = from[w] >> shift | from[w + 1] << (32 - shift);
}

/* ---- stored bits, repeated along shared axes ------------------------------------------------------ */

/* n <= 32 bits from bit position `at`, without reading past the stored bytes. */
static uint32_t stored_bits(const fd_bits *m, uint64_t at, unsigned n)
{
    const uint64_t byte = at / 8, left = m->packed_bytes - byte;
    uint64_t bits = 0;
    memcpy(&bits, m->packed + byte, left < 8 ? left : 8);
    bits >>= at % 8;
    return (uint32_t)(n < 32 ? bits & ((1u << n) - 1) : bits);
}

static void stored_words(const fd_bits *m, uint64_t start, uint64_t n, uint32_t *words)
{
    const int inner = m->ndim - 1;
    const uint64_t row = m->shape[inner];
    uint64_t index[FD_MAX_DIMS], at = 0, rest = start / row, column = start % row;
    for (int d = inner - 1; d >= 0; d--) {
        index[d] = rest % m->shape[d];
        rest /= m->shape[d];
        at += index[d] * m->stride[d];
    }
    memset(words, 0, FD_TILE_WORDS * sizeof *words);
    for (uint64_t done = 0; done < n;) {
        /* a piece ends with its row or with its word, whichever comes first */
        unsigned piece = 32 - (unsigned)(done % 32);
        if (piece > row - column)
            piece = (unsigned)(row - column);
        if (piece > n - done)
            piece = (unsigned)(n - done);
        uint32_t bits;
        if (m->stride[inner])
            bits = stored_bits(m, at + column, piece);
        else
            bits = stored_bits(m, at, 1) ? 0xFFFFFFFFu >> (32 - piece) : 0;
        words[done / 32] |= bits << (done % 32);
        done += piece;
        column += piece;
        if (column == row) {
            column = 0;
            for (int d = inner - 1; d >= 0; d--) {
                at += m->stride[d];
                if (++index[d] < m->shape[d])
                    break;
                at -= m->shape[d] * m->stride[d];
                index[d] = 0;
            }
        }
    }
}

static void fill_words(const fd_bits *m, tile_pair *pair, uint64_t start, uint64_t n,
                       uint32_t *words)
{
    if (m->packed)
        stored_words(m, start, n, words);
    else
        generated_words(m, pair, start, n, words);
}

/* ---- what is done with them ----------------------------------------------------------------------- */

static void store_packed(const uint32_t *words, uint64_t start, uint64_t n, uint8_t *packed)
{
    memcpy(packed + start / 8, words, (n + 7) / 8);
    if (n % 8)
        packed[(start + n) / 8] &= (uint8_t)((1u << n % 8) - 1);
}

static void store_bools(const uint32_t *words, uint64_t start, uint64_t n, uint8_t *bools)
{
    for (uint64_t i = 0; i < n; i++)
        bools[start + i] = words[i / 32] >> (i % 32) & 1;
}

void fd_run(const fd_job *job, uint64_t start, uint64_t n)
{
    static const size_t itemsize[FD_NUM_DTYPES] = {4, 8};
    uint32_t words[FD_TILE_WORDS];
    tile_pair pair;
    pair.valid = 0;
    for (const uint64_t end = start + n; start < end; start += FD_TILE) {
        const uint64_t length = end - start < FD_TILE ? end - start : FD_TILE;
        const uint64_t byte = start * itemsize[job->dtype];
        fill_words(job->bits, &pair, start, length, words);
        if (job->y)
            job->bits->kernels->apply[job->dtype](words, length, (const char *)job->x + byte,
                                                  (char *)job->y + byte, job->scale);
        if (job->packed)
            store_packed(words, start, length, job->packed);
        if (job->bools)
            store_bools(words, start, length, job->bools);
    }
}

void fd_words(const fd_kernels *kernels, const fd_key *key, uint64_t offset, uint64_t n,
              uint32_t *out)
{
    while (n) {
        uint32_t words[64];
        const uint64_t skip = offset % 64, take = n < 64 - skip ? n : 64 - skip;
        kernels->word_tile(key, offset / 64, words);
        memcpy(out, words + skip, take * sizeof *out);
        offset += take;
        out += take;
        n -= take;
    }
}
