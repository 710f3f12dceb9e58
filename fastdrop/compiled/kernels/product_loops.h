/* The loops of products.h, written once over the vector operations that loops.h lists. They need
 * these as well:
 *
 *   vf32_fused(a, b, c)           a b + c, rounded once; vf64_fused
 *   TILE_ROWS, TILE_VECTORS       a tile's size, which fits into registers: at most 8 rows of two
 *                                 vectors
 *
 * Processors foresee what is read in order, but not the next rows of a matrix. So its lines are asked
 * for in advance: c's at the start of its tile, those of a during the tiles before, those of b some
 * rows or columns before they are packed.
 */

/* The rows of a transposed a, whose elements lie apart, are copied for a tile from this many panels
   on: the tiles beside it use them again. */
enum { FD_FN(COPY_PAYS) = 8 };

/* In tiles_f32 and tiles_f64: a loop for each size of a tile, written out, as clang warns that it
   can't unroll a loop over the sizes. `add` is hidden, so that no size has two loops. */
#define FD_TILES(r, v, V, SF)                                                                     \
    if (r <= TILE_ROWS && r == rows && v == vectors)                                              \
        for (; panels; panels--, b += b_panel, c += FD_FN(PANEL_##SF)) {                          \
            FD_HIDE(add);                                                                         \
            for (uint64_t i = 0; i < lines; i++, next += FD_FN(LINE_##SF))                        \
                FD_UNROLL                                                                         \
                for (int j = 0; j < r; j++)                                                       \
                    __builtin_prefetch(next + j * a_row);                                         \
            FD_FN(tile_##SF)(r, v, k, V##_set(factor), a, a_row, a_column, b, b_row, c,           \
                             c_row, add);                                                         \
        }
#define FD_BOTH_WIDTHS(r, V, SF)                                                                  \
    FD_TILES(r, 1, V, SF) FD_TILES(r, TILE_VECTORS, V, SF)
_Static_assert(TILE_ROWS <= 8, "tiles_f32 and tiles_f64 have no higher tiles");

#define FD_DEFINE_PRODUCTS(S, V, LANES, SF)                                                       \
    enum { FD_FN(PANEL_##SF) = TILE_VECTORS * LANES, FD_FN(LINE_##SF) = 64 / sizeof(S) };         \
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
        /* Three rows from each pointer on, as a processor addresses them by one distance */      \
        const char *from[(TILE_ROWS + 2) / 3];                                                    \
        const int64_t distance = a_row * (int64_t)sizeof(S), next = a_column * (int64_t)sizeof(S);\
        FD_UNROLL                                                                                 \
        for (int i = 0; i < rows; i += 3)                                                         \
            from[i / 3] = (const char *)a + i * distance;                                         \
        FD_UNROLL                                                                                 \
        for (int i = 0; i < rows; i++)                                                            \
            __builtin_prefetch(c + i * c_row, 1);                                                 \
        FD_PRAGMA(GCC unroll 4)                                                                   \
        for (; k; k--, b += b_row) {                                                              \
            V row[TILE_VECTORS];                                                                  \
            FD_UNROLL                                                                             \
            for (int j = 0; j < vectors; j++)                                                     \
                row[j] = SF##_load(b + j * LANES);                                                \
            FD_UNROLL                                                                             \
            for (int i = 0; i < rows; i++) {                                                      \
                const V element = V##_set(*(const S *)(from[i / 3] + i % 3 * distance));          \
                FD_UNROLL                                                                         \
                for (int j = 0; j < vectors; j++)                                                 \
                    sum[i][j] = V##_fused(element, row[j], sum[i][j]);                            \
            }                                                                                     \
            FD_UNROLL                                                                             \
            for (int i = 0; i < rows; i += 3)                                                     \
                from[i / 3] += next;                                                              \
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
    /* Tiles side by side, so that a's rows stay in the first cache. Beside each of them so many  \
       lines of each of the next rows are asked for. */                                           \
    static FD_NEVER_INLINE void FD_FN(tiles_##SF)(int rows, int vectors, uint64_t panels, size_t k,\
                                                  S factor, const S *a, int64_t a_row,            \
                                                  int64_t a_column, const S *b, int64_t b_row,    \
                                                  int64_t b_panel, S *c, int64_t c_row, int add,  \
                                                  const S *next, uint64_t lines)                  \
    {                                                                                             \
        FD_BOTH_WIDTHS(1, V, SF) FD_BOTH_WIDTHS(2, V, SF)                                         \
        FD_BOTH_WIDTHS(3, V, SF) FD_BOTH_WIDTHS(4, V, SF)                                         \
        FD_BOTH_WIDTHS(5, V, SF) FD_BOTH_WIDTHS(6, V, SF)                                         \
        FD_BOTH_WIDTHS(7, V, SF) FD_BOTH_WIDTHS(8, V, SF)                                         \
    }                                                                                             \
                                                                                                  \
    /* Copies the rows of a tile, whose elements lie apart */                                     \
    static FD_NEVER_INLINE void FD_FN(copy_##SF)(int rows, size_t k, const S *a, int64_t a_row,   \
                                                 int64_t a_column, S *to)                         \
    {                                                                                             \
        FD_UNROLL                                                                                 \
        for (int r = 1; r <= TILE_ROWS; r++)                                                      \
            if (r == rows)                                                                        \
                for (; k; k--, a += a_column, to += TILE_ROWS) {                                  \
                    __builtin_prefetch(a + (r + TILE_ROWS - 1) * a_row);                          \
                    FD_UNROLL                                                                     \
                    for (int i = 0; i < r; i++)                                                   \
                        to[i] = a[i * a_row];                                                     \
                }                                                                                 \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(product_##SF)(const fd_product *p)                                          \
    {                                                                                             \
        enum { PANEL = FD_FN(PANEL_##SF) };                                                       \
        const S factor = (S)p->factor;                                                            \
        const uint64_t panels = p->n / PANEL, rest = p->n % PANEL;                                \
        const uint64_t tiles = (p->m + TILE_ROWS - 1) / TILE_ROWS;                                \
        const int to_copy = p->a_column != 1 && panels >= FD_FN(COPY_PAYS);                       \
        S rows_of_a[FD_DEPTH * TILE_ROWS], last_of_b[FD_DEPTH * PANEL];                           \
        S tile[TILE_ROWS * PANEL] = {0};                                                          \
        for (uint64_t done = 0; done < p->k; done += FD_DEPTH) {                                  \
            const uint64_t left = p->k - done, k = left < FD_DEPTH ? left : FD_DEPTH;             \
            const int add = p->add || done;                                                       \
            const uint64_t lines_of_a = (k + FD_FN(LINE_##SF) - 1) / FD_FN(LINE_##SF);            \
            const uint64_t lines = panels ? (lines_of_a + panels - 1) / panels : 0;               \
            const S *const b = (const S *)p->b + (int64_t)done * p->b_row;                        \
            const S *last = b + (int64_t)panels * p->b_panel;                                     \
            int64_t last_row = p->b_row;                                                          \
            if (rest && p->b_columns < (panels + 1) * PANEL) {                                    \
                memset(last_of_b, 0, k * PANEL * sizeof(S));                                      \
                for (uint64_t r = 0; r < k; r++)                                                  \
                    memcpy(last_of_b + r * PANEL, last + (int64_t)r * last_row, rest * sizeof(S));\
                last = last_of_b;                                                                 \
                last_row = PANEL;                                                                 \
            }                                                                                     \
            for (uint64_t t = 0; t < tiles; t++) {                                                \
                /* tiles of nearly equal height: a low one takes nearly as long as a high one */  \
                const uint64_t first = t * p->m / tiles;                                          \
                const int rows = (int)((t + 1) * p->m / tiles - first);                           \
                const S *a = (const S *)p->a + (int64_t)first * p->a_row +                        \
                             (int64_t)done * p->a_column;                                         \
                int64_t a_row = p->a_row, a_column = p->a_column;                                 \
                S *c = (S *)p->c + (int64_t)first * p->c_row;                                     \
                if (to_copy) {                                                                    \
                    FD_FN(copy_##SF)(rows, k, a, a_row, a_column, rows_of_a);                     \
                    a = rows_of_a;                                                                \
                    a_row = 1;                                                                    \
                    a_column = TILE_ROWS;                                                         \
                }                                                                                 \
                FD_FN(tiles_##SF)(rows, TILE_VECTORS, panels, k, factor, a, a_row, a_column, b,   \
                                  p->b_row, p->b_panel, c, p->c_row, add, a + rows * a_row,       \
                                  a_column == 1 && t + 1 < tiles ? lines : 0);                    \
                if (!rest)                                                                        \
                    continue;                                                                     \
                c += panels * PANEL;    /* which has no room for a whole tile */                  \
                for (int i = 0; add && i < rows && i < TILE_ROWS; i++)                            \
                    memcpy(tile + i * PANEL, c + i * p->c_row, rest * sizeof(S));                 \
                FD_FN(tiles_##SF)(rows, rest > LANES ? TILE_VECTORS : 1, 1, k, factor, a, a_row,  \
                                  a_column, last, last_row, 0, tile, PANEL, add, a, 0);           \
                for (int i = 0; i < rows; i++)                                                    \
                    memcpy(c + i * p->c_row, tile + i * PANEL, rest * sizeof(S));                 \
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
                    __builtin_prefetch(x + (int64_t)(GROUP + r % GROUP) * column);                \
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
