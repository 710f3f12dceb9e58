/* Blocks of attention, and the products that they consist of. */
#include <math.h>
#include <string.h>

#include "attention.h"

/* Columns come in panels `panel` apart, if a product takes it as its second factor. */
typedef struct {
    char *data;
    int64_t row, column, panel;
} matrix;

static int is_double(const fd_attention *a)
{
    return a->softmax.dtype == FD_FLOAT64;
}

static size_t itemsize(const fd_attention *a)
{
    return is_double(a) ? sizeof(double) : sizeof(float);
}

static const struct fd_product_loops *loops_of(const fd_attention *a)
{
    return a->softmax.kernels->products;
}

/* Computes c = factor a b, or c + factor a b; c is (m, n), and the sums are of k products. */
static void multiply(const fd_attention *at, uint64_t m, uint64_t n, uint64_t k, double factor, matrix a,
                     matrix b, int add, matrix c)
{
    const fd_product p = {.m = m, .n = n, .k = k, .factor = factor, .a = a.data, .b = b.data,
                          .a_row = a.row, .a_column = a.column, .b_row = b.row, .b_panel = b.panel,
                          .b_columns = n, .c_row = c.row, .c = c.data, .add = add};
    loops_of(at)->multiply[is_double(at)](&p);
}

static matrix plain(const fd_attention *a, void *data, int64_t row)
{
    return (matrix){data, row, 1, (int64_t)loops_of(a)->panel[is_double(a)]};
}

static matrix rows_of(const fd_attention *a, const fd_heads *h, uint64_t batch, uint64_t head,
                      uint64_t row)
{
    const int64_t at = (int64_t)batch * h->stride[0] + (int64_t)head * h->stride[1] +
                       (int64_t)row * h->stride[2];
    return plain(a, h->data + at * (int64_t)itemsize(a), h->stride[2]);
}

/* for a first factor */
static matrix transposed(matrix m)
{
    return (matrix){m.data, m.column, m.row, 0};
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

/* ---- scratch memory ----------------------------------------------------------------------------- */

static uint64_t scores_bytes(const fd_attention *a)
{
    return (a->rows * a->keys * itemsize(a) + 63) / 64 * 64;
}

static uint64_t panels_bytes(const fd_attention *a, uint64_t width)
{
    const uint64_t panel = loops_of(a)->panel[is_double(a)];
    return ((a->keys + panel - 1) / panel * panel * width * itemsize(a) + 63) / 64 * 64;
}

/* A part's keys and values, transposed; values for backward. And what a block needs. */
typedef struct {
    matrix keys, values;
    char *scores, *gradient, *softmax;
} space;

static space space_in(const fd_attention *a, char *scratch)
{
    space s;
    s.scores = scratch;
    s.gradient = s.scores + scores_bytes(a);
    s.keys = (matrix){s.gradient + scores_bytes(a), loops_of(a)->panel[is_double(a)], 1, 0};
    s.keys.panel = s.keys.row * (int64_t)a->width;
    s.values = s.keys;
    s.values.data += panels_bytes(a, a->width);
    s.values.panel = s.values.row * (int64_t)a->value_width;
    s.softmax = s.values.data + panels_bytes(a, a->value_width);
    return s;
}

uint64_t fd_attention_scratch(const fd_attention *a)
{
    fd_softmax s = a->softmax;
    s.stride = a->keys;
    return 2 * scores_bytes(a) + panels_bytes(a, a->width) + panels_bytes(a, a->value_width) +
           fd_softmax_scratch(&s);
}

static void pack(const fd_attention *a, const fd_heads *h, uint64_t batch, uint64_t head,
                 uint64_t width, matrix panels)
{
    const matrix m = rows_of(a, h, batch, head, 0);
    loops_of(a)->pack[is_double(a)](width, a->keys, m.data, 1, m.row, panels.data);
}

/* ---- blocks ------------------------------------------------------------------------------------- */

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

static void block_forward(const fd_attention *a, const block *b, const space *s)
{
    const matrix q = rows_of(a, &a->q, b->batch, b->head, b->first);
    const matrix v = rows_of(a, &a->v, b->batch, b->kv_head, 0);
    const matrix weights = plain(a, s->scores, (int64_t)b->keys);
    multiply(a, b->rows, b->keys, a->width, a->scale, q, s->keys, 0, weights);
    softmax_of(a, b, s->scores, NULL, s->softmax);
    multiply(a, b->rows, a->value_width, b->keys, 1, weights, v, 0,
             rows_of(a, &a->out, b->batch, b->head, b->first));
}

static void block_backward(const fd_attention *a, const block *b, uint64_t sum, const space *s)
{
    const matrix q = rows_of(a, &a->q, b->batch, b->head, b->first);
    const matrix k = rows_of(a, &a->k, b->batch, b->kv_head, 0);
    const matrix dout = rows_of(a, &a->dout, b->batch, b->head, b->first);
    const matrix weights = plain(a, s->scores, (int64_t)b->keys);
    const matrix gradient = plain(a, s->gradient, (int64_t)b->keys);
    multiply(a, b->rows, b->keys, a->width, a->scale, q, s->keys, 0, weights);
    multiply(a, b->rows, b->keys, a->value_width, 1, dout, s->values, 0, gradient);
    softmax_of(a, b, s->scores, s->gradient, s->softmax);
    multiply(a, b->keys, a->value_width, b->rows, 1, transposed(weights), dout, 1,
             rows_of(a, &a->dv, sum * a->batches + b->batch, b->kv_head, 0));
    multiply(a, b->rows, a->width, b->keys, a->scale, gradient, k, 0,
             rows_of(a, &a->dq, b->batch, b->head, b->first));
    multiply(a, b->keys, a->width, b->rows, a->scale, transposed(gradient), q, 1,
             rows_of(a, &a->dk, sum * a->batches + b->batch, b->kv_head, 0));
}

uint64_t fd_attention_parts(const fd_attention *a)
{
    return a->sums * a->batches * a->kv_heads;
}

static void clear(const fd_attention *a, matrix m, uint64_t width)
{
    for (uint64_t r = 0; r < a->keys; r++)
        memset(m.data + (int64_t)r * m.row * (int64_t)itemsize(a), 0, width * itemsize(a));
}

void fd_attention_part(const fd_attention *a, uint64_t part, void *scratch)
{
    const space s = space_in(a, scratch);
    const uint64_t group = a->heads / a->kv_heads, sum = part % a->sums;
    const uint64_t kv_head = part / a->sums % a->kv_heads, batch = part / a->sums / a->kv_heads;
    pack(a, &a->k, batch, kv_head, a->width, s.keys);
    if (a->dout.data) {
        pack(a, &a->v, batch, kv_head, a->value_width, s.values);
        clear(a, rows_of(a, &a->dk, sum * a->batches + batch, kv_head, 0), a->width);
        clear(a, rows_of(a, &a->dv, sum * a->batches + batch, kv_head, 0), a->value_width);
    }
    for (uint64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (uint64_t i = sum; i < num_blocks(a); i += a->sums) {
            const block b = block_at(a, batch, head, i);
            if (a->dout.data)
                block_backward(a, &b, sum, &s);
            else
                block_forward(a, &b, &s);
        }
}
