/* The loop bodies, written once. The file of an instruction set defines the few vector operations
 * below and includes this file, which then defines fd_<FD_ISA>.
 *
 *   vu64              a vector of VU64_LANES 64-bit lanes, 1 to 8
 *   vu64_lanes(a)     lanes a, a + 2, a + 4, ...      vu64_set(a)     a in both halves of each lane
 *   vu64_mul(a, b)    64-bit products of the low halves
 *   vu64_high(a)      each lane's high half moved to its low half
 *   vu64_pair(a, b)   low halves of a and b in turn: a0 b0 a1 b1 ... as 32-bit lanes
 *   vu64_xor, vu64_and, vu64_andnot(a, b) = ~a & b, vu64_or; vu64_none(a) is 1 if every bit is 0
 *   vu64_store(p, a)
 *
 *   vf32              a vector of VF32_LANES floats
 *   vf32_set, vf32_add, vf32_mul; vf32_relu(a) = 0 > a ? 0 : a, so that NaN stays NaN
 *   vf32_keep(a, word, j)          lane k is a's where bit j + k of word is 1, else +0.0
 *   vf32_pick(a, b, word, j)       lane k is a's where bit j + k of word is 1, else b's
 *   vf32_keep_positive(a, z)       lane k is a's where z > 0, else +0.0
 *   vf32_sub, vf32_div
 *   vf32_signed(w), vf32_edge(w)   of words w: word - 2^31, and the distance of word from the nearer
 *                                  end of [0, 2^32), as floats
 *   vf32_split(&a, &n)             a = m 2^-n, m / 2^62 in (sqrt(1/2), sqrt(2)], for a in [2^31, 2^62]:
 *                                  a becomes m, n a float
 *   vf64              the same with doubles
 *   f32_load(p), f32_store(p, a), f32_stream(p, a); likewise f16 and bf16 (to and from vf32), f64
 *   STREAMS is 1 if there are streaming stores; stream_fence() comes after them
 *   FD_UNROLL_GROUP comes before a loop over the vectors of 32 elements
 *
 * The Philox state lies in 64-bit lanes whose high halves are garbage. A 32 x 32 -> 64 product
 * reads only low halves, so a round is two products, two moves and two three-way xors, no blends.
 * Even blocks lie in one vector, odd ones in another; vu64_pair puts them in order at the end.
 */

#define FD_CAT3(a, b, c) a##b##c
#define FD_NAME3(a, b, c) FD_CAT3(a, b, c)
#define FD_FN(name) FD_NAME3(FD_ISA, _, name)

enum { FD_FN(BLOCKS) = 2 * VU64_LANES };    /* Philox blocks computed side by side */

/* The part of a counter's rounds 1 to 3 that does not depend on the plane, for one vector. */
typedef struct {
    vu64 d1, b2, h2, d3;
} FD_FN(block_part);

static inline FD_FN(block_part) FD_FN(block_rounds)(const fd_key *key, vu64 block)
{
    const vu64 m0 = vu64_set(PHILOX_M0), m1 = vu64_set(PHILOX_M1);
    const uint32_t call_high = (uint32_t)(key->call >> 32);
    const uint32_t b1 = (uint32_t)((uint64_t)PHILOX_M1 * (uint32_t)key->call);
    FD_FN(block_part) part;
    part.d1 = vu64_mul(block, m0);
    vu64 c1 = vu64_xor(vu64_high(part.d1), vu64_set(call_high ^ key->round[0][1]));
    vu64 p1 = vu64_mul(c1, m1);
    vu64 a2 = vu64_xor(vu64_high(p1), vu64_set(b1 ^ key->round[1][0]));
    part.b2 = vu64_xor(p1, vu64_set(key->round[2][0]));
    part.d3 = vu64_mul(a2, m0);
    part.h2 = vu64_high(part.d3);
    return part;
}

/* Takes two vectors (even and odd blocks) through Philox; counter1 is counter word 1. The first
   three rounds are folded: of their twelve products only one still depends on plane and block. */
