/* Parameters row by row; a row of a gradient in parts is put together where it is used. */
#include <math.h>
#include <string.h>

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

/* A thread's scratch memory: a row of d, a row of g, and each part's next row. */
typedef struct {
    void *d, *g;
    uint64_t *next;
    int is_zero;    /* is d all zeros? */
} walk;

static uint64_t row_bytes(const fd_update *u)
{
    return (u->columns * (u->is_double ? sizeof(double) : sizeof(float)) + 63) / 64 * 64;
}

uint64_t fd_update_scratch(const fd_update *u)
{
    if (u->d && fd_is_plain(&u->step))
        return 0;
    return 2 * row_bytes(u) + (u->num_parts * sizeof(uint64_t) + 63) / 64 * 64;
}

/* Index of the part's first row that is not before `row`. */
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

static walk walk_from(const fd_update *u, uint64_t row, char *scratch)
{
    walk w = {scratch, scratch + row_bytes(u), (uint64_t *)(scratch + 2 * row_bytes(u)), 0};
    for (uint64_t p = 0; p < u->num_parts; p++)
        w.next[p] = first_from(&u->parts[p], row);
    return w;
}

#define FD_DEFINE_SCATTER(T)                                                                      \
    static void scatter_##T(const fd_part *part, uint64_t i, T *restrict d)                       \
    {                                                                                             \
        const T *restrict values = (const T *)part->values + i * part->num_columns;               \
        const intptr_t *restrict columns = part->columns;                                         \
        for (uint64_t j = 0; j < part->num_columns; j++)                                          \
            d[columns[j]] += values[j];                                                           \
    }

FD_DEFINE_SCATTER(float)
FD_DEFINE_SCATTER(double)

/* A row of d; rows must come in order. */
static const void *row_of_d(const fd_update *u, walk *w, uint64_t row)
{
    const size_t size = u->is_double ? sizeof(double) : sizeof(float);
    int in_parts = 0;
    if (u->d)
        return (const char *)u->d + row * u->columns * size;
    for (uint64_t p = 0; p < u->num_parts; p++) {
        const fd_part *part = &u->parts[p];
        in_parts |= w->next[p] < part->num_rows && (uint64_t)part->rows[w->next[p]] == row;
    }
    if (in_parts || !w->is_zero)
        memset(w->d, 0, u->columns * size);
    w->is_zero = !in_parts;
    for (uint64_t p = 0; in_parts && p < u->num_parts; p++) {
        const fd_part *part = &u->parts[p];
        const uint64_t i = w->next[p];
        if (i == part->num_rows || (uint64_t)part->rows[i] != row)
            continue;
        w->next[p]++;
        if (u->is_double)
            scatter_double(part, i, w->d);
        else
            scatter_float(part, i, w->d);
    }
    return w->d;
}

static size_t row_length(const fd_update *u, uint64_t row)
{
    const uint64_t left = u->n - row * u->columns;
    return left < u->columns ? left : u->columns;
}

void fd_update_rows(const fd_update *u, uint64_t first, uint64_t last, void *scratch)
{
    const struct fd_optimizer_loops *loops = u->kernels->optimizers;
    const int is_double = u->is_double, general = !fd_is_plain(&u->step);
    const size_t size = is_double ? sizeof(double) : sizeof(float);
    walk walk = walk_from(u, first, scratch);
    for (uint64_t row = first; row < last; row++) {
        const size_t at = row * u->columns * size, n = row_length(u, row);
        void *const w = (char *)u->w + at;
        void *state[FD_MAX_STATES];
        for (int i = 0; i < FD_MAX_STATES; i++)
            state[i] = u->state[i] ? (char *)u->state[i] + at : NULL;
        loops->update[u->optimizer][is_double][general](n, &u->step, w, row_of_d(u, &walk, row),
                                                        state);
        if (u->max_norm < INFINITY) {
            const double norm = sqrt(loops->square_sum[is_double](n, w));
            if (norm > u->max_norm)
                loops->multiply[is_double](n, u->max_norm / norm, w);
        }
    }
}

void fd_gradient_squares(const fd_update *u, uint64_t first, uint64_t last, void *scratch,
                         double *sums)
{
    const struct fd_optimizer_loops *loops = u->kernels->optimizers;
    const int is_double = u->is_double, general = !fd_is_plain(&u->step);
    const size_t size = is_double ? sizeof(double) : sizeof(float);
    walk walk = walk_from(u, first, scratch);
    for (uint64_t row = first; row < last; row++) {
        const size_t n = row_length(u, row);
        const void *g = row_of_d(u, &walk, row);
        if (general) {
            loops->gradient[is_double](n, &u->step, (char *)u->w + row * u->columns * size, g,
                                       walk.g);
            g = walk.g;
        }
        sums[row] = loops->square_sum[is_double](n, g);
    }
}
