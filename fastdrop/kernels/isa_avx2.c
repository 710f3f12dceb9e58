/* AVX2: four 64-bit lanes; a tile is two halves of eight blocks. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "philox.h"
#include "target.h"

FD_TARGET_BEGIN("avx2")

typedef __m256i vu64;
enum { VU64_LANES = 4, VF32_LANES = 8, VF64_LANES = 4 };

static inline vu64 vu64_lanes(uint32_t a)
{
    return _mm256_add_epi32(_mm256_set1_epi64x(a), _mm256_setr_epi64x(0, 2, 4, 6));
}
static inline vu64 vu64_set(uint32_t a) { return _mm256_set1_epi32((int)a); }
static inline vu64 vu64_mul(vu64 a, vu64 b) { return _mm256_mul_epu32(a, b); }
static inline vu64 vu64_high(vu64 a) { return _mm256_srli_epi64(a, 32); }
static inline vu64 vu64_pair(vu64 a, vu64 b)
{
    return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xAA);
}
static inline vu64 vu64_xor(vu64 a, vu64 b) { return _mm256_xor_si256(a, b); }
static inline vu64 vu64_and(vu64 a, vu64 b) { return _mm256_and_si256(a, b); }
static inline vu64 vu64_andnot(vu64 a, vu64 b) { return _mm256_andnot_si256(a, b); }
static inline vu64 vu64_or(vu64 a, vu64 b) { return _mm256_or_si256(a, b); }
static inline int vu64_none(vu64 a) { return _mm256_testz_si256(a, a); }
static inline void vu64_store(uint32_t *p, vu64 a) { _mm256_storeu_si256((__m256i *)p, a); }

typedef __m256 vf32;
typedef __m256d vf64;
static inline vf32 vf32_set(float a) { return _mm256_set1_ps(a); }
static inline vf64 vf64_set(double a) { return _mm256_set1_pd(a); }

static inline void vf32_apply(float *y, const float *x, vf32 scale, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi32(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), j);
    __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)word), bits), bits);
    __m256 product = _mm256_mul_ps(_mm256_loadu_ps(x), scale);
    _mm256_storeu_ps(y, _mm256_and_ps(product, _mm256_castsi256_ps(kept)));
}

static inline void vf64_apply(double *y, const double *x, vf64 scale, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi64(_mm256_setr_epi64x(1, 2, 4, 8), j);
    __m256i kept = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(word), bits), bits);
    __m256d product = _mm256_mul_pd(_mm256_loadu_pd(x), scale);
    _mm256_storeu_pd(y, _mm256_and_pd(product, _mm256_castsi256_pd(kept)));
}

#define FD_ISA avx2
#include "loops.h"

FD_TARGET_END
#endif
