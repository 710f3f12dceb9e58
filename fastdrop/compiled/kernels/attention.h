/* Scaled dot product attention with dropout of its weights, by blocks of queries.
 *
 *     scores = scale q k^T (+ mask),   weights = softmax and dropout of softmax.h,   out = weights v
 *
 *             keys                       A block of rows of the scores, with all keys that a query
 *         +-----------+                  may attend to, is made, used and forgotten in the cache. So
 *         |###........|  first block     no memory grows with queries times keys. Backward makes the
 *         |######.....|  second block    block again. Rows are whole, so nothing has to be corrected
 *         |#########..|  ...             afterwards, and the bits of the mask are those of the whole
 *         +-----------+  (causal)        array of scores, (batch, head, query, key) in C order.
 *
 * A BLAS, which the caller brings, computes products, so it decides on the order of their sums.
 * Everything else is as in softmax.h. One thread computes each block of out, and each of the sums
 * that dk and dv consist of, so results do not depend on the number of threads.
 */
#ifndef FASTDROP_ATTENTION_H
#define FASTDROP_ATTENTION_H

#include "softmax.h"

/* a function of CBLAS, with integers of 64 bits */
typedef void (*fd_sgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                         int64_t k, float alpha, const float *a, int64_t a_stride, const float *b,
                         int64_t b_stride, float beta, float *c, int64_t c_stride);
typedef void (*fd_dgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                         int64_t k, double alpha, const double *a, int64_t a_stride, const double *b,
                         int64_t b_stride, double beta, double *c, int64_t c_stride);

/* (batch, head, row, column); columns lie side by side, the other strides are in elements. */
typedef struct {
    char *data;
    int64_t stride[3];
} fd_heads;

typedef struct {
    fd_softmax softmax;    /* kernels, dtype (float32 or float64), causal, scale; a block's rest */
    fd_bits bits;          /* those of the first score */
    fd_sgemm sgemm;
    fd_dgemm dgemm;
    uint64_t batches, heads, kv_heads, queries, keys, width, value_width;
    uint64_t rows;         /* the rows of a block */
    double scale;          /* the factor of scores */
    fd_heads q, k, v, out;
    fd_heads mask;         /* data may be NULL; strides are 0 where it is shared */
    int mask_is_bool;
    fd_heads dout, dq, dk, dv;    /* for backward; dk and dv are zeros before, and are sums: of */
    uint64_t sums;                /* blocks i, i + sums, ..., in batch i batches + b of theirs */
} fd_attention;

/* Returns how many bytes of scratch memory a thread needs. */
uint64_t fd_attention_scratch(const fd_attention *attention);

/* Returns how many independent parts there are: blocks, or sums of heads of k and v. */
uint64_t fd_attention_forward_parts(const fd_attention *attention);
uint64_t fd_attention_backward_parts(const fd_attention *attention);

void fd_attention_forward(const fd_attention *attention, uint64_t part, void *scratch);
void fd_attention_backward(const fd_attention *attention, uint64_t part, void *scratch);

#endif
