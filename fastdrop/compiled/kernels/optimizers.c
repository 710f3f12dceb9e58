/* Parameters row by row; a row of a gradient in parts is put together where it is used. */
#include <math.h>
#include <string.h>

#include "denormals.h"
#include "optimizers.h"

int fd_is_plain(const fd_step *step)
{
    return step->l1 == 0 && step->l2 == 0 && step->decay == 0 && step->scale == 1 &&
           step->limit == INFINITY;
}

uint64_t fd_num_rows(const fd_update *u)
{
    return (u->n + u->columns - 1) / u->columns;
}

static size_t itemsize(const fd_update *u)
{
    return u->is_double ? sizeof(double) : sizeof(float);
}

/* A thread's scratch memory: the place of each part's walk down the rows; a row of d; one of g. */
typedef struct {
    uint64_t next;          /* index of the part's first row that has not been passed */
    const char *values;     /* values of the current row that are still to come; NULL if none */
} cursor;

static uint64_t cursors_bytes(const fd_update *u)
{
    return (u->num_parts * sizeof(cursor) + 63) / 64 * 64;
}

static uint64_t row_bytes(const fd_update *u)
{
    return (u->columns + 63) / 64 * 64 * itemsize(u);
}

uint64_t fd_update_scratch(const fd_update *u)
{
    return cursors_bytes(u) + 2 * row_bytes(u);
}

