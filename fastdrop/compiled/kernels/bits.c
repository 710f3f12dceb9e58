/* Where mask bits come from: drawn from the generator, or stored and repeated along shared axes.
 *
 *   array         |--2048--|--2048--|--...          a chunk: one call of fd_next_words
 *                  \        \
 *   drawn bits  ....|---------|---------|...         tiles of the contract; an array that starts
 *               tile t   ^    tile t+1               inside a tile needs two of them for a chunk
 *                      offset + start
 */
#include "bits.h"

#include <math.h>
#include <string.h>

uint64_t fd_threshold(double p)
{
    return (uint64_t)rint((1.0 - p) * 4294967296.0);
}

/* ---- drawn bits --------------------------------------------------------------------------------- */

/* The mask's next tile; a pending chunk is applied on the way. */
static void draw(fd_walk *walk, uint32_t *words, fd_pending *pending)
{
    const fd_bits *b = walk->bits;
    const uint64_t tile = walk->tile++;
    if (b->threshold == 0 || b->threshold >> 32)
        memset(words, b->threshold ? 0xFF : 0, FD_TILE_WORDS * sizeof *words);
    else if (pending->operands) {
        b->kernels->apply_and_draw[pending->op][pending->dtype](
            pending->words, pending->operands, &b->key, (uint32_t)b->threshold, tile, words);
        pending->operands = NULL;
    } else
        b->kernels->mask_tile(&b->key, (uint32_t)b->threshold, tile, words);
}

static void drawn_words(fd_walk *walk, uint64_t n, uint32_t *words, fd_pending *pending)
{
    const unsigned skip_words = walk->skip / 32, shift = walk->skip % 32;
    if (walk->skip == 0) {
        draw(walk, words, pending);
        return;
    }
    uint32_t *const low = walk->pair, *const high = walk->pair + FD_TILE_WORDS;
    memcpy(low, high, FD_TILE_WORDS * sizeof *low);
    if (walk->skip + n > FD_TILE)
        draw(walk, high, pending);
    const uint32_t *from = walk->pair + skip_words;
    if (shift == 0)
        memcpy(words, from, FD_TILE_WORDS * sizeof *words);
    else
        for (int w = 0; w < FD_TILE_WORDS; w++)
            words[w] = from[w] >> shift | from[w + 1] << (32 - shift);
}

/* ---- stored bits, repeated along shared axes ---------------------------------------------------- */

/* Where bits are written, one after the other: `word` fills up, then goes to `to`. */
typedef struct {
    uint32_t *to;
    uint64_t word;
    unsigned filled;    /* < 64 */
} writer;

static inline writer put_word(writer w, uint64_t bits)
{
    const uint64_t full = w.word | bits << w.filled;
    memcpy(w.to, &full, sizeof full);
    w.to += 2;
    w.word = bits >> 1 >> (63 - w.filled);
    return w;
}

/* 0 < n < 64 bits; those above are 0 */
static inline writer put_bits(writer w, uint64_t bits, unsigned n)
{
    const unsigned filled = w.filled + n;
    if (filled >= 64)
        w = put_word(w, bits);
    else
        w.word |= bits << w.filled;
    w.filled = filled % 64;
    return w;
}

/* Puts the same bit n times. */
static inline writer put_run(writer w, uint64_t bit, uint64_t n)
{
    const uint64_t repeated = 0 - bit, low = (1ull << w.filled) - 1;
    if (n >= 64) {
        uint64_t full = w.word | (repeated & ~low);
        for (; n >= 64; n -= 64, w.to += 2, full = repeated)
            memcpy(w.to, &full, sizeof full);
        w.word = repeated & low;
    }
    return n ? put_bits(w, repeated >> (64 - n), (unsigned)n) : w;
}

/* Returns n <= 64 bits from bit position `at` on, without reading beyond the stored bytes. */
static inline uint64_t stored_bits(const fd_bits *b, uint64_t at, unsigned n)
{
    const uint64_t byte = at / 8, left = b->packed_bytes - byte;
    const unsigned shift = at % 8;
    uint64_t bits = 0;
    if (left > 8) {
        memcpy(&bits, b->packed + byte, 8);
        bits = bits >> shift | (uint64_t)b->packed[byte + 8] << 1 << (63 - shift);
    } else {
        memcpy(&bits, b->packed + byte, left);
        bits >>= shift;
    }
    return bits & ~0ull >> (64 - n);
}

/* Goes to the next row. Rows lie along the innermost axis. */
static void next_row(fd_walk *walk)
{
    const fd_bits *b = walk->bits;
    walk->column = 0;
    for (int d = b->ndim - 2; d >= 0; d--) {
        walk->row += b->stride[d];
        if (++walk->index[d] < b->shape[d])
            break;
        walk->row -= b->shape[d] * b->stride[d];
        walk->index[d] = 0;
    }
}

/* Puts rows that have their own bits. */
static writer put_rows(fd_walk *walk, uint64_t n, writer w)
{
    const uint64_t row = walk->bits->shape[walk->bits->ndim - 1];
    while (n) {
        const uint64_t left = row - walk->column < n ? row - walk->column : n;
        uint64_t at = walk->row + walk->column, rest = left;
        for (; rest >= 64; rest -= 64, at += 64)
            w = put_word(w, stored_bits(walk->bits, at, 64));
        if (rest)
            w = put_bits(w, stored_bits(walk->bits, at, (unsigned)rest), (unsigned)rest);
        n -= left;
        walk->column += left;
        if (walk->column == row)
            next_row(walk);
    }
    return w;
}

