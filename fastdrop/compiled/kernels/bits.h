/* A walk over the bits of a mask, in chunks of FD_TILE elements. */
#ifndef FASTDROP_BITS_H
#define FASTDROP_BITS_H

#include "kernels.h"

typedef struct {
    const fd_bits *bits;
    uint64_t tile;     /* drawn bits: the next tile, */
    unsigned skip;     /* how many bits of a tile lie before a chunk, */
    uint32_t pair[2 * FD_TILE_WORDS];    /* and the two tiles that a chunk lies in, if skip > 0 */
    uint64_t index[FD_MAX_DIMS], column;    /* stored bits: the array's next element, */
    uint64_t row;                           /* and the bit that belongs to the start of its row; */
    uint64_t period, period_rows;           /* rows that repeat: a chunk's length, */
    uint64_t last_row;                      /* also in rows, the last chunk's row, */
    int repeated;                           /* and whether the chunk was all of one row */
} fd_walk;

/* A whole chunk that has its words and waits to be applied; operands are NULL if there is none. */
typedef struct {
    fd_op op;
    fd_dtype dtype;
    const uint32_t *words;
    const fd_operands *operands;
} fd_pending;

/* Returns the length of the chunks to walk in, FD_TILE or less. */
uint64_t fd_chunk(const fd_bits *bits);

void fd_walk_from(fd_walk *walk, const fd_bits *bits, uint64_t start);

/* Computes the words of the next n <= FD_TILE elements. If a tile is drawn, a pending chunk is
   applied on the way, and its operands are set to NULL. Stored bits need `words` as the last call
   left them. */
void fd_next_words(fd_walk *walk, uint64_t n, uint32_t *words, fd_pending *pending);

#endif
