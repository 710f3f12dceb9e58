/* Scaled dot product attention with dropout of its weights, by blocks of queries.
 *
 *     scores = scale q k^T (+ mask),   weights = softmax and dropout of softmax.h,   out = weights v
 *
 *             keys                       A block of rows of the scores, all keys of it that a query may
 *         +-----------+                  attend to, is made, used and forgotten while it is in the cache:
 *         |###........|  first block     no memory that grows with queries times keys. Backward makes it
 *         |######.....|  second block    again. Rows are whole, so that nothing has to be put right
 *         |#########..|  ...             afterwards, and the bits of the mask are those of the whole
 *         +-----------+  (causal)        array of scores, (batch, head, query, key) in C order.
 *
 * Products are a BLAS's, which the caller brings; so sums in them are taken in its order. All else is as in
 * softmax.h. Each block of out is one thread's, and so is each of the sums that dk and dv are made of:
 * results do not depend on how many threads there are.
 */
#ifndef FASTDROP_ATTENTION_H
#define FASTDROP_ATTENTION_H

#include "softmax.h"

/* CBLAS's, with integers of 64 bits */
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
    fd_softmax softmax;    /* kernels, dtype (float32 or float64), causal, scale; the rest is a block's */
    fd_bits bits;          /* of the first score */
    fd_sgemm sgemm;
    fd_dgemm dgemm;
    uint64_t batches, heads, kv_heads, queries, keys, width, value_width;
    uint64_t rows;         /* of a block */
    double scale;          /* of scores */
    fd_heads q, k, v, out;
    fd_heads mask;         /* data may be NULL; of strides 0 where it is shared */
    int mask_is_bool;
    fd_heads dout, dq, dk, dv;    /* backward; dk and dv are zeros before, and are sums: of the blocks */
    uint64_t sums;                /* i, i + sums, ..., in batch i batches + b of theirs */
} fd_attention;

/* Bytes of scratch memory that a thread needs. */
uint64_t fd_attention_scratch(const fd_attention *attention);

/* How many parts there are, each independent of the others: blocks, or sums of heads of k and v. */
uint64_t fd_attention_forward_parts(const fd_attention *attention);
uint64_t fd_attention_backward_parts(const fd_attention *attention);

void fd_attention_forward(const fd_attention *attention, uint64_t part, void *scratch);
void fd_attention_backward(const fd_attention *attention, uint64_t part, void *scratch);

#endif