/* Returns the index of the part's first row that is not before `row`. */
static uint64_t first_from(const fd_part *part, uint64_t row)
{
    uint64_t low = 0, high = part->num_rows;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if ((uint64_t)part->rows[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void start_at(const fd_update *u, uint64_t row, cursor *cursors)
{
    for (uint64_t p = 0; p < u->num_parts; p++)
        cursors[p].next = first_from(&u->parts[p], row);
}

/* Goes to a row, the next one or a later one, and tells whether it is in any part. */
static int enter_row(const fd_update *u, uint64_t row, cursor *cursors)
{
    int any = 0;
    for (uint64_t p = 0; p < u->num_parts; p++) {
        const fd_part *part = &u->parts[p];
        const uint64_t i = cursors[p].next;
        cursors[p].values = NULL;
        if (i < part->num_rows && (uint64_t)part->rows[i] == row) {
            cursors[p].values = (const char *)part->values + i * part->num_columns * itemsize(u);
            cursors[p].next++;
            any = 1;
        }
    }
    return any;
}

/* Makes the current row of d from `column` on, n columns and the rest up to a multiple of 64. Calls
   for a row follow each other from column 0 on. */
static void spread(const fd_update *u, cursor *cursors, uint64_t column, size_t n, void *d)
{
    const struct fd_optimizer_loops *loops = u->kernels->optimizers;
    int add = 0;
    for (uint64_t p = 0; p < u->num_parts; p++) {
        if (!cursors[p].values)
            continue;
        cursors[p].values += itemsize(u) * loops->spread[u->is_double](
            (n + 63) / 64, u->parts[p].column_bits + column / 64, cursors[p].values, d, add);
        add = 1;
    }
    if (!add)
        memset(d, 0, n * itemsize(u));
}

static size_t row_length(const fd_update *u, uint64_t row)
{
    const uint64_t left = u->n - row * u->columns;
    return left < u->columns ? left : u->columns;
}

static void update_elements(const fd_update *u, uint64_t at, size_t n, const void *d)
{
    const int general = !fd_is_plain(&u->step);
    void *state[FD_MAX_STATES];
    for (int i = 0; i < FD_MAX_STATES; i++)
        state[i] = u->state[i] ? (char *)u->state[i] + at * itemsize(u) : NULL;
    u->kernels->optimizers->update[u->optimizer][u->is_double][general](
        n, &u->step, (char *)u->w + at * itemsize(u), d, state);
}

/* Works in pieces so short that the processor spreads one while it divides for the last one. */
static void update_row_of_parts(const fd_update *u, uint64_t row, cursor *cursors)
{
    enum { PIECE = 256 };
    static const _Alignas(64) double zeros[PIECE];
    _Alignas(64) double d[PIECE];
    const int any = enter_row(u, row, cursors);
    for (uint64_t column = 0; column < u->columns; column += PIECE) {
        const size_t left = u->columns - column, n = left < PIECE ? left : PIECE;
        if (any)
            spread(u, cursors, column, n, d);
        update_elements(u, row * u->columns + column, n, any ? d : zeros);
    }
}

void fd_update_rows(const fd_update *u, uint64_t first, uint64_t last, void *scratch)
{
    const struct fd_optimizer_loops *loops = u->kernels->optimizers;
    const fd_float_mode before = fd_flush_denormals();
    start_at(u, first, scratch);
    for (uint64_t row = first; row < last; row++) {
        const uint64_t at = row * u->columns;
        const size_t n = row_length(u, row);
        if (u->d)
            update_elements(u, at, n, (const char *)u->d + at * itemsize(u));
        else
            update_row_of_parts(u, row, scratch);
        if (u->max_norm < INFINITY) {
            void *const w = (char *)u->w + at * itemsize(u);
            const double norm = sqrt(loops->square_sum[u->is_double](n, w));
            if (norm > u->max_norm)
                loops->multiply[u->is_double](n, u->max_norm / norm, w);
        }
    }
    fd_restore_float_mode(before);
}

void fd_gradient_squares(const fd_update *u, uint64_t first, uint64_t last, void *scratch,
                         double *sums)
{
    const struct fd_optimizer_loops *loops = u->kernels->optimizers;
    char *const spread_d = (char *)scratch + cursors_bytes(u), *const g = spread_d + row_bytes(u);
    const fd_float_mode before = fd_flush_denormals();
    start_at(u, first, scratch);
    for (uint64_t row = first; row < last; row++) {
        const size_t at = row * u->columns * itemsize(u), n = row_length(u, row);
        const void *d = spread_d;
        if (u->d)
            d = (const char *)u->d + at;
        else {
            enter_row(u, row, scratch);
            spread(u, scratch, 0, n, spread_d);
        }
        if (!fd_is_plain(&u->step)) {
            loops->gradient[u->is_double](n, &u->step, (const char *)u->w + at, d, g);
            d = g;
        }
        sums[row] = loops->square_sum[u->is_double](n, d);
    }
    fd_restore_float_mode(before);
}

/* Rows of a shuffled batch lie far apart, and the processor's own prefetching begins anew with each
   row and each page. So that many rows before it is copied, that many bytes of each row are asked
   for, into the second cache: the first one would hold fewer requests. */
enum { ROWS_AHEAD = 8, BYTES_AHEAD = 8192 };

void fd_submatrix(const fd_kernels *kernels, int is_double, const void *matrix, uint64_t width,
                  const intptr_t *rows, uint64_t num_rows, uint64_t first, uint64_t last,
                  const uint64_t *column_bits, const intptr_t *columns, uint64_t num_columns,
                  void *values)
{
    const size_t size = is_double ? sizeof(double) : sizeof(float);
    for (uint64_t i = first; i < last; i++) {
        const uint64_t row = rows ? (uint64_t)rows[i] : i;
        if (rows && i + ROWS_AHEAD < num_rows) {
            const char *const next =
                (const char *)matrix + (uint64_t)rows[i + ROWS_AHEAD] * width * size;
            for (size_t at = 0; at < width * size && at < BYTES_AHEAD; at += 64)
                __builtin_prefetch(next + at, 0, 2);
        }
        const char *const from = (const char *)matrix + row * width * size;
        char *const to = (char *)values + i * num_columns * size;
        if (columns)
            kernels->optimizers->pick_columns[is_double](width, column_bits, num_columns, columns,
                                                         from, to);
        else
            memcpy(to, from, width * size);
    }
}
