/* Optimisers: one pass over a parameter, its gradient and its state.
 *
 * w is an element of a parameter, and d the gradient of the loss without penalties. Every operation
 * is rounded once, in the order written, in the parameter's own type:
 *
 *     g = clip((d + l2 w) + l1 sign(w), -limit, limit) * scale         sign(0) = 0
 *     w = w - w * decay
 *
 *     FD_SGD            w -= g rate
 *     FD_MOMENTUM       v = v momentum - g rate;  w += v
 *     FD_NESTEROV       v = v momentum - g rate;  w += v momentum - g rate
 *     FD_ADAM           m += (g - m) gain;  v += (g g - v) square_gain;
 *                       w -= m rate / (sqrt(v) + epsilon)
 *     FD_RMSPROP        v = v keep + g g square_gain;  w -= rate g / sqrt(v + epsilon)
 *       ..._CENTERED    a = a keep + g square_gain;  max(v - a a, 0) in place of v under the root
 *       ..._MOMENTUM    u = u momentum + rate g / sqrt(...);  w -= u
 *
 * Then, if max_norm is finite, each row with a larger Euclidean norm is multiplied by
 * max_norm / norm while it is in the cache. A step in which limit is infinite, scale is 1 and the
 * other three are 0 is plain: g = d, and w does not decay.
 *
 * Numbers below the normal range, 1.2e-38 or 2.2e-308, count as 0, where they are read and where
 * they result. The state of a gradient that has become 0 (of a dead unit, or of a pixel that is
 * nearly always white) reaches this range in some hundred steps and never leaves it (m = m 0.9
 * rounds to itself). It would make a step of Adam take up to twice as long.
 *
 * Elements are independent. A sum of squares is taken in double, as 16 sums of every 16th element,
 * which are then added in pairs. So results are the same on every instruction set, and for any
 * split of the rows among threads. But ARM decides before rounding that a number is too small, x86
 * afterwards, and other machines keep such numbers. Nothing here allocates, fails, starts threads
 * or knows Python.
 */
#ifndef FASTDROP_OPTIMIZERS_H
#define FASTDROP_OPTIMIZERS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

typedef enum {
    FD_SGD,
    FD_MOMENTUM,
    FD_NESTEROV,
    FD_ADAM,
    FD_RMSPROP,
    FD_RMSPROP_MOMENTUM,
    FD_RMSPROP_CENTERED,
    FD_RMSPROP_CENTERED_MOMENTUM,
    FD_NUM_OPTIMIZERS
} fd_optimizer;

enum { FD_MAX_STATES = 3 };

typedef struct {
    double rate, momentum, keep, gain, square_gain, epsilon;
    double l1, l2, limit, scale, decay;
} fd_step;

/* The loops of one instruction set; [0] for float, [1] for double. */
struct fd_optimizer_loops {
    /* updates n elements of a parameter, from its gradient and the states in the order of the
       formulas above; [1] is for steps that are not plain */
    void (*update[FD_NUM_OPTIMIZERS][2][2])(size_t n, const fd_step *step, void *w, const void *d,
                                            void *const *state);
    void (*gradient[2])(size_t n, const fd_step *step, const void *w, const void *d, void *g);
    double (*square_sum[2])(size_t n, const void *x);
    void (*multiply[2])(size_t n, double factor, void *x);
    /* makes 64 elements of d of each word: the next one of the values where a bit is 1, else 0; or
       adds that. Returns how many values these were. */
    size_t (*spread[2])(size_t words, const uint64_t *bits, const void *values, void *d, int add);
    /* the opposite: picks those of n elements of x that are in columns, which are also bits */
    void (*pick_columns[2])(size_t n, const uint64_t *bits, size_t num_columns,
                            const intptr_t *columns, const void *x, void *values);
};

/* What values add to a gradient: d[rows[i]][columns[j]] += values[i][j]. Rows strictly ascend. The
   columns are the bits that are 1, padded with 0 to whole words. */
typedef struct {
    uint64_t num_rows, num_columns;
    const intptr_t *rows;
    uint64_t *column_bits;
    const void *values;
} fd_part;

/* A parameter of n elements in rows of `columns`; the last row may be shorter. */
typedef struct {
    const fd_kernels *kernels;
    fd_optimizer optimizer;
    int is_double;
    fd_step step;
    double max_norm;
    void *w, *state[FD_MAX_STATES];
    const void *d;           /* NULL: the sum of the parts */
    const fd_part *parts;
    uint64_t num_parts, n, columns;
} fd_update;

/* Tells whether the step is plain. */
int fd_is_plain(const fd_step *step);

uint64_t fd_num_rows(const fd_update *update);

/* Returns how many bytes of scratch memory, 64-byte aligned, a thread needs. */
uint64_t fd_update_scratch(const fd_update *update);

/* Updates rows [first, last). */
void fd_update_rows(const fd_update *update, uint64_t first, uint64_t last, void *scratch);

/* Computes sums[row] = sum of the squares of g, for rows [first, last). */
void fd_gradient_squares(const fd_update *update, uint64_t first, uint64_t last, void *scratch,
                         double *sums);

/* Computes values[i][j] = matrix[rows[i]][columns[j]] for i in [first, last) of num_rows, for rows of
   `width`. Without rows it takes matrix[i], without columns whole rows. Columns strictly ascend, and
   are also given as bits. */
void fd_submatrix(const fd_kernels *kernels, int is_double, const void *matrix, uint64_t width,
                  const intptr_t *rows, uint64_t num_rows, uint64_t first, uint64_t last,
                  const uint64_t *column_bits, const intptr_t *columns, uint64_t num_columns,
                  void *values);

#endif
