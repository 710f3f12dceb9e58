/* Portable C: one 64-bit lane. Every other instruction set must give the same results. */
#include <math.h>
#include <string.h>

#include "half.h"
#include "activations.h"
#include "kernels.h"
#include "normal.h"
#include "optimizers.h"
#include "philox.h"
#include "products.h"
#include "softmax.h"
#include "target.h"

typedef uint64_t vu64;
enum { STREAMS = 0, VU64_LANES = 1, VF32_LANES = 1, VF64_LANES = 1 };
enum { TILE_ROWS = 2, TILE_VECTORS = 2 };

static inline vu64 vu64_lanes(uint32_t a) { return a; }
static inline vu64 vu64_set(uint32_t a) { return a | (uint64_t)a << 32; }
static inline vu64 vu64_mul(vu64 a, vu64 b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
static inline vu64 vu64_high(vu64 a) { return a >> 32; }
static inline vu64 vu64_pair(vu64 a, vu64 b) { return (a & 0xFFFFFFFFu) | b << 32; }
static inline vu64 vu64_xor(vu64 a, vu64 b) { return a ^ b; }
static inline vu64 vu64_and(vu64 a, vu64 b) { return a & b; }
static inline vu64 vu64_andnot(vu64 a, vu64 b) { return ~a & b; }
static inline vu64 vu64_or(vu64 a, vu64 b) { return a | b; }
static inline int vu64_none(vu64 a) { return a == 0; }
static inline void vu64_store(uint32_t *p, vu64 a) { memcpy(p, &a, sizeof a); }

typedef float vf32;
static inline vf32 vf32_set(double a) { return (float)a; }
static inline vf32 vf32_add(vf32 a, vf32 b) { return a + b; }
static inline vf32 vf32_mul(vf32 a, vf32 b) { return a * b; }
static inline vf32 vf32_relu(vf32 a) { return 0.0f > a ? 0.0f : a; }
/* The bit becomes a mask of ones or zeros, as a branch would be mispredicted half of the time. */
static inline vf32 vf32_pick(vf32 a, vf32 b, uint32_t word, int j)
{
    const uint32_t kept = 0u - (word >> j & 1);
    return fd_float_of((fd_bits_of(a) & kept) | (fd_bits_of(b) & ~kept));
}
static inline vf32 vf32_keep(vf32 a, uint32_t word, int j) { return vf32_pick(a, 0.0f, word, j); }
static inline vf32 vf32_keep_positive(vf32 a, vf32 z) { return vf32_keep(a, z > 0.0f, 0); }
static inline vf32 vf32_sub(vf32 a, vf32 b) { return a - b; }
static inline vf32 vf32_div(vf32 a, vf32 b) { return a / b; }
static inline vf32 vf32_min(vf32 a, vf32 b) { return a < b ? a : b; }
static inline vf32 vf32_max(vf32 a, vf32 b) { return a > b ? a : b; }
static inline vf32 vf32_sqrt(vf32 a) { return sqrtf(a); }
static inline vf32 vf32_below(vf32 a, vf32 d, vf32 limit) { return d < limit ? 0.0f : a; }
static inline vf32 vf32_less(vf32 d, vf32 limit, vf32 a, vf32 b) { return d < limit ? a : b; }
static inline vf32 vf32_copysign(vf32 a, vf32 z) { return copysignf(a, z); }
static inline vf32 vf32_power(vf32 t) { return fd_float_of((fd_bits_of(t) << 23) + ONE_F32); }
static inline int32_t signed_word(uint32_t w) { return (int32_t)(w ^ 0x80000000u); }
static inline int32_t edge_word(uint32_t w) { return (int32_t)(w >> 31 ? ~w : w); }
static inline vf32 vf32_signed(const uint32_t *w) { return (float)signed_word(*w); }
static inline vf32 vf32_edge(const uint32_t *w) { return (float)edge_word(*w); }
static inline void vf32_split(vf32 *a, vf32 *n)
{
    const uint32_t bits = fd_bits_of(*a), k = (ROOT_F32 - bits) >> 23;
    *a = fd_float_of(bits + (k << 23));
    *n = (float)(int32_t)k;
}

typedef double vf64;
static inline vf64 vf64_set(double a) { return a; }
static inline vf64 vf64_add(vf64 a, vf64 b) { return a + b; }
static inline vf64 vf64_mul(vf64 a, vf64 b) { return a * b; }
static inline vf64 vf64_relu(vf64 a) { return 0.0 > a ? 0.0 : a; }
static inline uint64_t bits_of(vf64 a)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}
static inline vf64 double_of(uint64_t bits)
{
    vf64 a;
    memcpy(&a, &bits, sizeof a);
    return a;
}
static inline vf64 vf64_pick(vf64 a, vf64 b, uint32_t word, int j)
{
    const uint64_t kept = 0ull - (word >> j & 1);
    return double_of((bits_of(a) & kept) | (bits_of(b) & ~kept));
}
static inline vf64 vf64_keep(vf64 a, uint32_t word, int j) { return vf64_pick(a, 0.0, word, j); }
static inline vf64 vf64_keep_positive(vf64 a, vf64 z) { return vf64_keep(a, z > 0.0, 0); }
static inline vf64 vf64_sub(vf64 a, vf64 b) { return a - b; }
static inline vf64 vf64_div(vf64 a, vf64 b) { return a / b; }
static inline vf64 vf64_min(vf64 a, vf64 b) { return a < b ? a : b; }
static inline vf64 vf64_max(vf64 a, vf64 b) { return a > b ? a : b; }
static inline vf64 vf64_sqrt(vf64 a) { return sqrt(a); }
static inline vf64 vf64_below(vf64 a, vf64 d, vf64 limit) { return d < limit ? 0.0 : a; }
static inline vf64 vf64_less(vf64 d, vf64 limit, vf64 a, vf64 b) { return d < limit ? a : b; }
static inline vf64 vf64_copysign(vf64 a, vf64 z) { return copysign(a, z); }
static inline vf64 vf64_power(vf64 t) { return double_of((bits_of(t) << 52) + ONE_F64); }
static inline vf64 vf64_of_f32(const float *p) { return *p; }
static inline vf64 vf64_signed(const uint32_t *w) { return signed_word(*w); }
static inline vf64 vf64_edge(const uint32_t *w) { return edge_word(*w); }
static inline void vf64_split(vf64 *a, vf64 *n)
{
    const uint64_t bits = bits_of(*a), k = (ROOT_F64 - bits) >> 52;
    *a = double_of(bits + (k << 52));
    *n = (double)(int32_t)k;
}

