/* Products of small matrices, as attention has them: c = factor a b, or c + factor a b.
 *
 *         +------+------+---   b's columns come in panels, as wide as loops->panel says. Rows of a
 *       b |      |      |      panel lie b_row apart, panels b_panel. So b may be a matrix as it
 *         |      |      |      lies in memory, or one that `pack` has transposed.
 *    +----+------+------+---
 *    | a  | tile | tile |      A tile of c stays in registers for DEPTH products of each element,
 *    +----+------+------+---   which are fused multiply-adds in the order of a's columns. These
 *    |    |      |      |      sums are added up. So results do not depend on the instruction set.
 *
 * a may have any strides, so transposing it costs nothing.
 */
#ifndef FASTDROP_PRODUCTS_H
#define FASTDROP_PRODUCTS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t m, n, k;             /* c is (m, n), a is (m, k), b is (k, n) */
    double factor;
    const void *a, *b;
    int64_t a_row, a_column, b_row, b_panel, c_row;    /* in elements */
    void *c;
    int add;                      /* to c */
} fd_product;

/* The loops of one instruction set, [0] for float32 and [1] for float64 */
struct fd_product_loops {
    uint64_t panel[2];            /* columns */
    void (*multiply[2])(const fd_product *product);
    /* Transposes x, whose rows lie `stride` apart, to panels one after the other, with zeros after
       the last column. */
    void (*pack[2])(uint64_t rows, uint64_t columns, const void *x, int64_t stride, void *panels);
};

#endif
