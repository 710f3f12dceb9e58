/* Optimisers: one pass over a parameter, its gradient and its state.
 *
 * With w a parameter's element, d the gradient of the loss without penalties, and every operation
 * rounded once, in the order written, in the parameter's own type:
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
 * then, where max_norm is finite, each row of a larger Euclidean norm is multiplied by
 * max_norm / norm while it is in the cache. A step in which limit is infinite, scale 1 and the other
 * three 0 is plain: g = d, and w is not decayed.
 *
 * Numbers below the normal ones, 1.2e-38 or 2.2e-308, are 0, where they are read and where they come
 * out. A state whose gradient has become 0, of a dead unit or a pixel that is nearly always white,
 * sinks among them in some hundred steps, never leaves them (m = m 0.9 rounds to itself), and
 * makes a step of Adam up to twice as long.
 *
 * Elements are independent; a sum of squares is taken in double, as 16 sums of every 16th element
 * that are then added in pairs. So results are the same on every instruction set and whatever rows
 * a thread gets; but ARM calls a number too small before rounding, x86 after, and other machines
 * keep such numbers. Nothing here allocates, fails, starts threads or knows Python.
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
    /* n elements of a parameter, its gradient and the states in the order of the formulas above;
       [1] is for steps that are not plain */
    void (*update[FD_NUM_OPTIMIZERS][2][2])(size_t n, const fd_step *step, void *w, const void *d,
                                            void *const *state);
    void (*gradient[2])(size_t n, const fd_step *step, const void *w, const void *d, void *g);
    double (*square_sum[2])(size_t n, const void *x);
    void (*multiply[2])(size_t n, double factor, void *x);
    /* 64 elements of d for each word: the next of the values where a bit is 1, else 0; or add
       that. How many values these were. */
    size_t (*spread[2])(size_t words, const uint64_t *bits, const void *values, void *d, int add);
    /* the way back: those of n elements of x that are in columns, which are also bits */
    void (*pick_columns[2])(size_t n, const uint64_t *bits, size_t num_columns,
                            const intptr_t *columns, const void *x, void *values);
};

/* What values add to a gradient: d[rows[i]][columns[j]] += values[i][j]. Rows strictly ascend;
   columns are the bits that are 1, padded with 0 to whole words. */
typedef struct {
    uint64_t num_rows, num_columns;
    const intptr_t *rows;
    uint64_t *column_bits;
    const void *values;
} fd_part;

/* A parameter of n elements in rows of `columns`, of which the last may be shorter. */
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

/* Is the step plain? */
int fd_is_plain(const fd_step *step);

uint64_t fd_num_rows(const fd_update *update);

/* Bytes of scratch memory, 64-byte aligned, that a thread needs. */
uint64_t fd_update_scratch(const fd_update *update);

/* Rows [first, last). */
void fd_update_rows(const fd_update *update, uint64_t first, uint64_t last, void *scratch);

/* sums[row] = sum of g's squares, for rows [first, last). */
void fd_gradient_squares(const fd_update *update, uint64_t first, uint64_t last, void *scratch,
                         double *sums);

/* values[i][j] = matrix[rows[i]][columns[j]] for i in [first, last), of rows of `width`; without
   rows matrix[i][...], without columns whole rows. Columns strictly ascend, and are also given as
   bits. */
void fd_submatrix(const fd_kernels *kernels, int is_double, const void *matrix, uint64_t width,
                  const intptr_t *rows, uint64_t first, uint64_t last, const uint64_t *column_bits,
                  const intptr_t *columns, uint64_t num_columns, void *values);

#endif
