/* Products whose second factor may have any strides: panels of it are copied. */
#include "products.h"

/* Bytes of panels that stay in the second cache while all rows pass */
enum { PANELS = 256 * 1024 };

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t itemsize(int is_double)
{
    return is_double ? sizeof(double) : sizeof(float);
}

static uint64_t whole_panels(const struct fd_product_loops *loops, int is_double, uint64_t columns)
{
    const uint64_t panel = loops->panel[is_double];
    return (columns + panel - 1) / panel * panel;
}

static uint64_t columns_at_once(int is_double)
{
    return PANELS / FD_DEPTH / itemsize(is_double);
}

/* Whether a b that is transposed in memory, with few columns beside it, is better read as it lies */
static int has_few_rows(const struct fd_product_loops *loops, int is_double, const fd_product *p)
{
    return p->m <= loops->panel[is_double];
}

uint64_t fd_panels_bytes(const struct fd_product_loops *loops, int is_double, const fd_product *p)
{
    const uint64_t columns = least(p->n, columns_at_once(is_double)), panel = loops->panel[is_double];
    const uint64_t of_b = whole_panels(loops, is_double, columns) * least(p->k, FD_DEPTH);
    const uint64_t of_few = has_few_rows(loops, is_double, p) ? (p->k + columns) * panel : 0;
    return (of_b > of_few ? of_b : of_few) * itemsize(is_double);
}

static void transpose(int is_double, uint64_t rows, uint64_t columns, const void *from,
                      int64_t from_row, void *to, int64_t to_row)
{
    for (int64_t i = 0; i < (int64_t)rows; i++)
        for (int64_t j = 0; j < (int64_t)columns; j++)
            if (is_double)
                ((double *)to)[j * to_row + i] = ((const double *)from)[i * from_row + j];
            else
                ((float *)to)[j * to_row + i] = ((const float *)from)[i * from_row + j];
}

/* Computes the transposed c from the transposed b, which is read once, and a panel of a's few rows */
static void multiply_few_rows(const struct fd_product_loops *loops, int is_double, const fd_product *p,
                              int64_t b_column, void *panels)
{
    const int64_t size = (int64_t)itemsize(is_double), panel = (int64_t)loops->panel[is_double];
    void *const found = (char *)panels + (int64_t)p->k * panel * size;
    fd_product part = *p;
    loops->pack[is_double](p->k, p->m, p->a, p->a_column, p->a_row, panels);
    part.n = p->m;
    part.b = panels;
    part.b_row = panel;
    part.b_panel = 0;    /* there is one */
    part.b_columns = (uint64_t)panel;
    part.a_row = b_column;
    part.a_column = 1;
    part.c = found;
    part.c_row = panel;
    for (uint64_t column = 0; column < p->n; column += part.m) {
        char *const c = (char *)p->c + (int64_t)column * size;
        part.m = least(p->n - column, columns_at_once(is_double));
        part.a = (const char *)p->b + (int64_t)column * b_column * size;
        if (p->add)
            transpose(is_double, p->m, part.m, c, p->c_row, found, panel);
        loops->multiply[is_double](&part);
        transpose(is_double, part.m, p->m, found, panel, c, p->c_row);
    }
}

void fd_multiply(const struct fd_product_loops *loops, int is_double, const fd_product *p,
                 int64_t b_row, int64_t b_column, void *panels)
{
    const int64_t size = (int64_t)itemsize(is_double), panel = (int64_t)loops->panel[is_double];
    fd_product part = *p;
    if (b_row == 1 && has_few_rows(loops, is_double, p)) {
        multiply_few_rows(loops, is_double, p, b_column, panels);
        return;
    }
    part.b = panels;
    part.b_row = panel;
    for (uint64_t row = 0; row < p->k; row += FD_DEPTH) {
        part.k = least(p->k - row, FD_DEPTH);
        part.a = (const char *)p->a + (int64_t)row * p->a_column * size;
        part.add = p->add || row;
        for (uint64_t column = 0; column < p->n; column += part.n) {
            part.n = least(p->n - column, columns_at_once(is_double));
            part.b_panel = panel * (int64_t)part.k;
            part.b_columns = whole_panels(loops, is_double, part.n);
            part.c = (char *)p->c + (int64_t)column * size;
            loops->pack[is_double](
                part.k, part.n,
                (const char *)p->b + ((int64_t)row * b_row + (int64_t)column * b_column) * size,
                b_row, b_column, panels);
            loops->multiply[is_double](&part);
        }
    }
}
