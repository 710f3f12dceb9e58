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
 * products.h has the products. Keys, and for backward values, are transposed once for all blocks of a
 * part. One thread computes each block of out, and each of the sums that dk and dv consist of, so
 * results do not depend on the number of threads.
 */
#ifndef FASTDROP_ATTENTION_H
#define FASTDROP_ATTENTION_H

#include "products.h"
#include "softmax.h"

/* (batch, head, row, column); columns lie side by side, the other strides are in elements. */
typedef struct {
    char *data;
    int64_t stride[3];
} fd_heads;

typedef struct {
    fd_softmax softmax;    /* kernels, dtype (float32 or float64), causal, scale; a block's rest */
    fd_bits bits;          /* those of the first score */
    uint64_t batches, heads, kv_heads, queries, keys, width, value_width;
    uint64_t rows;         /* the rows of a block */
    double scale;          /* the factor of scores */
    fd_heads q, k, v, out;
    fd_heads mask;         /* data may be NULL; strides are 0 where it is shared */
    int mask_is_bool;
    fd_heads dout, dq, dk, dv;    /* for backward; dout.data is NULL forward */
    uint64_t sums;         /* A part has blocks i, i + sums, ... of the heads that share keys. Backward */
                           /* it has its own dk and dv, in batch i batches + b of theirs. */
} fd_attention;

/* Returns how many bytes of scratch memory, 64-byte aligned, a thread needs. */
uint64_t fd_attention_scratch(const fd_attention *attention);

/* Returns how many parts there are, which are independent. */
uint64_t fd_attention_parts(const fd_attention *attention);

/* Computes out, or dq, dk and dv, of a part. */
void fd_attention_part(const fd_attention *attention, uint64_t part, void *scratch);

#endif