static inline void FD_FN(philox)(const fd_key *key, const FD_FN(block_part) part[2],
                                 uint32_t counter1, vu64 out[4])
{
    const vu64 m0 = vu64_set(PHILOX_M0), m1 = vu64_set(PHILOX_M1);
    const uint64_t call_product = (uint64_t)PHILOX_M1 * (uint32_t)key->call;
    const uint32_t a1 = (uint32_t)(call_product >> 32) ^ counter1 ^ key->round[0][0];
    const uint64_t p0 = (uint64_t)PHILOX_M0 * a1;
    const vu64 s2 = vu64_set((uint32_t)(p0 >> 32) ^ key->round[1][1]);
    const vu64 s3 = vu64_set((uint32_t)p0 ^ key->round[2][1]);
    vu64 a[2], b[2], c[2], d[2];
    FD_UNROLL
    for (int v = 0; v < 2; v++) {
        vu64 c2 = vu64_xor(part[v].d1, s2);
        b[v] = vu64_mul(c2, m1);
        a[v] = vu64_xor(vu64_high(b[v]), part[v].b2);
        c[v] = vu64_xor(part[v].h2, s3);
        d[v] = part[v].d3;
    }
    FD_UNROLL
    for (int r = 3; r < 10; r++) {
        const vu64 k0 = vu64_set(key->round[r][0]), k1 = vu64_set(key->round[r][1]);
        FD_UNROLL
        for (int v = 0; v < 2; v++) {
            vu64 q0 = vu64_mul(a[v], m0), q1 = vu64_mul(c[v], m1);
            a[v] = vu64_xor(vu64_xor(vu64_high(q1), b[v]), k0);
            b[v] = q1;
            c[v] = vu64_xor(vu64_xor(vu64_high(q0), d[v]), k1);
            d[v] = q0;
        }
    }
    out[0] = vu64_pair(a[0], a[1]);
    out[1] = vu64_pair(b[0], b[1]);
    out[2] = vu64_pair(c[0], c[1]);
    out[3] = vu64_pair(d[0], d[1]);
}

static inline void FD_FN(blocks_at)(const fd_key *key, uint64_t block, FD_FN(block_part) part[2])
{
    /* a tile's 16 blocks never carry into the high half, because the first is a multiple of 16 */
    part[0] = FD_FN(block_rounds)(key, vu64_lanes((uint32_t)block));
    part[1] = FD_FN(block_rounds)(key, vu64_lanes((uint32_t)block + 1));
}

/* Draws the mask of a tile. work(state) is called once per plane, so that the processor has
   something else to do between multiplications; it is inlined. */
static FD_ALWAYS_INLINE void FD_FN(draw_tile)(const fd_key *key, uint32_t threshold, uint64_t tile,
                                              uint32_t *words, void (*work)(void *), void *state)
{
    for (int lane = 0; lane < 16; lane += FD_FN(BLOCKS)) {
        const uint64_t block = 16 * tile + (uint64_t)lane;
        uint32_t counter1 = (uint32_t)(block >> 32) | (uint32_t)FD_DOMAIN_MASK << 21;
        FD_FN(block_part) part[2];
        FD_FN(blocks_at)(key, block, part);
        vu64 kept[4], undecided[4];
        for (int w = 0; w < 4; w++) {
            kept[w] = vu64_set(0);
            undecided[w] = vu64_set(0xFFFFFFFFu);
        }
        for (uint32_t digits = threshold; digits; digits <<= 1, counter1 += 1u << 16) {
            vu64 plane[4];
            FD_FN(philox)(key, part, counter1, plane);
            work(state);
            vu64 any = vu64_set(0);
            if (digits >> 31) {
                FD_UNROLL
                for (int w = 0; w < 4; w++) {
                    kept[w] = vu64_or(kept[w], vu64_andnot(plane[w], undecided[w]));
                    undecided[w] = vu64_and(undecided[w], plane[w]);
                    any = vu64_or(any, undecided[w]);
                }
            } else {
                FD_UNROLL
                for (int w = 0; w < 4; w++) {
                    undecided[w] = vu64_andnot(plane[w], undecided[w]);
                    any = vu64_or(any, undecided[w]);
                }
            }
            if (vu64_none(any))
                break;
        }
        for (int w = 0; w < 4; w++)
            vu64_store(words + 16 * w + lane, kept[w]);
    }
}

