/* NEON (AArch64): two 64-bit lanes; a tile is four quarters of four blocks. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "kernels.h"
#include "philox.h"
#include "target.h"

typedef uint64x2_t vu64;
enum { VU64_LANES = 2, VF32_LANES = 4, VF64_LANES = 2 };

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
typedef float64x2_t vf64;
static inline vf32 vf32_set(float a) { return vdupq_n_f32(a); }
static inline vf64 vf64_set(double a) { return vdupq_n_f64(a); }

static inline void vf32_apply(float *y, const float *x, vf32 scale, uint32_t word, int j)
{
    const uint32_t first[4] = {1, 2, 4, 8};
    uint32x4_t kept = vtstq_u32(vdupq_n_u32(word >> j), vld1q_u32(first));
    float32x4_t product = vmulq_f32(vld1q_f32(x), scale);
    vst1q_f32(y, vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(product), kept)));
}

static inline void vf64_apply(double *y, const double *x, vf64 scale, uint32_t word, int j)
{
    const uint64_t first[2] = {1, 2};
    uint64x2_t kept = vtstq_u64(vdupq_n_u64(word >> j), vld1q_u64(first));
    float64x2_t product = vmulq_f64(vld1q_f64(x), scale);
    vst1q_f64(y, vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(product), kept)));
}

#define FD_ISA neon
#include "loops.h"

#endif
