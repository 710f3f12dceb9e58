/* NEON (AArch64): two 64-bit lanes; a tile is four quarters of four blocks. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "activations.h"
#include "kernels.h"
#include "normal.h"
#include "optimizers.h"
#include "philox.h"
#include "products.h"
#include "softmax.h"
#include "target.h"

typedef uint64x2_t vu64;
enum { STREAMS = 0, VU64_LANES = 2, VF32_LANES = 4, VF64_LANES = 2 };
enum { TILE_ROWS = 8, TILE_VECTORS = 2 };

static inline vu64 vu64_lanes(uint32_t a)
{
    return vcombine_u64(vcreate_u64(a), vcreate_u64((uint32_t)(a + 2)));
}
static inline vu64 vu64_set(uint32_t a) { return vreinterpretq_u64_u32(vdupq_n_u32(a)); }
static inline vu64 vu64_mul(vu64 a, vu64 b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
static inline vu64 vu64_high(vu64 a) { return vshrq_n_u64(a, 32); }
static inline vu64 vu64_pair(vu64 a, vu64 b) { return vsliq_n_u64(a, b, 32); }
static inline vu64 vu64_xor(vu64 a, vu64 b) { return veorq_u64(a, b); }
static inline vu64 vu64_and(vu64 a, vu64 b) { return vandq_u64(a, b); }
static inline vu64 vu64_andnot(vu64 a, vu64 b) { return vbicq_u64(b, a); }
static inline vu64 vu64_or(vu64 a, vu64 b) { return vorrq_u64(a, b); }
static inline int vu64_none(vu64 a) { return vmaxvq_u32(vreinterpretq_u32_u64(a)) == 0; }
static inline void vu64_store(uint32_t *p, vu64 a) { vst1q_u32(p, vreinterpretq_u32_u64(a)); }

typedef float32x4_t vf32;
static inline vf32 vf32_set(double a) { return vdupq_n_f32((float)a); }
static inline vf32 vf32_add(vf32 a, vf32 b) { return vaddq_f32(a, b); }
static inline vf32 vf32_mul(vf32 a, vf32 b) { return vmulq_f32(a, b); }
static inline vf32 vf32_fused(vf32 a, vf32 b, vf32 c) { return vfmaq_f32(c, a, b); }
static inline vf32 vf32_zero_unless(vf32 a, uint32x4_t kept)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), kept));
}
static inline vf32 vf32_relu(vf32 a)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltzq_f32(a)));
}
static inline vf32 vf32_keep(vf32 a, uint32_t word, int j)
{
    const uint32_t first[4] = {1, 2, 4, 8};
    return vf32_zero_unless(a, vtstq_u32(vdupq_n_u32(word >> j), vld1q_u32(first)));
}
static inline vf32 vf32_pick(vf32 a, vf32 b, uint32_t word, int j)
{
    const uint32_t first[4] = {1, 2, 4, 8};
    return vbslq_f32(vtstq_u32(vdupq_n_u32(word >> j), vld1q_u32(first)), a, b);
}
static inline vf32 vf32_keep_positive(vf32 a, vf32 z) { return vf32_zero_unless(a, vcgtzq_f32(z)); }
static inline vf32 vf32_sub(vf32 a, vf32 b) { return vsubq_f32(a, b); }
static inline vf32 vf32_div(vf32 a, vf32 b) { return vdivq_f32(a, b); }
static inline vf32 vf32_min(vf32 a, vf32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf32 vf32_max(vf32 a, vf32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf32 vf32_sqrt(vf32 a) { return vsqrtq_f32(a); }
static inline vf32 vf32_below(vf32 a, vf32 d, vf32 limit)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), vcltq_f32(d, limit)));
}
static inline vf32 vf32_less(vf32 d, vf32 limit, vf32 a, vf32 b)
{
    return vbslq_f32(vcltq_f32(d, limit), a, b);
}
static inline vf32 vf32_copysign(vf32 a, vf32 z)
{
    return vbslq_f32(vdupq_n_u32(0x80000000), z, a);
}
static inline vf32 vf32_power(vf32 t)
{
    const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
    return vreinterpretq_f32_u32(vaddq_u32(n, vdupq_n_u32(ONE_F32)));
}
static inline int32x4_t signed_words(uint32x4_t w)
{
    return vreinterpretq_s32_u32(veorq_u32(w, vdupq_n_u32(0x80000000)));
}
static inline int32x4_t edge_words(uint32x4_t w)
{
    const int32x4_t a = signed_words(w);
    return veorq_s32(veorq_s32(a, vshrq_n_s32(a, 31)), vdupq_n_s32(0x7FFFFFFF));
}
static inline vf32 vf32_signed(const uint32_t *w) { return vcvtq_f32_s32(signed_words(vld1q_u32(w))); }
static inline vf32 vf32_edge(const uint32_t *w) { return vcvtq_f32_s32(edge_words(vld1q_u32(w))); }
static inline void vf32_split(vf32 *a, vf32 *n)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(*a);
    const uint32x4_t k = vshrq_n_u32(vsubq_u32(vdupq_n_u32(ROOT_F32), bits), 23);
    *a = vreinterpretq_f32_u32(vaddq_u32(bits, vshlq_n_u32(k, 23)));
    *n = vcvtq_f32_u32(k);
}

typedef float64x2_t vf64;
static inline vf64 vf64_set(double a) { return vdupq_n_f64(a); }
static inline vf64 vf64_add(vf64 a, vf64 b) { return vaddq_f64(a, b); }
static inline vf64 vf64_mul(vf64 a, vf64 b) { return vmulq_f64(a, b); }
static inline vf64 vf64_fused(vf64 a, vf64 b, vf64 c) { return vfmaq_f64(c, a, b); }
static inline vf64 vf64_zero_unless(vf64 a, uint64x2_t kept)
{
    return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(a), kept));
}
static inline vf64 vf64_relu(vf64 a)
{
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a), vcltzq_f64(a)));
}
static inline vf64 vf64_keep(vf64 a, uint32_t word, int j)
{
    const uint64_t first[2] = {1, 2};
    return vf64_zero_unless(a, vtstq_u64(vdupq_n_u64(word >> j), vld1q_u64(first)));
}
static inline vf64 vf64_pick(vf64 a, vf64 b, uint32_t word, int j)
{
    const uint64_t first[2] = {1, 2};
    return vbslq_f64(vtstq_u64(vdupq_n_u64(word >> j), vld1q_u64(first)), a, b);
}
static inline vf64 vf64_keep_positive(vf64 a, vf64 z) { return vf64_zero_unless(a, vcgtzq_f64(z)); }
static inline vf64 vf64_sub(vf64 a, vf64 b) { return vsubq_f64(a, b); }
static inline vf64 vf64_div(vf64 a, vf64 b) { return vdivq_f64(a, b); }
static inline vf64 vf64_min(vf64 a, vf64 b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
static inline vf64 vf64_max(vf64 a, vf64 b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
static inline vf64 vf64_sqrt(vf64 a) { return vsqrtq_f64(a); }
static inline vf64 vf64_below(vf64 a, vf64 d, vf64 limit)
{
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(a), vcltq_f64(d, limit)));
}
static inline vf64 vf64_less(vf64 d, vf64 limit, vf64 a, vf64 b)
{
    return vbslq_f64(vcltq_f64(d, limit), a, b);
}
static inline vf64 vf64_copysign(vf64 a, vf64 z)
{
    return vbslq_f64(vdupq_n_u64(0x8000000000000000), z, a);
}
static inline vf64 vf64_power(vf64 t)
{
    const uint64x2_t n = vshlq_n_u64(vreinterpretq_u64_f64(t), 52);
    return vreinterpretq_f64_u64(vaddq_u64(n, vdupq_n_u64(ONE_F64)));
}
static inline vf64 vf64_of_f32(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
static inline vf64 vf64_of_int(int32x4_t a) { return vcvtq_f64_s64(vmovl_s32(vget_low_s32(a))); }
static inline uint32x4_t two_words(const uint32_t *w)
{
    return vcombine_u32(vld1_u32(w), vdup_n_u32(0));
}
static inline vf64 vf64_signed(const uint32_t *w) { return vf64_of_int(signed_words(two_words(w))); }
static inline vf64 vf64_edge(const uint32_t *w) { return vf64_of_int(edge_words(two_words(w))); }
static inline void vf64_split(vf64 *a, vf64 *n)
{
    const uint64x2_t bits = vreinterpretq_u64_f64(*a);
    const uint64x2_t k = vshrq_n_u64(vsubq_u64(vdupq_n_u64(ROOT_F64), bits), 52);
    *a = vreinterpretq_f64_u64(vaddq_u64(bits, vshlq_n_u64(k, 52)));
    *n = vcvtq_f64_u64(k);
}

static inline vf32 f16_load(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline void f16_store(uint16_t *p, vf32 a)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
static inline vf32 bf16_load(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline void bf16_store(uint16_t *p, vf32 a)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(a), high = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
    uint32x4_t even = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
    uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(a, a), vshrq_n_u32(even, 16), quiet)));
}

static inline vf32 f32_load(const float *p) { return vld1q_f32(p); }
static inline void f32_store(float *p, vf32 a) { vst1q_f32(p, a); }
static inline vf64 f64_load(const double *p) { return vld1q_f64(p); }
static inline void f64_store(double *p, vf64 a) { vst1q_f64(p, a); }

/* The streaming store (STNP) has no intrinsic, and ordinary stores that fill lines do not read
   them. */
#define f16_stream f16_store
#define bf16_stream bf16_store
#define f32_stream f32_store
#define f64_stream f64_store
static void stream_fence(void) {}

#define FD_UNROLL_GROUP FD_UNROLL
#define FD_ISA neon
#include "loops.h"

#endif
