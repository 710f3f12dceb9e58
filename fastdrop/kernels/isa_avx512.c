/* AVX-512: eight 64-bit lanes, so a tile's 16 blocks are two vectors; masks are mask registers. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "philox.h"
#include "target.h"

FD_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")

typedef __m512i vu64;
enum { VU64_LANES = 8, VF32_LANES = 16, VF64_LANES = 8 };

static inline vu64 vu64_lanes(uint32_t a)
{
    return _mm512_add_epi32(_mm512_set1_epi64(a), _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14));
}
static inline vu64 vu64_set(uint32_t a) { return _mm512_set1_epi32((int)a); }
static inline vu64 vu64_mul(vu64 a, vu64 b) { return _mm512_mul_epu32(a, b); }
static inline vu64 vu64_high(vu64 a) { return _mm512_srli_epi64(a, 32); }
static inline vu64 vu64_pair(vu64 a, vu64 b)
{
    return _mm512_mask_blend_epi32(0xAAAA, a, _mm512_slli_epi64(b, 32));
}
static inline vu64 vu64_xor(vu64 a, vu64 b) { return _mm512_xor_si512(a, b); }
static inline vu64 vu64_and(vu64 a, vu64 b) { return _mm512_and_si512(a, b); }
static inline vu64 vu64_andnot(vu64 a, vu64 b) { return _mm512_andnot_si512(a, b); }
static inline vu64 vu64_or(vu64 a, vu64 b) { return _mm512_or_si512(a, b); }
static inline int vu64_none(vu64 a) { return _mm512_test_epi32_mask(a, a) == 0; }
static inline void vu64_store(uint32_t *p, vu64 a) { _mm512_storeu_si512(p, a); }

typedef __m512 vf32;
typedef __m512d vf64;
static inline vf32 vf32_set(float a) { return _mm512_set1_ps(a); }
static inline vf64 vf64_set(double a) { return _mm512_set1_pd(a); }

static inline void vf32_apply(float *y, const float *x, vf32 scale, uint32_t word, int j)
{
    _mm512_storeu_ps(y, _mm512_maskz_mul_ps((__mmask16)(word >> j), _mm512_loadu_ps(x), scale));
}

static inline void vf64_apply(double *y, const double *x, vf64 scale, uint32_t word, int j)
{
    _mm512_storeu_pd(y, _mm512_maskz_mul_pd((__mmask8)(word >> j), _mm512_loadu_pd(x), scale));
}

#define FD_ISA avx512
#include "loops.h"

FD_TARGET_END
#endif
