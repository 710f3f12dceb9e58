/* Softmax and dropout of its weights, as attention has them: rows of scores in, rows of weights out.
 *
 * x is a row. Every operation is rounded once, in the order written, in float32, or in float64 for
 * float64:
 *
 *     a = x + add          -inf where a key takes no part: where `taken` is 0, or j > query if causal
 *     e = exp(a - max(a))  their sum is taken as 32 sums of every 32nd element, then added in pairs
 *     y = kept ? e (scale / sum) : +0.0
 *
 * and backward, with the same mask, from x and dy:
 *
 *     w = e (1 / sum)
 *     g = kept ? dy scale : +0.0
 *     dx = w (g - sum(w g))         +0.0 where w is below the normal numbers, whatever dy is there
 *
 * A row in which no key takes part, or all scores are -inf, has weights and gradients of 0. A row with
 * NaN or infinity among its scores has weights of NaN, but its dropped weights are 0.
 *
 * exp(a) = 2^n (1 + (r + r^2 q(r))), where n is the integer next to a / log(2), r = a - n log(2),
 * and q comes from the series of exp itself. It is 0 below -87 or -708, where 2^n would not be a
 * normal number, and exact to one unit in the last place (tests/masks/test_softmax.py).
 *
 * Row r's query is (first_query + r) % queries; its element j is kept by bit r keys + j, and lies
 * r stride + j elements after the first.
 */
#ifndef FASTDROP_SOFTMAX_H
#define FASTDROP_SOFTMAX_H

#include "kernels.h"

/* 1.0, as the bits of a float and of a double */
#define ONE_F32 0x3F800000
#define ONE_F64 0x3FF0000000000000

/* The loops of one instruction set, by fd_dtype, or [0] for float32 and [1] for float64. A row of
   numbers to compute with is padded to whole words of 32 elements. */
struct fd_softmax_loops {
    /* row = x + add, or -inf where bits of `taken` are 0, or x; -inf after the last. Returns the
       largest number; NaN does not count. */
    double (*load[FD_NUM_DTYPES])(size_t n, const void *x, const uint32_t *taken, const void *add,
                                  void *row);
    /* row = exp(row - top); returns the sum */
    double (*exponentials[2])(size_t n, double top, void *row);
    /* y = kept ? row factor : +0.0 */
    void (*store[FD_NUM_DTYPES])(size_t n, const uint32_t *kept, const void *row, double factor,
                                 void *y);
    /* row = row factor; returns the sum of row and g */
    double (*dot[FD_NUM_DTYPES])(size_t n, const uint32_t *kept, const void *dy, double scale,
                                 double factor, void *row);
    /* dx = row (g - sum) */
    void (*gradient[FD_NUM_DTYPES])(size_t n, const uint32_t *kept, const void *dy, double scale,
                                    double sum, const void *row, void *dx);
};

typedef struct {
    const fd_kernels *kernels;
    const fd_bits *bits;      /* drawn, not stored */
    fd_dtype dtype;
    const void *x, *dy;       /* dy: NULL forward */
    void *y, *dx;             /* y may be x or NULL, dx may be x or dy; dx is not written forward */
    uint64_t keys, stride;    /* rows are `stride` elements long here, of `keys` in the whole array */
    uint64_t queries, first_query;
    int causal;
    double scale;
    /* the mask, which may be NULL: a byte for each element, or the number to add, in the type to
       compute in. Its row for a row of scores is found by the axes before the last, with strides in
       elements. */
    const uint8_t *taken;
    const void *add;
    int ndim;
    uint64_t shape[FD_MAX_DIMS], mask_stride[FD_MAX_DIMS];
} fd_softmax;

/* Returns how many bytes of scratch memory, 64-byte aligned, a thread needs. */
uint64_t fd_softmax_scratch(const fd_softmax *softmax);

/* Computes rows [first, last), which depend on no others. */
void fd_softmax_rows(const fd_softmax *softmax, uint64_t first, uint64_t last, void *scratch);

#endif
