/* Products whose second factor lies in memory as it likes: panels of it are copied. */
#include "products.h"

/* A panel is copied only if more rows than this take part. Fewer use it too seldom. */
enum { FEW_ROWS = 6 };

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

uint64_t fd_panels_bytes(const struct fd_product_loops *loops, int is_double, const fd_product *p)
{
    const uint64_t columns = least(p->n, columns_at_once(is_double));
    return whole_panels(loops, is_double, columns) * least(p->k, FD_DEPTH) * itemsize(is_double);
}

void fd_multiply(const struct fd_product_loops *loops, int is_double, const fd_product *p,
                 int64_t b_row, int64_t b_column, void *panels)
{
    const int64_t size = (int64_t)itemsize(is_double), panel = (int64_t)loops->panel[is_double];
    fd_product part = *p;
    if (b_column == 1 && p->m <= FEW_ROWS) {
        part.b_row = b_row;
        part.b_panel = panel;
        part.b_columns = p->n;
        loops->multiply[is_double](&part);
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
