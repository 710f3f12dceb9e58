/* DropBlock (Ghiasi, Lin, Le 2018): squares of feature maps, one sample at a time.
 *
 *   corners drawn        rows or-ed over the      shifted right and         kept = what is
 *                        block's height           or-ed, likewise           not covered
 *   . . . .              . . . .                  . . . . . .
 *   . x . .              . x . .                  . x x x . .
 *   . . . .              . x . .                  . x x x . .
 *                        . x . .                  . x x x . .
 *
 * in words of 64 columns, so that a block costs little more than a bit.
 */
#include <string.h>

#include "kernels.h"

static uint64_t words_of(uint64_t bits) { return (bits + 63) / 64; }

/* Returns the size of the corners of a sample, its kept elements, and a row. Each has a word more,
   which may be read or written. */
uint64_t fd_blocks_scratch(const fd_blocks *b)
{
    const uint64_t corners = b->maps * (b->height - b->block + 1) * (b->width - b->block + 1);
    return words_of(corners) + words_of(b->maps * b->height * b->width) + words_of(b->width) + 3;
}

/* Returns 1 to 64 bits from bit `at` on. */
static uint64_t bits_at(const uint64_t *words, uint64_t at, uint64_t n)
{
    const unsigned shift = at % 64;
    const uint64_t bits = words[at / 64] >> shift | words[at / 64 + 1] << 1 << (63 - shift);
    return n < 64 ? bits & ((1ull << n) - 1) : bits;
}

/* Computes words |= words << d, as one long number. */
static void or_shifted(uint64_t *words, uint64_t n, uint64_t d)
{
    const uint64_t skip = d / 64;
    const unsigned shift = d % 64;
    for (uint64_t k = n; k-- > skip;) {
        words[k] |= words[k - skip] << shift;
        if (shift && k > skip)
            words[k] |= words[k - skip - 1] >> (64 - shift);
    }
}

/* Computes row `row` of a map, in which 1 means covered by a block. */
static void cover_row(const fd_blocks *b, const uint64_t *corners, uint64_t map, uint64_t row,
                      uint64_t *covered)
{
    const uint64_t rows = b->height - b->block + 1, columns = b->width - b->block + 1;
    const uint64_t first = row + 1 > b->block ? row + 1 - b->block : 0;
    const uint64_t last = row < rows ? row : rows - 1;
    memset(covered, 0, words_of(b->width) * sizeof *covered);
    for (uint64_t r = first; r <= last; r++) {
        const uint64_t at = (map * rows + r) * columns;
        for (uint64_t column = 0; column < columns; column += 64) {
            const uint64_t n = columns - column < 64 ? columns - column : 64;
            covered[column / 64] |= bits_at(corners, at + column, n);
        }
    }
    for (uint64_t width = 1; width < b->block;) {
        const uint64_t more = b->block - width < width ? b->block - width : width;
        or_shifted(covered, words_of(b->width), more);
        width += more;
    }
}

/* Computes which elements of a sample are kept, one bit each; returns how many. */
static uint64_t keep_uncovered(const fd_blocks *b, const uint64_t *corners, uint64_t *row,
                               uint64_t *kept)
{
    uint64_t count = 0, at = 0;
    memset(kept, 0, (words_of(b->maps * b->height * b->width) + 1) * sizeof *kept);
    for (uint64_t map = 0; map < b->maps; map++)
        for (uint64_t r = 0; r < b->height; r++) {
            cover_row(b, corners, map, r, row);
            for (uint64_t column = 0; column < b->width; column += 64) {
                const uint64_t n = b->width - column < 64 ? b->width - column : 64;
                const uint64_t bits = ~row[column / 64] & ~0ull >> (64 - n);
                const unsigned shift = at % 64;
                kept[at / 64] |= bits << shift;
                kept[at / 64 + 1] |= bits >> 1 >> (63 - shift);
                count += (uint64_t)__builtin_popcountll(bits);
                at += n;
            }
        }
    return count;
}

void fd_drop_blocks(const fd_blocks *b, uint64_t sample, uint64_t *scratch)
{
    const uint64_t n = b->maps * b->height * b->width;
    const uint64_t places = b->maps * (b->height - b->block + 1) * (b->width - b->block + 1);
    uint64_t *const corners = scratch, *const kept = corners + words_of(places) + 1;
    uint64_t *const row = kept + words_of(n) + 1;

    fd_bits drawn = *b->job.bits;
    drawn.offset += sample * places;
    const fd_job draw = {.kernels = b->job.kernels, .bits = &drawn, .packed = (uint8_t *)corners};
    fd_run(&draw, 0, places);
    for (uint64_t k = 0; k < words_of(places); k++)
        corners[k] = ~corners[k];    /* a bit of the mask is 1 where there is no corner */
    const uint64_t count = keep_uncovered(b, corners, row, kept);

    const fd_bits stored = {.packed = (const uint8_t *)kept, .packed_bytes = (n + 7) / 8,
                            .ndim = 1, .shape = {n}, .stride = {1}};
    fd_job apply = b->job;
    apply.bits = &stored;
    apply.scale = count ? (double)n / (double)count : 0.0;
    apply.x = (const char *)apply.x + sample * n * fd_itemsize[apply.dtype];
    apply.y = (char *)apply.y + sample * n * fd_itemsize[apply.dtype];
    fd_run(&apply, 0, n);
}
