/* The loops of products.h, written once over the vector operations that loops.h lists, and included
 * by it. They need these as well:
 *
 *   vf32_fused(a, b, c)           a b + c, rounded once; vf64_fused
 *   TILE_ROWS, TILE_VECTORS       a tile's size: what fits into registers; a row has two vectors
 */

/* A transposed a, whose rows' elements lie apart, is copied for a tile if the tiles beside it use it
   again: so many panels of c. */
enum { FD_FN(COPY_PAYS) = 8 };

#define FD_DEFINE_PRODUCTS(S, V, LANES, SF)                                                       \
    enum { FD_FN(PANEL_##SF) = TILE_VECTORS * LANES };                                            \
                                                                                                  \
    /* A tile of c, from k products of each element */                                            \
    static FD_ALWAYS_INLINE void FD_FN(tile_##SF)(int rows, int vectors, size_t k, V factor,      \
                                                  const S *a, int64_t a_row, int64_t a_column,    \
                                                  const S *b, int64_t b_row, S *c, int64_t c_row, \
                                                  int add)                                        \
    {                                                                                             \
        V sum[TILE_ROWS][TILE_VECTORS];                                                           \
        FD_UNROLL                                                                                 \
        for (int i = 0; i < rows; i++)                                                            \
            FD_UNROLL                                                                             \
            for (int j = 0; j < vectors; j++)                                                     \
                sum[i][j] = V##_set(0);                                                           \
        FD_PRAGMA(GCC unroll 4)                                                                   \
        for (; k; k--, a += a_column, b += b_row) {                                               \
            V row[TILE_VECTORS];                                                                  \
            FD_UNROLL                                                                             \
            for (int j = 0; j < vectors; j++)                                                     \
                row[j] = SF##_load(b + j * LANES);                                                \
            FD_UNROLL                                                                             \
            for (int i = 0; i < rows; i++) {                                                      \
                const V element = V##_set(a[i * a_row]);                                          \
                FD_UNROLL                                                                         \
                for (int j = 0; j < vectors; j++)                                                 \
                    sum[i][j] = V##_fused(element, row[j], sum[i][j]);                            \
            }                                                                                     \
        }                                                                                         \
        FD_UNROLL                                                                                 \
        for (int i = 0; i < rows; i++)                                                            \
            FD_UNROLL                                                                             \
            for (int j = 0; j < vectors; j++) {                                                   \
                S *to = c + i * c_row + j * LANES;                                                \
                SF##_store(to, add ? V##_fused(factor, sum[i][j], SF##_load(to))                  \
                                   : V##_mul(factor, sum[i][j]));                                 \
            }                                                                                     \
    }                                                                                             \
                                                                                                  \
    /* A row of tiles, from k products of each element, and the copies that they need */          \
    static FD_ALWAYS_INLINE void FD_FN(row_of_tiles_##SF)(                                        \
        int rows, size_t k, V factor, const S *a, int64_t a_row, int64_t a_column, int to_copy,   \
        const S *b, int64_t b_row, int64_t b_panel, uint64_t panels, const S *last,               \
        int64_t last_row, uint64_t rest, S *c, int64_t c_row, int add)                            \
    {                                                                                             \
        S copy[FD_DEPTH * TILE_ROWS];                                                             \
        if (to_copy) {                                                                            \
            for (uint64_t r = 0; r < k; r++)                                                      \
                FD_UNROLL                                                                         \
                for (int i = 0; i < rows; i++)                                                    \
                    copy[r * TILE_ROWS + i] = a[i * a_row + (int64_t)r * a_column];               \
            a = copy;                                                                             \
            a_row = 1;                                                                            \
            a_column = TILE_ROWS;                                                                 \
        }                                                                                         \
        for (; panels; panels--, b += b_panel, c += FD_FN(PANEL_##SF))                            \
            FD_FN(tile_##SF)(rows, TILE_VECTORS, k, factor, a, a_row, a_column, b, b_row, c,      \
                             c_row, add);                                                         \
        if (rest) {                                                                               \
            S tile[TILE_ROWS * FD_FN(PANEL_##SF)] = {0};                                          \
            for (int i = 0; add && i < rows; i++)                                                 \
                memcpy(tile + i * FD_FN(PANEL_##SF), c + i * c_row, rest * sizeof(S));            \
            if (rest <= LANES)                                                                    \
                FD_FN(tile_##SF)(rows, 1, k, factor, a, a_row, a_column, last, last_row, tile,    \
                                 FD_FN(PANEL_##SF), add);                                         \
            else                                                                                  \
                FD_FN(tile_##SF)(rows, TILE_VECTORS, k, factor, a, a_row, a_column, last,         \
                                 last_row, tile, FD_FN(PANEL_##SF), add);                         \
            for (int i = 0; i < rows; i++)                                                        \
                memcpy(c + i * c_row, tile + i * FD_FN(PANEL_##SF), rest * sizeof(S));            \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(product_##SF)(const fd_product *p)                                         \
    {                                                                                             \
        const V factor = V##_set(p->factor);                                                      \
        const uint64_t panels = p->n / FD_FN(PANEL_##SF), rest = p->n % FD_FN(PANEL_##SF);        \
        const uint64_t tiles = (p->m + TILE_ROWS - 1) / TILE_ROWS;                                \
        const int to_copy = p->a_column != 1 && panels >= FD_FN(COPY_PAYS);                       \
        S last_of_b[FD_DEPTH * FD_FN(PANEL_##SF)];                                                \
        for (uint64_t done = 0; done < p->k; done += FD_DEPTH) {                                  \
            const uint64_t left = p->k - done, k = left < FD_DEPTH ? left : FD_DEPTH;             \
            const S *const b = (const S *)p->b + (int64_t)done * p->b_row;                        \
            const S *last = b + (int64_t)panels * p->b_panel;                                     \
            int64_t last_row = p->b_row;                                                          \
            if (rest && p->b_columns < (panels + 1) * FD_FN(PANEL_##SF)) {                        \
                memset(last_of_b, 0, k * FD_FN(PANEL_##SF) * sizeof(S));                          \
                for (uint64_t r = 0; r < k; r++)                                                  \
                    memcpy(last_of_b + r * FD_FN(PANEL_##SF), last + (int64_t)r * last_row,       \
                           rest * sizeof(S));                                                     \
                last = last_of_b;                                                                 \
                last_row = FD_FN(PANEL_##SF);                                                     \
            }                                                                                     \
            for (uint64_t t = 0; t < tiles; t++) {                                                \
                /* of nearly the same number of rows: a low one takes hardly less time */         \
                const uint64_t first = t * p->m / tiles;                                          \
                const int rows = (int)((t + 1) * p->m / tiles - first);                           \
                const S *a = (const S *)p->a + (int64_t)first * p->a_row +                        \
                             (int64_t)done * p->a_column;                                         \
                FD_UNROLL                                                                         \
                for (int r = 1; r <= TILE_ROWS; r++)    /* the compiler makes loops for each */   \
                    if (r == rows)                                                                \
                        FD_FN(row_of_tiles_##SF)(                                                 \
                            r, k, factor, a, p->a_row, p->a_column, to_copy, b, p->b_row,         \
                            p->b_panel, panels, last, last_row, rest,                             \
                            (S *)p->c + (int64_t)first * p->c_row, p->c_row, p->add || done);     \
            }                                                                                     \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(pack_##SF)(uint64_t k, uint64_t n, const void *bv, int64_t row,             \
                                 int64_t column, void *panels)                                    \
    {                                                                                             \
        enum { PANEL = FD_FN(PANEL_##SF), GROUP = PANEL < 4 ? PANEL : 4, AHEAD = 4 };             \
        const S *b = bv;                                                                          \
        S *to = panels;                                                                           \
        const uint64_t whole = n / PANEL, rest = n % PANEL;                                       \
        if (column == 1)    /* row by row, as b lies in memory */                                 \
            for (uint64_t r = 0; r < k; r++)                                                      \
                for (uint64_t j = 0; j < whole; j++) {                                            \
                    const S *x = b + (int64_t)r * row + j * PANEL;                                \
                    S *y = to + (j * k + r) * PANEL;                                              \
                    __builtin_prefetch(x + AHEAD * row);                                          \
                    FD_UNROLL                                                                     \
                    for (int v = 0; v < TILE_VECTORS; v++)                                        \
                        SF##_store(y + v * LANES, SF##_load(x + v * LANES));                      \
                }                                                                                 \
        for (uint64_t j = 0; column != 1 && j < whole; j++)                                       \
            for (int i = 0; i < PANEL; i += GROUP) {    /* columns, which may be far apart */     \
                const S *x = b + (int64_t)(j * PANEL + i) * column;                               \
                S *y = to + j * k * PANEL + i;                                                    \
                for (uint64_t r = 0; r < k; r++, x += row, y += PANEL) {                          \
                    S group[GROUP];                                                               \
                    FD_UNROLL                                                                     \
                    for (int q = 0; q < GROUP; q++)                                               \
                        group[q] = x[q * column];                                                 \
                    memcpy(y, group, sizeof group);                                               \
                }                                                                                 \
            }                                                                                     \
        b += (int64_t)(whole * PANEL) * column;                                                   \
        to += whole * k * PANEL;                                                                  \
        for (uint64_t r = 0; rest && r < k; r++, to += PANEL)                                     \
            for (uint64_t i = 0; i < PANEL; i++)                                                  \
                to[i] = i < rest ? b[(int64_t)i * column + (int64_t)r * row] : 0;                 \
    }

FD_DEFINE_PRODUCTS(float, vf32, VF32_LANES, f32)
FD_DEFINE_PRODUCTS(double, vf64, VF64_LANES, f64)

const struct fd_product_loops FD_NAME3(fd_, FD_ISA, _products) = {
    .panel = {FD_FN(PANEL_f32), FD_FN(PANEL_f64)},
    .multiply = {FD_FN(product_f32), FD_FN(product_f64)},
    .pack = {FD_FN(pack_f32), FD_FN(pack_f64)},
};
