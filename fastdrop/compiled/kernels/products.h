/* Products of matrices: c = factor a b, or c + factor a b.
 *
 *         +------+------+---   b's columns come in panels, as wide as loops->panel says. Rows of a
 *       b |      |      |      panel lie b_row apart, panels b_panel. So b may be a matrix as it
 *         |      |      |      lies in memory, or one that `pack` has copied.
 *    +----+------+------+---
 *    | a  | tile | tile |      A tile of c stays in registers for DEPTH products of each element,
 *    +----+------+------+---   which are fused multiply-adds in the order of a's columns. These
 *    |    |      |      |      sums are added up. So results do not depend on the instruction set,
 *                              nor on which rows and columns are computed together.
 *
 * a may have any strides. A processor without fused multiply-adds rounds each product before it adds
 * it.
 */
#ifndef FASTDROP_PRODUCTS_H
#define FASTDROP_PRODUCTS_H

#include <stddef.h>
#include <stdint.h>

/* Products of an element that are summed up in a register. More would cost accuracy, and panels that
   do not fit into the first cache. */
enum { FD_DEPTH = 256 };

typedef struct {
    uint64_t m, n, k;             /* c is (m, n), a is (m, k), b is (k, n) */
    double factor;
    const void *a, *b;
    int64_t a_row, a_column, b_row, b_panel, c_row;    /* in elements */
    uint64_t b_columns;           /* of a row of b that may be read: n, or up to a panel's end */
    void *c;
    int add;                      /* to c */
} fd_product;

/* The loops of one instruction set, [0] for float32 and [1] for float64 */
struct fd_product_loops {
    uint64_t panel[2];            /* columns */
    void (*multiply[2])(const fd_product *product);
    /* Copies b, which is (k, n), to panels one after the other, with zeros after the last column. */
    void (*pack[2])(uint64_t k, uint64_t n, const void *b, int64_t row, int64_t column,
                    void *panels);
};

extern const struct fd_product_loops fd_generic_products, fd_fused_products, fd_avx2_products,
    fd_avx512_products, fd_neon_products;    /* those this build has */

/* A product whose b has any strides, b_row and b_column, with memory for panels of it: so many bytes,
   aligned to 64. `p` says the rest; its b_row, b_panel and b_columns have no meaning. */
uint64_t fd_panels_bytes(const struct fd_product_loops *loops, int is_double, const fd_product *p);
void fd_multiply(const struct fd_product_loops *loops, int is_double, const fd_product *p,
                 int64_t b_row, int64_t b_column, void *panels);

#endif
