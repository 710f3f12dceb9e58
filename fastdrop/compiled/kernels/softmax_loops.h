/* The loops of softmax.h, written once over the vector operations that loops.h lists, and included
 * by it. They need these as well:
 *
 *   vf32_max(a, b)                     b where one is NaN
 *   vf32_below(a, d, limit)            +0.0 where d < limit, else a's; so that NaN stays NaN
 *   vf32_power(t)                      2^n, for t = vf32_SHIFT + n
 *   vf64_max, vf64_below, vf64_power
 */

/* Added to n, these make the bits of n the lowest ones of a float or a double. */
#define vf32_SHIFT 0x1.8p23
#define vf64_SHIFT 0x1.8p52

/* 1 / k! from k = 2 on; the first that is left out would add less than 1e-8 and 1e-17 */
enum { vf32_EXP = 5, vf64_EXP = 11 };
static const double FD_FN(series)[vf64_EXP + 1] = {
    1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,      1.0 / 720,       1.0 / 5040,
    1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
};

/* log(2) in two parts; n times the first one is exact */
#define vf32_LN2_HIGH 0.693359375
#define vf32_LN2_LOW -2.12194440054690583e-4
#define vf64_LN2_HIGH 6.93147180369123816490e-01
#define vf64_LN2_LOW 1.90821492927058770002e-10

/* Below, 0. */
#define vf32_LEAST -87.0
#define vf64_LEAST -708.0

/* Weights below do not count: the least normal numbers. */
#define vf32_NORMAL 0x1p-126
#define vf64_NORMAL 0x1p-1022

/* exp(a) = m 2^n: returns m, and t for vf32_power or vf64_power. q takes its coefficients in pairs:
   half as many steps have to wait for each other. */