/* Puts rows that share a bit. */
static writer put_shared_rows(fd_walk *walk, uint64_t n, writer w)
{
    const fd_bits *b = walk->bits;
    const int outer = b->ndim - 2;
    const uint64_t row = b->shape[b->ndim - 1];
    if (row - walk->column > n && w.filled == 0) {
        memset(w.to, stored_bits(b, walk->row, 1) ? 0xFF : 0, (n + 31) / 32 * sizeof *w.to);
        walk->column += n;
        return w;
    }
    while (n) {
        const uint64_t left = row - walk->column < n ? row - walk->column : n;
        w = put_run(w, stored_bits(b, walk->row, 1), left);
        n -= left;
        walk->column += left;
        if (walk->column < row)
            break;
        next_row(walk);
        if (outer < 0)
            continue;
        /* whole rows, except for the last one of the next outer axis, whose bits are neighbours */
        uint64_t rows = b->shape[outer] - 1 - walk->index[outer];
        if (rows > n / row)
            rows = n / row;
        walk->index[outer] += rows;
        n -= rows * row;
        while (rows) {
            const unsigned some = rows < 64 ? (unsigned)rows : 64;
            uint64_t bits = stored_bits(b, walk->row, some);
            if (row == 64)
                for (unsigned r = 0; r < some; r++, bits >>= 1)
                    w = put_run(w, bits & 1, 64);
            else
                for (unsigned r = 0; r < some; r++, bits >>= 1)
                    w = put_run(w, bits & 1, row);
            walk->row += some;
            rows -= some;
        }
    }
    return w;
}

/* Returns the longest chunk of whole rows if rows repeat along the next outer axis, else 0. Chunks
   start where vectors are aligned. */
static uint64_t period_of(const fd_bits *b)
{
    const int inner = b->ndim - 1;
    const uint64_t row = b->shape[inner];
    if (inner == 0 || b->stride[inner] == 0 || b->stride[inner - 1] || row > FD_TILE)
        return 0;
    const uint64_t period = FD_TILE / row * row;
    return period % 32 ? 0 : period;
}

/* Rows that are shared along the next outer axis repeat. Tells whether this chunk of whole rows is
   like the last one; if so, goes past it. */
static int repeats(fd_walk *walk, uint64_t n)
{
    const fd_bits *b = walk->bits;
    const int outer = b->ndim - 2;
    const uint64_t rows = walk->period_rows;
    if (rows == 0 || n != walk->period)
        return 0;
    const int inside = walk->index[outer] + rows + (walk->column > 0) <= b->shape[outer];
    const int same = walk->repeated && inside && walk->row == walk->last_row;
    walk->repeated = inside;
    walk->last_row = walk->row;
    if (!same)
        return 0;
    walk->index[outer] += rows;
    if (walk->index[outer] == b->shape[outer]) {
        walk->index[outer]--;
        next_row(walk);
    }
    return 1;
}

static void stored_words(fd_walk *walk, uint64_t n, uint32_t *words)
{
    if (repeats(walk, n))
        return;
    writer w = {words, 0, 0};
    if (walk->bits->stride[walk->bits->ndim - 1])
        w = put_rows(walk, n, w);
    else
        w = put_shared_rows(walk, n, w);
    if (w.filled)
        memcpy(w.to, &w.word, sizeof w.word);
}

/* ---- both --------------------------------------------------------------------------------------- */

uint64_t fd_chunk(const fd_bits *bits)
{
    const uint64_t period = bits->packed ? period_of(bits) : 0;
    return period ? period : FD_TILE;
}

void fd_walk_from(fd_walk *walk, const fd_bits *bits, uint64_t start)
{
    walk->bits = bits;
    if (bits->packed) {
        const int inner = bits->ndim - 1;
        uint64_t rest = start / bits->shape[inner];
        walk->column = start % bits->shape[inner];
        walk->row = 0;
        for (int d = inner - 1; d >= 0; d--) {
            walk->index[d] = rest % bits->shape[d];
            rest /= bits->shape[d];
            walk->row += walk->index[d] * bits->stride[d];
        }
        walk->period = period_of(bits);
        walk->period_rows = walk->period / bits->shape[inner];
        walk->repeated = 0;
        return;
    }
    walk->tile = (bits->offset + start) / FD_TILE;
    walk->skip = (unsigned)((bits->offset + start) % FD_TILE);
    memset(walk->pair, 0, sizeof walk->pair);
    if (walk->skip)
        draw(walk, walk->pair + FD_TILE_WORDS, &(fd_pending){0});
}

void fd_next_words(fd_walk *walk, uint64_t n, uint32_t *words, fd_pending *pending)
{
    if (walk->bits->packed)
        stored_words(walk, n, words);
    else
        drawn_words(walk, n, words, pending);
}

void fd_words(const fd_kernels *kernels, const fd_key *key, uint64_t offset, uint64_t n,
              uint32_t *out)
{
    while (n) {
        uint32_t words[64];
        const uint64_t skip = offset % 64, take = n < 64 - skip ? n : 64 - skip;
        if (take == 64)
            kernels->word_tile(key, offset / 64, out);
        else {
            kernels->word_tile(key, offset / 64, words);
            memcpy(out, words + skip, take * sizeof *out);
        }
        offset += take;
        out += take;
        n -= take;
    }
}
