/* The loops of activations.h, written once over the vector operations that loops.h lists, and
 * included by it after softmax_loops.h, which has the exponential. They need these as well:
 *
 *   vf32_less(d, limit, a, b)     lane k is a's where d < limit, else b's
 *   vf32_copysign(a, z)           a with the signs of z
 *   vf64_less, vf64_copysign
 */

/* Below, exp rounds to 0. */
#define vf32_VANISHES -104.0
#define vf64_VANISHES -746.0

#define FD_DEFINE_ACTIVATIONS(V)                                                                  \
    static FD_ALWAYS_INLINE V FD_FN(V##_sigmoid)(V z)                                             \
    {                                                                                             \
        const V zero = V##_set(0), unit = V##_set(0x1p64);                                        \
        const V a = V##_min(z, V##_sub(zero, z));                                                 \
        V t;                                                                                      \
        const V m = FD_FN(V##_exp_parts)(a, &t);                                                  \
        const V scaled = V##_mul(m, V##_power(V##_add(t, V##_set(64))));                          \
        const V e = V##_below(scaled, a, V##_set(V##_VANISHES));                                  \
        return V##_div(V##_less(z, zero, e, unit), V##_add(unit, e));                             \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_tanh)(V z)                                                \
    {                                                                                             \
        const V one = V##_set(1), limit = V##_set(0.625);                                         \
        const V x = V##_max(z, V##_sub(V##_set(0), z)), s = V##_mul(x, x);                        \
        const V e = FD_FN(V##_exp)(V##_mul(V##_set(-2), x));                                      \
        V p = V##_add(s, V##_set(594)), q = V##_add(s, V##_set(630));                             \
        p = V##_add(V##_mul(p, s), V##_set(45045));                                               \
        q = V##_add(V##_mul(q, s), V##_set(51975));                                               \
        p = V##_add(V##_mul(p, s), V##_set(675675));                                              \
        q = V##_add(V##_mul(q, s), V##_set(945945));                                              \
        q = V##_add(V##_mul(q, s), V##_set(2027025));                                             \
        const V quotient = V##_div(V##_less(x, limit, p, V##_add(e, e)),                          \
                                   V##_less(x, limit, q, V##_add(one, e)));                       \
        const V near_0 = V##_sub(x, V##_mul(V##_mul(x, s), quotient));                            \
        return V##_copysign(V##_less(x, limit, near_0, V##_sub(one, quotient)), z);               \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_sigmoid_gradient)(V dy, V y)                              \
    {                                                                                             \
        return V##_mul(V##_mul(dy, y), V##_sub(V##_set(1), y));                                   \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_tanh_gradient)(V dy, V y)                                 \
    {                                                                                             \
        return V##_mul(dy, V##_sub(V##_set(1), V##_mul(y, y)));                                   \
    }

FD_DEFINE_ACTIVATIONS(vf32)
FD_DEFINE_ACTIVATIONS(vf64)

/* LANES at a time; the rest at the end goes through buffers. */
#define FD_DEFINE_ACTIVATION_LOOPS(name, S, V, LANES, SF)                                         \
    static void FD_FN(name##_##SF)(size_t n, const void *zv, void *yv)                            \
    {                                                                                             \
        const S *z = zv;                                                                          \
        S *y = yv;                                                                                \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            SF##_store(y + i, FD_FN(V##_##name)(SF##_load(z + i)));                               \
        if (i < n) {                                                                              \
            S rest[LANES] = {0};                                                                  \
            memcpy(rest, z + i, (n - i) * sizeof(S));                                             \
            SF##_store(rest, FD_FN(V##_##name)(SF##_load(rest)));                                 \
            memcpy(y + i, rest, (n - i) * sizeof(S));                                             \
        }                                                                                         \
    }                                                                                             \
    static void FD_FN(name##_gradient_##SF)(size_t n, const void *dyv, const void *yv, void *dzv) \
    {                                                                                             \
        const S *dy = dyv, *y = yv;                                                               \
        S *dz = dzv;                                                                              \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            SF##_store(dz + i,                                                                    \
                       FD_FN(V##_##name##_gradient)(SF##_load(dy + i), SF##_load(y + i)));        \
        if (i < n) {                                                                              \
            S rest[LANES] = {0}, rest_y[LANES] = {0};                                             \
            memcpy(rest, dy + i, (n - i) * sizeof(S));                                            \
            memcpy(rest_y, y + i, (n - i) * sizeof(S));                                           \
            SF##_store(rest,                                                                      \
                       FD_FN(V##_##name##_gradient)(SF##_load(rest), SF##_load(rest_y)));         \
            memcpy(dz + i, rest, (n - i) * sizeof(S));                                            \
        }                                                                                         \
    }

FD_DEFINE_ACTIVATION_LOOPS(sigmoid, float, vf32, VF32_LANES, f32)
FD_DEFINE_ACTIVATION_LOOPS(sigmoid, double, vf64, VF64_LANES, f64)
FD_DEFINE_ACTIVATION_LOOPS(tanh, float, vf32, VF32_LANES, f32)
FD_DEFINE_ACTIVATION_LOOPS(tanh, double, vf64, VF64_LANES, f64)

static const struct fd_activation_loops FD_FN(activation_loops) = {
    .apply = {[FD_SIGMOID] = {FD_FN(sigmoid_f32), FD_FN(sigmoid_f64)},
              [FD_TANH] = {FD_FN(tanh_f32), FD_FN(tanh_f64)}},
    .gradient = {[FD_SIGMOID] = {FD_FN(sigmoid_gradient_f32), FD_FN(sigmoid_gradient_f64)},
                 [FD_TANH] = {FD_FN(tanh_gradient_f32), FD_FN(tanh_gradient_f64)}},
};
