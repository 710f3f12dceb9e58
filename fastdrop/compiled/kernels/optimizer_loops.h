/* The loops of optimizers.h, written once over the vector operations that loops.h lists, and
 * included by it. They need these as well:
 *
 *   vf32_sqrt, vf32_min, vf32_max      min and max give b where a or b is NaN
 *   vf64_sqrt, vf64_min, vf64_max
 *   vf64_of_f32(p)                     the floats at p as doubles
 *   FD_HAS_EXPAND                      is defined if there are:
 *   f32_expand(p, bits)                lane k has the next float at p where bit k is 1, else +0.0
 *   f64_expand(p, bits)
 *   f32_compress(p, v, bits)           the lanes of v whose bit is 1 go to p, one after the other
 *   f64_compress(p, v, bits)
 */

#define FD_DEFINE_STEPS(V)                                                                        \
    typedef struct {                                                                              \
        V rate, momentum, keep, gain, square_gain, epsilon, l1, l2, limit, scale, decay;          \
    } FD_FN(V##_step);                                                                            \
                                                                                                  \
    static FD_ALWAYS_INLINE FD_FN(V##_step) FD_FN(V##_step_of)(const fd_step *s)                  \
    {                                                                                             \
        return (FD_FN(V##_step)){                                                                 \
            V##_set(s->rate),        V##_set(s->momentum), V##_set(s->keep),  V##_set(s->gain),   \
            V##_set(s->square_gain), V##_set(s->epsilon),  V##_set(s->l1),    V##_set(s->l2),     \
            V##_set(s->limit),       V##_set(s->scale),    V##_set(s->decay),                     \
        };                                                                                        \
    }                                                                                             \
                                                                                                  \
    static FD_ALWAYS_INLINE V FD_FN(V##_gradient)(const FD_FN(V##_step) *s, V w, V d)             \
    {                                                                                             \
        const V zero = V##_set(0);                                                                \
        const V l1 = V##_sub(V##_keep_positive(s->l1, w),                                         \
                             V##_keep_positive(s->l1, V##_sub(zero, w)));                         \
        const V g = V##_add(V##_add(d, V##_mul(s->l2, w)), l1);                                   \
        return V##_mul(V##_max(V##_sub(zero, s->limit), V##_min(s->limit, g)), s->scale);         \
    }                                                                                             \
                                                                                                  \
    static FD_ALWAYS_INLINE V FD_FN(V##_sgd)(const FD_FN(V##_step) *s, V w, V g, V *state)        \
    {                                                                                             \
        (void)state;                                                                              \
        return V##_sub(w, V##_mul(g, s->rate));                                                   \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_momentum)(const FD_FN(V##_step) *s, V w, V g, V *state)   \
    {                                                                                             \
        state[0] = V##_sub(V##_mul(state[0], s->momentum), V##_mul(g, s->rate));                  \
        return V##_add(w, state[0]);                                                              \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_nesterov)(const FD_FN(V##_step) *s, V w, V g, V *state)   \
    {                                                                                             \
        const V step = V##_mul(g, s->rate);                                                       \
        state[0] = V##_sub(V##_mul(state[0], s->momentum), step);                                 \
        return V##_add(w, V##_sub(V##_mul(state[0], s->momentum), step));                         \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_adam)(const FD_FN(V##_step) *s, V w, V g, V *state)       \
    {                                                                                             \
        V m = state[0], v = state[1];                                                             \
        m = V##_add(m, V##_mul(V##_sub(g, m), s->gain));                                          \
        v = V##_add(v, V##_mul(V##_sub(V##_mul(g, g), v), s->square_gain));                       \
        state[0] = m;                                                                             \
        state[1] = v;                                                                             \
        return V##_sub(w, V##_div(V##_mul(m, s->rate), V##_add(V##_sqrt(v), s->epsilon)));        \
    }                                                                                             \
    /* a: the mean gradient's state or NULL; u: the momentum's or NULL */                         \
    static FD_ALWAYS_INLINE V FD_FN(V##_rms)(const FD_FN(V##_step) *s, V w, V g, V *v, V *a, V *u)\
    {                                                                                             \
        V square, change;                                                                         \
        *v = V##_add(V##_mul(*v, s->keep), V##_mul(V##_mul(g, g), s->square_gain));               \
        square = *v;                                                                              \
        if (a) {                                                                                  \
            *a = V##_add(V##_mul(*a, s->keep), V##_mul(g, s->square_gain));                       \
            square = V##_relu(V##_sub(square, V##_mul(*a, *a)));                                  \
        }                                                                                         \
        change = V##_div(V##_mul(s->rate, g), V##_sqrt(V##_add(square, s->epsilon)));             \
        if (u)                                                                                    \
            change = *u = V##_add(V##_mul(*u, s->momentum), change);                              \
        return V##_sub(w, change);                                                                \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_rmsprop)(const FD_FN(V##_step) *s, V w, V g, V *state)    \
    {                                                                                             \
        return FD_FN(V##_rms)(s, w, g, state, NULL, NULL);                                        \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_rmsprop_momentum)(const FD_FN(V##_step) *s, V w, V g,     \
                                                          V *state)                               \
    {                                                                                             \
        return FD_FN(V##_rms)(s, w, g, state, NULL, state + 1);                                   \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_rmsprop_centered)(const FD_FN(V##_step) *s, V w, V g,     \
                                                          V *state)                               \
    {                                                                                             \
        return FD_FN(V##_rms)(s, w, g, state, state + 1, NULL);                                   \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_rmsprop_centered_momentum)(const FD_FN(V##_step) *s, V w, \
                                                                   V g, V *state)                 \
    {                                                                                             \
        return FD_FN(V##_rms)(s, w, g, state, state + 1, state + 2);                              \
    }

FD_DEFINE_STEPS(vf32)
FD_DEFINE_STEPS(vf64)

/* Takes J vectors, and reads everything before it writes anything. On x86, a load that follows a
   store waits for it if both addresses have the same low 12 bits, and arrays may lie at any
   distance. */
#define FD_UPDATE_AT(J, op, STATES, f, V, LANES, general, w, d, state)                            \
    do {                                                                                          \
        V w_[J], g_[J], state_[J][FD_MAX_STATES];                                                 \
        FD_UNROLL                                                                                 \
        for (int j = 0; j < J; j++) {                                                             \
            w_[j] = f##_load(w + j * LANES);                                                      \
            g_[j] = f##_load(d + j * LANES);                                                      \
            FD_UNROLL                                                                             \
            for (int k = 0; k < STATES; k++)                                                      \
                state_[j][k] = f##_load(state(k) + j * LANES);                                    \
        }                                                                                         \
        FD_UNROLL                                                                                 \
        for (int j = 0; j < J; j++) {                                                             \
            if (general) {                                                                        \
                g_[j] = FD_FN(V##_gradient)(&s, w_[j], g_[j]);                                    \
                w_[j] = V##_sub(w_[j], V##_mul(w_[j], s.decay));                                  \
            }                                                                                     \
            f##_store(w + j * LANES, FD_FN(V##_##op)(&s, w_[j], g_[j], state_[j]));               \
            FD_UNROLL                                                                             \
            for (int k = 0; k < STATES; k++)                                                      \
                f##_store(state(k) + j * LANES, state_[j][k]);                                    \
        }                                                                                         \
    } while (0)

#define FD_STATE(k) (state[k] + i)
#define FD_STATE_32(k) (state32[k])

#define FD_DEFINE_UPDATE(op, STATES, f, T, V, LANES, kind, general)                               \
    static void FD_FN(op##_##f##_##kind)(size_t n, const fd_step *step, void *wv, const void *dv, \
                                         void *const *states)                                     \
    {                                                                                             \
        const FD_FN(V##_step) s = FD_FN(V##_step_of)(step);                                       \
        T *w = wv, *state[FD_MAX_STATES] = {states[0], states[1], states[2]};                     \
        const T *d = dv;                                                                          \
        size_t i = 0;                                                                             \
        for (; i + 4 * LANES <= n; i += 4 * LANES)                                                \
            FD_UPDATE_AT(4, op, STATES, f, V, LANES, general, w + i, d + i, FD_STATE);            \
        for (; i + LANES <= n; i += LANES)                                                        \
            FD_UPDATE_AT(1, op, STATES, f, V, LANES, general, w + i, d + i, FD_STATE);            \
        if (i < n) {                                                                              \
            const size_t bytes = (n - i) * sizeof(T);                                             \
            T w32[LANES] = {0}, d32[LANES] = {0}, state32[FD_MAX_STATES][LANES] = {{0}};          \
            memcpy(w32, w + i, bytes);                                                            \
            memcpy(d32, d + i, bytes);                                                            \
            for (int k = 0; k < STATES; k++)                                                      \
                memcpy(state32[k], state[k] + i, bytes);                                          \
            FD_UPDATE_AT(1, op, STATES, f, V, LANES, general, w32, d32, FD_STATE_32);             \
            memcpy(w + i, w32, bytes);                                                            \
            for (int k = 0; k < STATES; k++)                                                      \
                memcpy(state[k] + i, state32[k], bytes);                                          \
        }                                                                                         \
    }

#define FD_DEFINE_UPDATES(op, STATES)                                                             \
    FD_DEFINE_UPDATE(op, STATES, f32, float, vf32, VF32_LANES, plain, 0)                          \
    FD_DEFINE_UPDATE(op, STATES, f32, float, vf32, VF32_LANES, general, 1)                        \
    FD_DEFINE_UPDATE(op, STATES, f64, double, vf64, VF64_LANES, plain, 0)                         \
    FD_DEFINE_UPDATE(op, STATES, f64, double, vf64, VF64_LANES, general, 1)

FD_DEFINE_UPDATES(sgd, 0)
FD_DEFINE_UPDATES(momentum, 1)
FD_DEFINE_UPDATES(nesterov, 1)
FD_DEFINE_UPDATES(adam, 2)
FD_DEFINE_UPDATES(rmsprop, 1)
FD_DEFINE_UPDATES(rmsprop_momentum, 2)
FD_DEFINE_UPDATES(rmsprop_centered, 2)
FD_DEFINE_UPDATES(rmsprop_centered_momentum, 3)

enum { FD_FN(SUMS) = 16 / VF64_LANES };    /* vectors of the 16 sums */

#define FD_DEFINE_ROW_LOOPS(f, T, V, LANES, load_doubles)                                         \
    static void FD_FN(gradient_##f)(size_t n, const fd_step *step, const void *wv,                \
                                    const void *dv, void *gv)                                     \
    {                                                                                             \
        const FD_FN(V##_step) s = FD_FN(V##_step_of)(step);                                       \
        const T *w = wv, *d = dv;                                                                 \
        T *g = gv;                                                                                \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            f##_store(g + i, FD_FN(V##_gradient)(&s, f##_load(w + i), f##_load(d + i)));          \
        if (i < n) {                                                                              \
            T w32[LANES] = {0}, d32[LANES] = {0};                                                 \
            memcpy(w32, w + i, (n - i) * sizeof(T));                                              \
            memcpy(d32, d + i, (n - i) * sizeof(T));                                              \
            f##_store(d32, FD_FN(V##_gradient)(&s, f##_load(w32), f##_load(d32)));                \
            memcpy(g + i, d32, (n - i) * sizeof(T));                                              \
        }                                                                                         \
    }                                                                                             \
                                                                                                  \
    static double FD_FN(square_sum_##f)(size_t n, const void *xv)                                 \
    {                                                                                             \
        const T *x = xv;                                                                          \
        vf64 sum[FD_FN(SUMS)];                                                                    \
        double sums[16];                                                                          \
        size_t i = 0;                                                                             \
        FD_UNROLL                                                                                 \
        for (int k = 0; k < FD_FN(SUMS); k++)                                                     \
            sum[k] = vf64_set(0);                                                                 \
        for (; i + 16 <= n; i += 16) {                                                            \
            FD_UNROLL                                                                             \
            for (int k = 0; k < FD_FN(SUMS); k++) {                                               \
                const vf64 a = load_doubles(x + i + k * VF64_LANES);                              \
                sum[k] = vf64_add(sum[k], vf64_mul(a, a));                                        \
            }                                                                                     \
        }                                                                                         \
        FD_UNROLL                                                                                 \
        for (int k = 0; k < FD_FN(SUMS); k++)                                                     \
            f64_store(sums + k * VF64_LANES, sum[k]);                                             \
        for (int k = 0; i + k < n; k++)                                                           \
            sums[k] += (double)x[i + k] * (double)x[i + k];                                       \
        for (int half = 8; half; half /= 2)                                                       \
            for (int k = 0; k < half; k++)                                                        \
                sums[k] += sums[k + half];                                                        \
        return sums[0];                                                                           \
    }                                                                                             \
                                                                                                  \
    static void FD_FN(multiply_##f)(size_t n, double factor, void *xv)                            \
    {                                                                                             \
        T *x = xv;                                                                                \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            f##_store(x + i, V##_mul(f##_load(x + i), V##_set(factor)));                          \
        for (; i < n; i++)                                                                        \
            x[i] *= (T)factor;                                                                    \
    }

#if FD_HAS_EXPAND
#define FD_SPREAD_64(f, T, V, LANES)                                                              \
    FD_UNROLL                                                                                     \
    for (int j = 0; j < 64; j += LANES) {                                                         \
        const uint64_t bits = word >> j & ((1ull << LANES) - 1);                                  \
        const V old = add ? f##_load(d + j) : V##_set(0);                                         \
        f##_store(d + j, V##_add(old, f##_expand(values, bits)));                                 \
        values += __builtin_popcountll(bits);                                                     \
    }
#else
#define FD_SPREAD_64(f, T, V, LANES)                                                              \
    if (!add)                                                                                     \
        memset(d, 0, 64 * sizeof(T));                                                             \
    for (; word; word &= word - 1)                                                                \
        d[__builtin_ctzll(word)] += *values++;
#endif

#define FD_DEFINE_SPREAD(f, T, V, LANES)                                                          \
    static size_t FD_FN(spread_##f)(size_t words, const uint64_t *column_bits, const void *from,  \
                                    void *to, int add)                                            \
    {                                                                                             \
        const T *values = from;                                                                   \
        T *d = to;                                                                                \
        for (size_t i = 0; i < words; i++, d += 64) {                                             \
            uint64_t word = column_bits[i];                                                       \
            FD_SPREAD_64(f, T, V, LANES)                                                          \
        }                                                                                         \
        return (size_t)(values - (const T *)from);                                                \
    }

#if FD_HAS_EXPAND
#define FD_DEFINE_PICK(f, T, V, LANES)                                                            \
    static void FD_FN(pick_columns_##f)(size_t n, const uint64_t *column_bits, size_t num_columns,\
                                        const intptr_t *columns, const void *from, void *to)      \
    {                                                                                             \
        const T *x = from;                                                                        \
        T *values = to, *end = values + num_columns;                                              \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES) {                                                      \
            const uint64_t bits = column_bits[i / 64] >> i % 64 & ((1ull << LANES) - 1);          \
            f##_compress(values, f##_load(x + i), bits);                                          \
            values += __builtin_popcountll(bits);                                                 \
        }                                                                                         \
        for (columns += values - (T *)to; values < end; values++)                                 \
            *values = x[*columns++];                                                              \
    }
#else
#define FD_DEFINE_PICK(f, T, V, LANES)                                                            \
    static void FD_FN(pick_columns_##f)(size_t n, const uint64_t *column_bits, size_t num_columns,\
                                        const intptr_t *columns, const void *from, void *to)      \
    {                                                                                             \
        const T *x = from;                                                                        \
        T *values = to;                                                                           \
        (void)n, (void)column_bits;                                                               \
        for (size_t i = 0; i < num_columns; i++)                                                  \
            values[i] = x[columns[i]];                                                            \
    }
#endif

FD_DEFINE_SPREAD(f32, float, vf32, VF32_LANES)
FD_DEFINE_SPREAD(f64, double, vf64, VF64_LANES)
FD_DEFINE_PICK(f32, float, vf32, VF32_LANES)
FD_DEFINE_PICK(f64, double, vf64, VF64_LANES)

FD_DEFINE_ROW_LOOPS(f32, float, vf32, VF32_LANES, vf64_of_f32)
FD_DEFINE_ROW_LOOPS(f64, double, vf64, VF64_LANES, f64_load)

#define FD_EACH_UPDATE(op)                                                                        \
    {{FD_FN(op##_f32_plain), FD_FN(op##_f32_general)},                                            \
     {FD_FN(op##_f64_plain), FD_FN(op##_f64_general)}}

static const struct fd_optimizer_loops FD_FN(optimizer_loops) = {
    .update = {FD_EACH_UPDATE(sgd), FD_EACH_UPDATE(momentum), FD_EACH_UPDATE(nesterov),
               FD_EACH_UPDATE(adam), FD_EACH_UPDATE(rmsprop), FD_EACH_UPDATE(rmsprop_momentum),
               FD_EACH_UPDATE(rmsprop_centered), FD_EACH_UPDATE(rmsprop_centered_momentum)},
    .gradient = {FD_FN(gradient_f32), FD_FN(gradient_f64)},
    .square_sum = {FD_FN(square_sum_f32), FD_FN(square_sum_f64)},
    .multiply = {FD_FN(multiply_f32), FD_FN(multiply_f64)},
    .spread = {FD_FN(spread_f32), FD_FN(spread_f64)},
    .pick_columns = {FD_FN(pick_columns_f32), FD_FN(pick_columns_f64)},
};
