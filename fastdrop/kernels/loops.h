/* The loop bodies, written once. An instruction set's file defines the few vector operations below
 * and includes this file, which then defines fd_<FD_ISA>.
 *
 *   vu64              a vector of VU64_LANES 64-bit lanes, 1 to 8
 *   vu64_lanes(a)     lanes a, a + 2, a + 4, ...      vu64_set(a)     a in both halves of each lane
 *   vu64_mul(a, b)    64-bit products of the low halves
 *   vu64_high(a)      each lane's high half moved to its low half
 *   vu64_pair(a, b)   low halves of a and b in turn: a0 b0 a1 b1 ... as 32-bit lanes
 *   vu64_xor, vu64_and, vu64_andnot(a, b) = ~a & b, vu64_or; vu64_none(a): is every bit 0?
 *   vu64_store(p, a)
 *   VF32_LANES, vf32_apply(y, x, scale, word, j): lanes j, j + 1, ... of a 32-element group whose
 *   mask is `word`; scale is vf32 from vf32_set. The same with f64.
 *
 * The Philox state lies in 64-bit lanes whose high halves are garbage: a 32 x 32 -> 64 product
 * reads only low halves, so a round is two products, two moves and two three-way xors, no blends.
 * Even blocks lie in one vector, odd ones in another; vu64_pair brings them in order at the end.
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

/* Two vectors (even and odd blocks) through Philox; counter1 is counter word 1. The first three
   rounds are folded: of their twelve products only one still depends on plane and block. */
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
    /* a tile's 16 blocks never carry into the high half: the first is a multiple of 16 */
    part[0] = FD_FN(block_rounds)(key, vu64_lanes((uint32_t)block));
    part[1] = FD_FN(block_rounds)(key, vu64_lanes((uint32_t)block + 1));
}

static void FD_FN(mask_tile)(const fd_key *key, uint32_t threshold, uint64_t tile, uint32_t *words)
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

/* y = mask ? x * scale : +0.0 for one float type. A last group of fewer than 32 elements goes
   through a buffer, so that no load or store reaches beyond the arrays. */
#define FD_DEFINE_APPLY(f, T, LANES)                                                              \
    static inline void FD_FN(group_##f)(uint32_t word, const T *x, T *y, v##f scale)              \
    {                                                                                             \
        FD_UNROLL                                                                                 \
        for (int j = 0; j < 32; j += LANES)                                                       \
            v##f##_apply(y + j, x + j, scale, word, j);                                           \
    }                                                                                             \
    static void FD_FN(apply_##f)(const uint32_t *words, size_t n, const void *xv, void *yv,       \
                                 double scale_value)                                              \
    {                                                                                             \
        const T *x = xv;                                                                          \
        T *y = yv;                                                                                \
        const v##f scale = v##f##_set((T)scale_value);                                            \
        for (; n >= 32; n -= 32, x += 32, y += 32)                                                \
            FD_FN(group_##f)(*words++, x, y, scale);                                              \
        if (n) {                                                                                  \
            T buffer[32] = {0};                                                                   \
            memcpy(buffer, x, n * sizeof(T));                                                     \
            FD_FN(group_##f)(*words, buffer, buffer, scale);                                      \
            memcpy(y, buffer, n * sizeof(T));                                                     \
        }                                                                                         \
    }

FD_DEFINE_APPLY(f32, float, VF32_LANES)
FD_DEFINE_APPLY(f64, double, VF64_LANES)

#define FD_STRING2(name) #name
#define FD_STRING(name) FD_STRING2(name)

const fd_kernels FD_NAME3(fd_, FD_ISA, ) = {
    .name = FD_STRING(FD_ISA),
    .mask_tile = FD_FN(mask_tile),
    .word_tile = FD_FN(word_tile),
    .apply = {FD_FN(apply_f32), FD_FN(apply_f64)},
};