static FD_ALWAYS_INLINE void FD_FN(no_work)(void *state) { (void)state; }

static void FD_FN(mask_tile)(const fd_key *key, uint32_t threshold, uint64_t tile, uint32_t *words)
{
    FD_FN(draw_tile)(key, threshold, tile, words, FD_FN(no_work), NULL);
}

static void FD_FN(word_tile)(const fd_key *key, uint64_t tile, uint32_t *words)
{
    for (int lane = 0; lane < 16; lane += FD_FN(BLOCKS)) {
        const uint64_t block = 16 * tile + (uint64_t)lane;
        FD_FN(block_part) part[2];
        vu64 out[4];
        FD_FN(blocks_at)(key, block, part);
        FD_FN(philox)(key, part, (uint32_t)(block >> 32) | (uint32_t)FD_DOMAIN_WORDS << 21, out);
        for (int w = 0; w < 4; w++)
            vu64_store(words + 16 * w + lane, out[w]);
    }
}

/* ---- normal variates ---------------------------------------------------------------------------- */

/* The inverse normal distribution function of (word + 1/2) / 2^32, see normal.h. With i = word +
   1/2 - 2^31, and e = the distance of word from the nearer end of [0, 2^32), plus 1/2,
   2^62 (1 - x^2) is e (2^32 - e), without cancellation. */
