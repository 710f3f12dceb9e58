/* Blocks of attention, and the products that they consist of. */
#include "attention.h"

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };    /* of CBLAS */

typedef struct {
    const void *data;
    int64_t stride;
    int order;
} matrix;

static size_t itemsize(const fd_attention *a)
{
    return a->softmax.dtype == FD_FLOAT64 ? sizeof(double) : sizeof(float);
}

/* Computes c = alpha a b + beta c; c is (m, n), and the sums are of k products. */
static void multiply(const fd_attention *at, uint64_t m, uint64_t n, uint64_t k, double alpha, matrix a,
                     matrix b, double beta, matrix c)
{
    if (at->softmax.dtype == FD_FLOAT64)
        at->dgemm(ROW_MAJOR, a.order, b.order, (int64_t)m, (int64_t)n, (int64_t)k, alpha, a.data,
                  a.stride, b.data, b.stride, beta, (double *)c.data, c.stride);
    else
        at->sgemm(ROW_MAJOR, a.order, b.order, (int64_t)m, (int64_t)n, (int64_t)k, (float)alpha, a.data,
                  a.stride, b.data, b.stride, (float)beta, (float *)c.data, c.stride);
}

static matrix rows_of(const fd_attention *a, const fd_heads *h, uint64_t batch, uint64_t head,
                      uint64_t row)
{
    const int64_t at = (int64_t)batch * h->stride[0] + (int64_t)head * h->stride[1] +
                       (int64_t)row * h->stride[2];
    return (matrix){h->data + at * (int64_t)itemsize(a), h->stride[2], PLAIN};
}

static matrix transposed(matrix m)
{
    m.order = TRANSPOSED;
    return m;
}

/* Where a block is, and how large it is */
typedef struct {
    uint64_t batch, head, kv_head, first, rows, keys;
} block;

static block block_at(const fd_attention *a, uint64_t batch, uint64_t head, uint64_t number)
{
    block b = {batch, head, head / (a->heads / a->kv_heads), number * a->rows, a->rows, a->keys};
    if (b.rows > a->queries - b.first)
        b.rows = a->queries - b.first;
    if (a->softmax.causal && b.keys > b.first + b.rows)
        b.keys = b.first + b.rows;
    return b;
}

static uint64_t num_blocks(const fd_attention *a)
{
    return (a->queries + a->rows - 1) / a->rows;
}

static uint64_t scores_bytes(const fd_attention *a)
{
    return (a->rows * a->keys * itemsize(a) + 63) / 64 * 64;
}

uint64_t fd_attention_scratch(const fd_attention *a)
{
    fd_softmax s = a->softmax;
    s.stride = a->keys;
    return fd_softmax_scratch(&s) + 2 * scores_bytes(a);
}

/* Computes scores = the block's weights, and gradient = the gradient of the old scores, if any. */
static void softmax_of(const fd_attention *a, const block *b, void *scores, void *gradient,
                       void *scratch)
{
    fd_softmax s = a->softmax;
    fd_bits bits = a->bits;
    bits.offset += ((b->batch * a->heads + b->head) * a->queries + b->first) * a->keys;
    s.bits = &bits;
    s.x = s.y = scores;
    s.dy = s.dx = gradient;
    s.keys = a->keys;
    s.stride = b->keys;
    s.queries = a->queries;
    s.first_query = b->first;
    s.ndim = 1;
    s.shape[0] = b->rows;
    s.mask_stride[0] = (uint64_t)a->mask.stride[2];
    s.taken = NULL;
    s.add = NULL;
    if (a->mask.data && a->mask_is_bool)
        s.taken = (const uint8_t *)a->mask.data + (int64_t)b->batch * a->mask.stride[0] +
                  (int64_t)b->head * a->mask.stride[1] + (int64_t)b->first * a->mask.stride[2];
    else if (a->mask.data)
        s.add = rows_of(a, &a->mask, b->batch, b->head, b->first).data;
    fd_softmax_rows(&s, 0, b->rows, scratch);
}

uint64_t fd_attention_forward_parts(const fd_attention *a)
{
    return a->batches * a->heads * num_blocks(a);
}

void fd_attention_forward(const fd_attention *a, uint64_t part, void *scratch)
{
    const uint64_t head = part / num_blocks(a);
    /* long blocks first, where rows grow */
    const block b = block_at(a, head / a->heads, head % a->heads,
                             num_blocks(a) - 1 - part % num_blocks(a));
    const matrix q = rows_of(a, &a->q, b.batch, b.head, b.first);
    const matrix k = rows_of(a, &a->k, b.batch, b.kv_head, 0);
    const matrix v = rows_of(a, &a->v, b.batch, b.kv_head, 0);
    const matrix scores = {scratch, (int64_t)b.keys, PLAIN};
    multiply(a, b.rows, b.keys, a->width, a->scale, q, transposed(k), 0, scores);
    softmax_of(a, &b, scratch, NULL, (char *)scratch + 2 * scores_bytes(a));
    multiply(a, b.rows, a->value_width, b.keys, 1, scores, v, 0,
             rows_of(a, &a->out, b.batch, b.head, b.first));
}

uint64_t fd_attention_backward_parts(const fd_attention *a)
{
    return a->sums * a->batches * a->kv_heads;
}

static void block_backward(const fd_attention *a, const block *b, uint64_t sum, void *scratch)
{
    const matrix q = rows_of(a, &a->q, b->batch, b->head, b->first);
    const matrix k = rows_of(a, &a->k, b->batch, b->kv_head, 0);
    const matrix v = rows_of(a, &a->v, b->batch, b->kv_head, 0);
    const matrix dout = rows_of(a, &a->dout, b->batch, b->head, b->first);
    const matrix weights = {scratch, (int64_t)b->keys, PLAIN};
    const matrix gradient = {(char *)scratch + scores_bytes(a), (int64_t)b->keys, PLAIN};
    multiply(a, b->rows, b->keys, a->width, a->scale, q, transposed(k), 0, weights);
    multiply(a, b->rows, b->keys, a->value_width, 1, dout, transposed(v), 0, gradient);
    softmax_of(a, b, scratch, (char *)scratch + scores_bytes(a),
               (char *)scratch + 2 * scores_bytes(a));
    multiply(a, b->keys, a->value_width, b->rows, 1, transposed(weights), dout, 1,
             rows_of(a, &a->dv, sum * a->batches + b->batch, b->kv_head, 0));
    multiply(a, b->rows, a->width, b->keys, a->scale, gradient, k, 0,
             rows_of(a, &a->dq, b->batch, b->head, b->first));
    multiply(a, b->keys, a->width, b->rows, a->scale, transposed(gradient), q, 1,
             rows_of(a, &a->dk, sum * a->batches + b->batch, b->kv_head, 0));
}

void fd_attention_backward(const fd_attention *a, uint64_t part, void *scratch)
{
    const uint64_t group = a->heads / a->kv_heads, sum = part % a->sums;
    const uint64_t kv_head = part / a->sums % a->kv_heads, batch = part / a->sums / a->kv_heads;
    for (uint64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (uint64_t i = sum; i < num_blocks(a); i += a->sums) {
            const block b = block_at(a, batch, head, i);
            block_backward(a, &b, sum, scratch);
        }
}
