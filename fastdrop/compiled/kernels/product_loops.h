/* The loops of products.h, written once over the vector operations that loops.h lists, and included
 * by it. They need these as well:
 *
 *   vf32_fused(a, b, c)           a b + c, rounded once; vf64_fused
 *   TILE_ROWS, TILE_VECTORS       a tile's size: what fits into registers; powers of 2
 */

/* Products of an element that are summed up in a register. More would cost accuracy, and panels that
   do not fit into the first cache. */
enum { FD_FN(DEPTH) = 256 };

#define FD_DEFINE_PRODUCTS(S, V, LANES, SF)                                                       \
    enum { FD_FN(PANEL_##SF) = TILE_VECTORS * LANES };                                            \
                                                                                                  \
    /* A tile of c, from k products of each element */                                            \
    static FD_ALWAYS_INLINE void FD_FN(tile_##SF)(int rows, int vectors, size_t k, V factor,      \
                                                  const S *a, const fd_product *p, const S *b,    \
                                                  int64_t b_row, S *c, int64_t c_row, int add)    \
    {                                                                                             \
        const int64_t a_row = p->a_row, a_column = p->a_column;                                   \
        V sum[TILE_ROWS][TILE_VECTORS];                                                           \
        FD_UNROLL                                                                                 \
        for (int i = 0; i < rows; i++)                                                            \
            FD_UNROLL                                                                             \
            for (int j = 0; j < vectors; j++)                                                     \
                sum[i][j] = V##_set(0);                                                           \
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
    /* A panel's tiles, from top to bottom; the last rows make smaller ones */                    \
    static FD_ALWAYS_INLINE void FD_FN(panel_##SF)(int vectors, size_t k, const S *a,             \
                                                   const fd_product *p, const S *b,               \
                                                   int64_t b_row, S *c, int64_t c_row, int add)   \
    {                                                                                             \
        const V factor = V##_set(p->factor);                                                      \
        uint64_t i = 0;                                                                           \
        for (; i + TILE_ROWS <= p->m; i += TILE_ROWS, c += TILE_ROWS * c_row)                     \
            FD_FN(tile_##SF)(TILE_ROWS, vectors, k, factor, a + (int64_t)i * p->a_row, p, b,      \
                             b_row, c, c_row, add);                                               \
        FD_UNROLL                                                                                 \
        for (int rows = TILE_ROWS / 2; rows; rows /= 2)                                           \
            if (i + rows <= p->m) {                                                               \
                FD_FN(tile_##SF)(rows, vectors, k, factor, a + (int64_t)i * p->a_row, p, b,       \
                                 b_row, c, c_row, add);                                           \
                i += rows, c += rows * c_row;                                                     \
            }                                                                                     \
    }                                                                                             \
                                                                                                  \
    /* The columns after the last whole panel, by way of a copy with zeros after them */          \
    static void FD_FN(last_##SF)(size_t k, const S *a, const fd_product *p, const S *b,           \
                                 uint64_t columns, S *c, int add)                                 \
    {                                                                                             \
        fd_product part = *p;                                                                     \
        S panel[FD_FN(DEPTH) * FD_FN(PANEL_##SF)], tile[64 * FD_FN(PANEL_##SF)];                  \
        const size_t bytes = columns * sizeof(S);                                                 \
        const uint64_t width = FD_FN(PANEL_##SF) / (columns <= FD_FN(PANEL_##SF) / 2 ? 2 : 1);    \
        memset(panel, 0, k * width * sizeof(S));                                                  \
        for (size_t r = 0; r < k; r++)                                                            \
            memcpy(panel + r * width, b + (int64_t)r * p->b_row, bytes);                          \
        for (uint64_t i = 0; i < p->m; i += part.m) {                                             \
            part.m = p->m - i < 64 ? p->m - i : 64;                                               \
            S *const to = c + (int64_t)i * p->c_row;                                              \
            for (uint64_t r = 0; add && r < part.m; r++)                                          \
                memcpy(memset(tile + r * width, 0, width * sizeof(S)), to + (int64_t)r * p->c_row,\
                       bytes);                                                                    \
            if (width == FD_FN(PANEL_##SF))                                                       \
                FD_FN(panel_##SF)(TILE_VECTORS, k, a, &part, panel, (int64_t)width, tile,         \
                                  (int64_t)width, add);                                           \
            else                                                                                  \
                FD_FN(panel_##SF)(TILE_VECTORS / 2, k, a, &part, panel, (int64_t)width, tile,     \
                                  (int64_t)width, add);                                           \
            for (uint64_t r = 0; r < part.m; r++)                                                 \
                memcpy(to + (int64_t)r * p->c_row, tile + r * width, bytes);                      \
            a += (int64_t)part.m * p->a_row;                                                      \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(product_##SF)(const fd_product *p)                                         \
    {                                                                                             \
        const S *a = p->a, *b = p->b;                                                             \
        for (uint64_t done = 0; done < p->k; done += FD_FN(DEPTH)) {                              \
            const uint64_t left = p->k - done, k = left < FD_FN(DEPTH) ? left : FD_FN(DEPTH);     \
            const int add = p->add || done;                                                       \
            const S *panel = b;                                                                   \
            S *c = p->c;                                                                          \
            uint64_t columns = p->n;                                                              \
            for (; columns >= FD_FN(PANEL_##SF); columns -= FD_FN(PANEL_##SF)) {                  \
                FD_FN(panel_##SF)(TILE_VECTORS, k, a, p, panel, p->b_row, c, p->c_row, add);      \
                panel += p->b_panel;                                                              \
                c += FD_FN(PANEL_##SF);                                                           \
            }                                                                                     \
            if (columns)                                                                          \
                FD_FN(last_##SF)(k, a, p, panel, columns, c, add);                                \
            a += (int64_t)k * p->a_column;                                                        \
            b += (int64_t)k * p->b_row;                                                           \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(pack_##SF)(uint64_t rows, uint64_t columns, const void *xv, int64_t stride, \
                                 void *panels)                                                    \
    {                                                                                             \
        const S *x = xv;                                                                          \
        S *to = panels;                                                                           \
        for (; rows >= FD_FN(PANEL_##SF); rows -= FD_FN(PANEL_##SF)) {                            \
            for (uint64_t c = 0; c < columns; c++, to += FD_FN(PANEL_##SF))                       \
                for (int r = 0; r < FD_FN(PANEL_##SF); r++)                                       \
                    to[r] = x[r * stride + (int64_t)c];                                           \
            x += FD_FN(PANEL_##SF) * stride;                                                      \
        }                                                                                         \
        for (uint64_t c = 0; rows && c < columns; c++, to += FD_FN(PANEL_##SF))                   \
            for (int r = 0; r < FD_FN(PANEL_##SF); r++)                                           \
                to[r] = (uint64_t)r < rows ? x[r * stride + (int64_t)c] : 0;                      \
    }

FD_DEFINE_PRODUCTS(float, vf32, VF32_LANES, f32)
FD_DEFINE_PRODUCTS(double, vf64, VF64_LANES, f64)

static const struct fd_product_loops FD_FN(product_loops) = {
    .panel = {FD_FN(PANEL_f32), FD_FN(PANEL_f64)},
    .multiply = {FD_FN(product_f32), FD_FN(product_f64)},
    .pack = {FD_FN(pack_f32), FD_FN(pack_f64)},
};