#define FD_DEFINE_NORMAL(V)                                                                       \
    static FD_ALWAYS_INLINE V FD_FN(V##_polynomial)(V w, const double *c, int degree)             \
    {                                                                                             \
        V sum = V##_set(c[degree]);                                                               \
        FD_UNROLL                                                                                 \
        for (int k = degree - 1; k >= 0; k--)                                                     \
            sum = V##_add(V##_mul(sum, w), V##_set(c[k]));                                        \
        return sum;                                                                               \
    }                                                                                             \
    static FD_ALWAYS_INLINE V FD_FN(V##_normal)(const uint32_t *words)                            \
    {                                                                                             \
        const V half = V##_set(0.5), unit = V##_set(0x1p62);                                      \
        const V i = V##_add(V##_signed(words), half), e = V##_add(V##_edge(words), half);         \
        V m = V##_mul(e, V##_sub(V##_set(0x1p32), e)), n;                                         \
        V##_split(&m, &n);                                                                        \
        const V f = V##_div(V##_sub(m, unit), V##_add(m, unit));                                  \
        const V log2_m = V##_mul(f, FD_FN(V##_polynomial)(V##_mul(f, f), V##_log, V##_LOG));      \
        const V v = V##_sub(n, log2_m);                                                           \
        const V p = FD_FN(V##_polynomial)(v, V##_p, V##_P);                                       \
        const V q = FD_FN(V##_polynomial)(v, V##_q, V##_Q);                                       \
        return V##_mul(i, V##_div(p, q));                                                         \
    }

FD_DEFINE_NORMAL(vf32)
FD_DEFINE_NORMAL(vf64)

/* ---- operations --------------------------------------------------------------------------------- */

typedef struct {
    vf32 scale, shift, fill;
} FD_FN(vf32_constants);

typedef struct {
    vf64 scale, shift, fill;
} FD_FN(vf64_constants);

#define FD_CONSTANTS(V, o) {V##_set((o)->scale), V##_set((o)->shift), V##_set((o)->fill)}


/* V is the vector family, f its loads and stores, x and z operand pointers, c the constants. */
#define FD_OP_scale(V, f, x, z, c, word, j) V##_keep(V##_mul(f##_load(x), c.scale), word, j)
#define FD_OP_add(V, f, x, z, c, word, j)                                                         \
    V##_add(V##_keep(V##_mul(f##_load(x), c.scale), word, j), f##_load(z))
#define FD_OP_bias(V, f, x, z, c, word, j)                                                        \
    V##_keep(V##_mul(V##_add(f##_load(x), f##_load(z)), c.scale), word, j)
#define FD_OP_bias_relu(V, f, x, z, c, word, j)                                                   \
    V##_keep(V##_mul(V##_relu(V##_add(f##_load(x), f##_load(z))), c.scale), word, j)
#define FD_OP_alpha(V, f, x, z, c, word, j)                                                       \
    V##_pick(V##_add(V##_mul(f##_load(x), c.scale), c.shift), c.fill, word, j)
#define FD_OP_pick(V, f, x, z, c, word, j) V##_pick(f##_load(x), f##_load(z), word, j)
#define FD_OP_relu_backward(V, f, x, z, c, word, j)                                               \
    V##_keep_positive(V##_mul(f##_load(x), c.scale), f##_load(z))
#define FD_OP_scale_runs(V, f, x, z, c, word, j) (word ? FD_OP_scale(V, f, x, z, c, word, j) : V##_set(0))
#define FD_OP_copy(V, f, x, z, c, word, j) f##_load(x)

/* How many bytes ahead x is fetched when y is streamed, so that memory also works while the next
   mask is drawn. */
enum { FD_FN(PREFETCH) = 2048 };

/* A group is 32 elements, one word of the mask. If the last group is shorter, it goes through
   buffers, so that no load or store reaches beyond the arrays. */
#define FD_DEFINE_APPLY(op, f, T, V, LANES)                                                       \
    static inline void FD_FN(op##_##f##_group)(uint32_t word, const T *x, const T *z, T *y,       \
                                               FD_FN(V##_constants) c, int stream)                \
    {                                                                                             \
        (void)word, (void)z, (void)c;                                                             \
        if (STREAMS && stream) {                                                                  \
            FD_UNROLL_GROUP                                                                       \
            for (size_t b = 0; b < 32 * sizeof(T); b += 64)                                       \
                __builtin_prefetch((const char *)x + FD_FN(PREFETCH) + b);                            \
            FD_UNROLL_GROUP                                                                       \
            for (int j = 0; j < 32; j += LANES)                                                   \
                f##_stream(y + j, FD_OP_##op(V, f, x + j, z + j, c, word, j));                    \
        } else {                                                                                  \
            FD_UNROLL_GROUP                                                                       \
            for (int j = 0; j < 32; j += LANES)                                                   \
                f##_store(y + j, FD_OP_##op(V, f, x + j, z + j, c, word, j));                     \
        }                                                                                         \
    }                                                                                             \
    static void FD_FN(op##_##f##_apply)(const uint32_t *words, size_t n, const fd_operands *o)    \
    {                                                                                             \
        const T *x = o->x, *z = o->z;                                                             \
        T *y = o->y;                                                                              \
        const FD_FN(V##_constants) c = FD_CONSTANTS(V, o);                                        \
        size_t i = 0;                                                                             \
        for (; i + 32 <= n; i += 32)                                                              \
            FD_FN(op##_##f##_group)(words[i / 32], x + i, z + i, y + i, c, o->stream);            \
        if (i < n) {                                                                              \
            T x32[32] = {0}, z32[32] = {0};                                                       \
            memcpy(x32, x + i, (n - i) * sizeof(T));                                              \
            memcpy(z32, z + i, (n - i) * sizeof(T));                                              \
            FD_FN(op##_##f##_group)(words[i / 32], x32, z32, x32, c, 0);                          \
            memcpy(y + i, x32, (n - i) * sizeof(T));                                              \
        }                                                                                         \
    }

/* How many groups of a tile are applied with each plane of the next one: so few that they last until
   the planes of p = 0.1 are done, because memory idles after them. */
enum { FD_FN(WITH_A_PLANE) = (VU64_LANES + 1) / 2 };

#define FD_DEFINE_APPLY_AND_DRAW(op, f, T, V, LANES)                                              \
    FD_DEFINE_APPLY(op, f, T, V, LANES)                                                           \
    typedef struct {                                                                              \
        const uint32_t *words, *end;                                                              \
        const T *x, *z;                                                                           \
        T *y;                                                                                     \
        FD_FN(V##_constants) c;                                                                   \
        int stream;                                                                               \
    } FD_FN(op##_##f##_walk);                                                                     \
    static FD_ALWAYS_INLINE void FD_FN(op##_##f##_steps)(void *state)                             \
    {                                                                                             \
        FD_FN(op##_##f##_walk) *w = state;                                                        \
        if (w->words < w->end)                                                                    \
            for (int g = 0; g < FD_FN(WITH_A_PLANE); g++) {                                       \
                FD_FN(op##_##f##_group)(*w->words, w->x, w->z, w->y, w->c, w->stream);            \
                w->words++, w->x += 32, w->z += 32, w->y += 32;                                   \
            }                                                                                     \
    }                                                                                             \
    static void FD_FN(op##_##f##_apply_and_draw)(const uint32_t *words, const fd_operands *o,     \
                                                 const fd_key *key, uint32_t threshold,           \
                                                 uint64_t tile, uint32_t *next)                   \
    {                                                                                             \
        FD_FN(op##_##f##_walk) walk = {                                                           \
            words, words + FD_TILE_WORDS, o->x, o->z, o->y, FD_CONSTANTS(V, o), o->stream};       \
        FD_FN(draw_tile)(key, threshold, tile, next, FD_FN(op##_##f##_steps), &walk);             \
        while (walk.words < walk.end)                                                             \
            FD_FN(op##_##f##_steps)(&walk);                                                       \
    }

#define FD_OP_normal_scale(V, x, scaled) V##_mul(x, V##_add(V##_set(1.0), scaled))
#define FD_OP_normal_add(V, x, scaled) V##_add(x, scaled)

/* Takes one word per element, LANES at a time; the rest at the end goes through buffers. As above,
   fewer than 32 elements are not streamed, because they may lie before aligned ones. */
#define FD_DEFINE_NORMAL_APPLY(op, f, T, V, LANES)                                                \
    static void FD_FN(op##_##f##_apply)(const uint32_t *words, size_t n, const fd_operands *o)    \
    {                                                                                             \
        const T *x = o->x;                                                                        \
        T *y = o->y;                                                                              \
        const V scale = V##_set(o->scale);                                                        \
        const size_t streamed = o->stream ? n / 32 * 32 : 0;                                      \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES) {                                                      \
            const V scaled = V##_mul(scale, FD_FN(V##_normal)(words + i));                        \
            const V result = FD_OP_##op(V, f##_load(x + i), scaled);                              \
            if (STREAMS && i < streamed)                                                          \
                f##_stream(y + i, result);                                                        \
            else                                                                                  \
                f##_store(y + i, result);                                                         \
        }                                                                                         \
        if (i < n) {                                                                              \
            T rest[LANES] = {0};                                                                  \
            uint32_t w[LANES] = {0};                                                              \
            memcpy(rest, x + i, (n - i) * sizeof(T));                                             \
            memcpy(w, words + i, (n - i) * sizeof *w);                                            \
            const V scaled = V##_mul(scale, FD_FN(V##_normal)(w));                                \
            f##_store(rest, FD_OP_##op(V, f##_load(rest), scaled));                               \
            memcpy(y + i, rest, (n - i) * sizeof(T));                                             \
        }                                                                                         \
    }

/* Computes sum += x, LANES at a time. */
#define FD_DEFINE_ACCUMULATE(f, T, V, LANES, S, SF)                                               \
    static void FD_FN(accumulate_##f)(size_t n, const void *xv, void *sumv)                       \
    {                                                                                             \
        const T *x = xv;                                                                          \
        S *sum = sumv;                                                                            \
        size_t i = 0;                                                                             \
        for (; i + LANES <= n; i += LANES)                                                        \
            SF##_store(sum + i, V##_add(SF##_load(sum + i), f##_load(x + i)));                    \
        if (i < n) {                                                                              \
            T x32[LANES] = {0};                                                                   \
            S s32[LANES] = {0};                                                                   \
            memcpy(x32, x + i, (n - i) * sizeof(T));                                              \
            memcpy(s32, sum + i, (n - i) * sizeof(S));                                            \
            SF##_store(s32, V##_add(SF##_load(s32), f##_load(x32)));                              \
            memcpy(sum + i, s32, (n - i) * sizeof(S));                                            \
        }                                                                                         \
    }

#define FD_DEFINE_DTYPE(f, T, V, LANES, S, SF)                                                    \
    FD_DEFINE_APPLY_AND_DRAW(scale, f, T, V, LANES)                                               \
    FD_DEFINE_APPLY_AND_DRAW(add, f, T, V, LANES)                                                 \
    FD_DEFINE_APPLY_AND_DRAW(bias, f, T, V, LANES)                                                \
    FD_DEFINE_APPLY_AND_DRAW(bias_relu, f, T, V, LANES)                                           \
    FD_DEFINE_APPLY_AND_DRAW(alpha, f, T, V, LANES)                                               \
    FD_DEFINE_APPLY_AND_DRAW(pick, f, T, V, LANES)                                                \
    FD_DEFINE_APPLY(relu_backward, f, T, V, LANES)                                                \
    FD_DEFINE_APPLY(scale_runs, f, T, V, LANES)                                                   \
    FD_DEFINE_APPLY(copy, f, T, V, LANES)                                                         \
    FD_DEFINE_NORMAL_APPLY(normal_scale, f, T, V, LANES)                                          \
    FD_DEFINE_NORMAL_APPLY(normal_add, f, T, V, LANES)                                            \
    FD_DEFINE_ACCUMULATE(f, T, V, LANES, S, SF)

FD_DEFINE_DTYPE(f16, uint16_t, vf32, VF32_LANES, float, f32)
FD_DEFINE_DTYPE(bf16, uint16_t, vf32, VF32_LANES, float, f32)
FD_DEFINE_DTYPE(f32, float, vf32, VF32_LANES, float, f32)
FD_DEFINE_DTYPE(f64, double, vf64, VF64_LANES, double, f64)

#include "optimizer_loops.h"
#include "softmax_loops.h"
#include "product_loops.h"
#include "activation_loops.h"

#define FD_STRING2(name) #name
#define FD_STRING(name) FD_STRING2(name)
#define FD_EACH_DTYPE(op, kind)                                                                   \
    {FD_FN(op##_f16_##kind), FD_FN(op##_bf16_##kind), FD_FN(op##_f32_##kind), FD_FN(op##_f64_##kind)}

const fd_kernels FD_NAME3(fd_, FD_ISA, ) = {
    .name = FD_STRING(FD_ISA),
    .mask_tile = FD_FN(mask_tile),
    .word_tile = FD_FN(word_tile),
    .apply = {FD_EACH_DTYPE(scale, apply), FD_EACH_DTYPE(add, apply), FD_EACH_DTYPE(bias, apply),
              FD_EACH_DTYPE(bias_relu, apply), FD_EACH_DTYPE(alpha, apply),
              FD_EACH_DTYPE(pick, apply), FD_EACH_DTYPE(relu_backward, apply),
              FD_EACH_DTYPE(scale_runs, apply), FD_EACH_DTYPE(copy, apply), FD_EACH_DTYPE(normal_scale, apply),
              FD_EACH_DTYPE(normal_add, apply)},
    .apply_and_draw = {FD_EACH_DTYPE(scale, apply_and_draw), FD_EACH_DTYPE(add, apply_and_draw),
                       FD_EACH_DTYPE(bias, apply_and_draw),
                       FD_EACH_DTYPE(bias_relu, apply_and_draw),
                       FD_EACH_DTYPE(alpha, apply_and_draw), FD_EACH_DTYPE(pick, apply_and_draw)},
    .accumulate = {FD_FN(accumulate_f16), FD_FN(accumulate_bf16), FD_FN(accumulate_f32),
                   FD_FN(accumulate_f64)},
    .fence = stream_fence,
    .optimizers = &FD_FN(optimizer_loops),
    .softmax = &FD_FN(softmax_loops),
    .products = &FD_NAME3(fd_, FD_ISA, _products),
    .activations = &FD_FN(activation_loops),
};