static inline vf32 f16_load(const uint16_t *p) { return fd_from_f16(*p); }
static inline vf32 bf16_load(const uint16_t *p) { return fd_from_bf16(*p); }
static inline vf32 f32_load(const float *p) { return *p; }
static inline vf64 f64_load(const double *p) { return *p; }
static inline void f16_store(uint16_t *p, vf32 a) { *p = fd_to_f16(a); }
static inline void bf16_store(uint16_t *p, vf32 a) { *p = fd_to_bf16(a); }
static inline void f32_store(float *p, vf32 a) { *p = a; }
static inline void f64_store(double *p, vf64 a) { *p = a; }

/* C has no streaming store */
#define f16_stream f16_store
#define bf16_stream bf16_store
#define f32_stream f32_store
#define f64_stream f64_store
static void stream_fence(void) {}

/* Products where there is no fused multiply-add, for which fma() takes very long */
static inline vf32 vf32_fused(vf32 a, vf32 b, vf32 c) { return a * b + c; }
static inline vf64 vf64_fused(vf64 a, vf64 b, vf64 c) { return a * b + c; }

#define FD_UNROLL_GROUP FD_PRAGMA(GCC unroll 8)    /* of 32 scalars: enough, and small */
#define FD_ISA generic
#include "loops.h"

/* Products where there is one */
#undef FD_ISA
#define FD_ISA fused
#define vf32_fused fmaf
#define vf64_fused fma
#if defined(__x86_64__)
FD_TARGET_BEGIN("fma")
#include "product_loops.h"
FD_TARGET_END
#else
#include "product_loops.h"
#endif