#define FD_DEFINE_EXP(V)                                                                          \
    static FD_ALWAYS_INLINE V FD_FN(V##_exp_parts)(V a, V *t)                                     \
    {                                                                                             \
        const V shift = V##_set(V##_SHIFT);                                                       \
        *t = V##_add(V##_mul(a, V##_set(LOG2_E)), shift);                                         \
        const V n = V##_sub(*t, shift);                                                           \
        const V rough = V##_sub(a, V##_mul(n, V##_set(V##_LN2_HIGH)));                            \
        const V r = V##_sub(rough, V##_mul(n, V##_set(V##_LN2_LOW))), r2 = V##_mul(r, r);         \
        V q = V##_set(0);                                                                         \
        FD_UNROLL                                                                                 \
        for (int k = V##_EXP - 1; k >= 0; k -= 2) {                                               \
            const double *c = FD_FN(series) + k;                                                  \
            const V pair = V##_add(V##_mul(V##_set(c[1]), r), V##_set(c[0]));                     \
            q = k == V##_EXP - 1 ? pair : V##_add(V##_mul(q, r2), pair);                          \
        }                                                                                         \
        return V##_add(V##_set(1), V##_add(r, V##_mul(r2, q)));                                   \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_exp)(V a)                                                 \
    {                                                                                             \
        V t;                                                                                      \
        const V m = FD_FN(V##_exp_parts)(a, &t);                                                  \
        return V##_below(V##_mul(m, V##_power(t)), a, V##_set(V##_LEAST));                        \
    }

FD_DEFINE_EXP(vf32)
FD_DEFINE_EXP(vf64)

/* Vectors of 32 numbers to one, in pairs: number k with number k + 16, then k + 8, ... */
#define FD_DEFINE_FOLD(name, S, V, LANES, SF, of_vectors, of_numbers)                             \
    static FD_ALWAYS_INLINE double FD_FN(name)(V *vectors)                                        \
    {                                                                                             \
        S numbers[LANES];                                                                         \
        FD_UNROLL                                                                                 \
        for (int half = 16; half >= LANES; half /= 2)                                             \
            FD_UNROLL                                                                             \
            for (int j = 0; j < half; j += LANES)                                                 \
                vectors[j / LANES] =                                                              \
                    of_vectors(vectors[j / LANES], vectors[(j + half) / LANES]);                  \
        SF##_store(numbers, vectors[0]);                                                          \
        for (int half = LANES / 2; half; half /= 2)                                               \
            for (int k = 0; k < half; k++)                                                        \
                numbers[k] = of_numbers(numbers[k], numbers[k + half]);                           \
        return numbers[0];                                                                        \
    }
#define FD_SUM_OF(a, b) (a + b)
#define FD_MAX_OF(a, b) (a > b ? a : b)
FD_DEFINE_FOLD(sum_f32, float, vf32, VF32_LANES, f32, vf32_add, FD_SUM_OF)
FD_DEFINE_FOLD(sum_f64, double, vf64, VF64_LANES, f64, vf64_add, FD_SUM_OF)
FD_DEFINE_FOLD(max_f32, float, vf32, VF32_LANES, f32, vf32_max, FD_MAX_OF)
FD_DEFINE_FOLD(max_f64, double, vf64, VF64_LANES, f64, vf64_max, FD_MAX_OF)

/* ACTION on each vector j of 32 elements, after what reads them */
#define FD_EACH_VECTOR(LANES, ...)                                                                \
    FD_UNROLL_GROUP                                                                               \
    for (int j = 0; j < 32; j += LANES) {                                                         \
        __VA_ARGS__                                                                               \
    }

/* Arrays of S numbers, of vectors V by SF's loads and stores. */
#define FD_DEFINE_EXPONENTIALS(S, V, LANES, SF)                                                   \
    static double FD_FN(exponentials_##SF)(size_t n, double top, void *rowv)                      \
    {                                                                                             \
        const V shift = V##_set(top);                                                             \
        V sum[32 / LANES];                                                                        \
        S *row = rowv;                                                                            \
        FD_EACH_VECTOR(LANES, sum[j / LANES] = V##_set(0);)                                       \
        for (size_t i = 0; i < n; i += 32) {                                                      \
            FD_EACH_VECTOR(LANES,                                                                 \
                const V e = FD_FN(V##_exp)(V##_sub(SF##_load(row + i + j), shift));               \
                SF##_store(row + i + j, e);                                                       \
                sum[j / LANES] = V##_add(sum[j / LANES], e);)                                     \
        }                                                                                         \
        return FD_FN(sum_##SF)(sum);                                                              \
    }

/* Arrays of T, computed with in S. Where fewer than 32 elements are left, they go through buffers. */
#define FD_DEFINE_SOFTMAX(f, T, S, V, LANES, SF)                                                  \
    /* z and whether words are read are known where it is inlined */                              \
    static FD_ALWAYS_INLINE void FD_FN(load_32_##f)(const T *x, const S *z, int picks,            \
                                                    uint32_t word, S *row, V *top)                \
    {                                                                                             \
        const V nothing = V##_set(-INFINITY);                                                     \
        FD_EACH_VECTOR(LANES,                                                                     \
            V a = f##_load(x + j);                                                                \
            if (z)                                                                                \
                a = V##_add(a, SF##_load(z + j));                                                 \
            if (picks)                                                                            \
                a = V##_pick(a, nothing, word, j);                                                \
            SF##_store(row + j, a);                                                               \
            top[j / LANES] = V##_max(a, top[j / LANES]);)                                         \
    }                                                                                             \
                                                                                                  \
    static double FD_FN(load_##f)(size_t n, const void *xv, const uint32_t *taken,                \
                                  const void *addv, void *rowv)                                   \
    {                                                                                             \
        const T *x = xv;                                                                          \
        const S *z = addv;                                                                        \
        S *row = rowv;                                                                            \
        V top[32 / LANES];                                                                        \
        size_t i = 0;                                                                             \
        FD_EACH_VECTOR(LANES, top[j / LANES] = V##_set(-INFINITY);)                               \
        if (taken)                                                                                \
            for (; i + 32 <= n; i += 32)                                                          \
                FD_FN(load_32_##f)(x + i, NULL, 1, taken[i / 32], row + i, top);                  \
        else if (z)                                                                               \
            for (; i + 32 <= n; i += 32)                                                          \
                FD_FN(load_32_##f)(x + i, z + i, 0, 0, row + i, top);                             \
        else                                                                                      \
            for (; i + 32 <= n; i += 32)                                                          \
                FD_FN(load_32_##f)(x + i, NULL, 0, 0, row + i, top);                              \
        if (i < n) {                                                                              \
            const uint32_t word = (1u << (n - i)) - 1;                                            \
            T x32[32] = {0};                                                                      \
            S z32[32] = {0};                                                                      \
            memcpy(x32, x + i, (n - i) * sizeof(T));                                              \
            if (z)                                                                                \
                memcpy(z32, z + i, (n - i) * sizeof(S));                                          \
            FD_FN(load_32_##f)(x32, z32, 1, taken ? word & taken[i / 32] : word, row + i, top);   \
        }                                                                                         \
        return FD_FN(max_##SF)(top);                                                              \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(store_##f)(size_t n, const uint32_t *kept, const void *rowv, double by,     \
                                 void *yv)                                                        \
    {                                                                                             \
        const V factor = V##_set(by);                                                             \
        const S *row = rowv;                                                                      \
        T y32[32], *y = yv;                                                                       \
        for (size_t i = 0; i < n; i += 32) {                                                      \
            const uint32_t word = kept[i / 32];                                                   \
            T *to = n - i < 32 ? y32 : y + i;                                                     \
            FD_EACH_VECTOR(LANES,                                                                 \
                f##_store(to + j, V##_keep(V##_mul(SF##_load(row + i + j), factor), word, j));)   \
        }                                                                                         \
        if (n % 32)                                                                               \
            memcpy(y + n / 32 * 32, y32, n % 32 * sizeof(T));                                     \
    }                                                                                             \
                                                                                                  \
    static double FD_FN(dot_##f)(size_t n, const uint32_t *kept, const void *dyv, double by,      \
                                 double inverse, void *rowv)                                      \
    {                                                                                             \
        const V scale = V##_set(by), factor = V##_set(inverse), least = V##_set(V##_NORMAL);      \
        const T *dy = dyv;                                                                        \
        T dy32[32];                                                                               \
        S *row = rowv;                                                                            \
        V sum[32 / LANES];                                                                        \
        FD_EACH_VECTOR(LANES, sum[j / LANES] = V##_set(0);)                                       \
        for (size_t i = 0; i < n; i += 32, dy += 32, row += 32) {                                 \
            const uint32_t word = kept[i / 32];                                                   \
            if (n - i < 32)                                                                       \
                dy = memcpy(memset(dy32, 0, sizeof dy32), dy, (n - i) * sizeof(T));               \
            FD_EACH_VECTOR(LANES,                                                                 \
                const V w = V##_mul(SF##_load(row + j), factor);                                  \
                const V g = V##_keep(V##_mul(f##_load(dy + j), scale), word, j);                  \
                SF##_store(row + j, w);                                                           \
                sum[j / LANES] = V##_add(sum[j / LANES], V##_below(V##_mul(w, g), w, least));)    \
        }                                                                                         \
        return FD_FN(sum_##SF)(sum);                                                              \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(softmax_gradient_##f)(size_t n, const uint32_t *kept, const void *dyv,      \
                                            double by, double dot, const void *rowv, void *dxv)   \
    {                                                                                             \
        const V scale = V##_set(by), sum = V##_set(dot), least = V##_set(V##_NORMAL);             \
        const T *dy = dyv;                                                                        \
        const S *row = rowv;                                                                      \
        T dy32[32], *dx = dxv;                                                                    \
        for (size_t i = 0; i < n; i += 32, dy += 32, row += 32) {                                 \
            const uint32_t word = kept[i / 32];                                                   \
            T *to = dx + i;                                                                       \
            if (n - i < 32)                                                                       \
                dy = to = memcpy(memset(dy32, 0, sizeof dy32), dy, (n - i) * sizeof(T));          \
            FD_EACH_VECTOR(LANES,                                                                 \
                const V w = SF##_load(row + j);                                                   \
                const V g = V##_keep(V##_mul(f##_load(dy + j), scale), word, j);                  \
                f##_store(to + j, V##_below(V##_mul(w, V##_sub(g, sum)), w, least));)             \
        }                                                                                         \
        if (n % 32)                                                                               \
            memcpy(dx + n / 32 * 32, dy32, n % 32 * sizeof(T));                                   \
    }

FD_DEFINE_EXPONENTIALS(float, vf32, VF32_LANES, f32)
FD_DEFINE_EXPONENTIALS(double, vf64, VF64_LANES, f64)
FD_DEFINE_SOFTMAX(f16, uint16_t, float, vf32, VF32_LANES, f32)
FD_DEFINE_SOFTMAX(bf16, uint16_t, float, vf32, VF32_LANES, f32)
FD_DEFINE_SOFTMAX(f32, float, float, vf32, VF32_LANES, f32)
FD_DEFINE_SOFTMAX(f64, double, double, vf64, VF64_LANES, f64)

#define FD_EACH_FLOAT(name)                                                                       \
    {FD_FN(name##_f16), FD_FN(name##_bf16), FD_FN(name##_f32), FD_FN(name##_f64)}

static const struct fd_softmax_loops FD_FN(softmax_loops) = {
    .load = FD_EACH_FLOAT(load),
    .exponentials = {FD_FN(exponentials_f32), FD_FN(exponentials_f64)},
    .store = FD_EACH_FLOAT(store),
    .dot = FD_EACH_FLOAT(dot),
    .gradient = FD_EACH_FLOAT(softmax_gradient),
};
