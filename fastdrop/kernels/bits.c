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

/* n <= 32 bits from bit position `at`, without reading past the stored bytes. */
static uint32_t stored_bits(const fd_bits *b, uint64_t at, unsigned n)
{
    const uint64_t byte = at / 8, left = b->packed_bytes - byte;
    uint64_t bits = 0;
    memcpy(&bits, b->packed + byte, left < 8 ? left : 8);
    bits >>= at % 8;
    return (uint32_t)(n < 32 ? bits & ((1u << n) - 1) : bits);
}

static void stored_words(const fd_bits *b, uint64_t start, uint64_t n, uint32_t *words)
{
    const int inner = b->ndim - 1;
    const uint64_t row = b->shape[inner];
    uint64_t index[FD_MAX_DIMS], at = 0, rest = start / row, column = start % row;
    for (int d = inner - 1; d >= 0; d--) {
        index[d] = rest % b->shape[d];
        rest /= b->shape[d];
        at += index[d] * b->stride[d];
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
        if (b->stride[inner])
            bits = stored_bits(b, at + column, piece);
        else
            bits = stored_bits(b, at, 1) ? 0xFFFFFFFFu >> (32 - piece) : 0;
        words[done / 32] |= bits << (done % 32);
        done += piece;
        column += piece;
        if (column == row) {
            column = 0;
            for (int d = inner - 1; d >= 0; d--) {
                at += b->stride[d];
                if (++index[d] < b->shape[d])
                    break;
                at -= b->shape[d] * b->stride[d];
                index[d] = 0;
            }
        }
    }
}

/* ---- both --------------------------------------------------------------------------------------- */

void fd_walk_from(fd_walk *walk, const fd_bits *bits, uint64_t start)
{
    walk->bits = bits;
    walk->start = start;
    if (bits->packed)
        return;
    walk->tile = (bits->offset + start) / FD_TILE;
    walk->skip = (unsigned)((bits->offset + start) % FD_TILE);
    memset(walk->pair, 0, sizeof walk->pair);
    if (walk->skip)
        draw(walk, walk->pair + FD_TILE_WORDS, &(fd_pending){0});
}

void fd_next_words(fd_walk *walk, uint64_t n, uint32_t *words, fd_pending *pending)
{
    if (walk->bits->packed)
        stored_words(walk->bits, walk->start, n, words);
    else
        drawn_words(walk, n, words, pending);
    walk->start += n;
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
