/* AVX2, F16C and FMA: four 64-bit lanes; a tile is two halves of eight blocks. */
#if defined(__x86_64__)
#include <immintrin.h>
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

FD_TARGET_BEGIN("avx2,f16c,fma")

typedef __m256i vu64;
enum { STREAMS = 1, VU64_LANES = 4, VF32_LANES = 8, VF64_LANES = 4 };
enum { TILE_ROWS = 6, TILE_VECTORS = 2 };

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
static inline vf32 vf32_set(double a) { return _mm256_set1_ps((float)a); }
static inline vf32 vf32_add(vf32 a, vf32 b) { return _mm256_add_ps(a, b); }
static inline vf32 vf32_mul(vf32 a, vf32 b) { return _mm256_mul_ps(a, b); }
static inline vf32 vf32_fused(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf32 vf32_relu(vf32 a) { return _mm256_max_ps(_mm256_setzero_ps(), a); }
static inline vf32 vf32_keep(vf32 a, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi32(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), j);
    __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)word), bits), bits);
    return _mm256_and_ps(a, _mm256_castsi256_ps(kept));
}
static inline vf32 vf32_pick(vf32 a, vf32 b, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi32(_mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), j);
    __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)word), bits), bits);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(kept));
}
static inline vf32 vf32_keep_positive(vf32 a, vf32 z)
{
    return _mm256_and_ps(a, _mm256_cmp_ps(z, _mm256_setzero_ps(), _CMP_GT_OQ));
}
static inline vf32 vf32_sub(vf32 a, vf32 b) { return _mm256_sub_ps(a, b); }
static inline vf32 vf32_div(vf32 a, vf32 b) { return _mm256_div_ps(a, b); }
static inline vf32 vf32_min(vf32 a, vf32 b) { return _mm256_min_ps(a, b); }
static inline vf32 vf32_max(vf32 a, vf32 b) { return _mm256_max_ps(a, b); }
static inline vf32 vf32_sqrt(vf32 a) { return _mm256_sqrt_ps(a); }
static inline vf32 vf32_below(vf32 a, vf32 d, vf32 limit)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(d, limit, _CMP_LT_OQ), a);
}
static inline vf32 vf32_less(vf32 d, vf32 limit, vf32 a, vf32 b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(d, limit, _CMP_LT_OQ));
}
static inline vf32 vf32_copysign(vf32 a, vf32 z)
{
    const vf32 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, z));
}
static inline vf32 vf32_power(vf32 t)
{
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(ONE_F32)));
}
static inline __m256i edge256(__m256i a)
{
    return _mm256_xor_si256(_mm256_xor_si256(a, _mm256_srai_epi32(a, 31)),
                            _mm256_set1_epi32(0x7FFFFFFF));
}
static inline __m256i signed256(const uint32_t *w)
{
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)w),
                            _mm256_set1_epi32((int)0x80000000));
}
static inline vf32 vf32_signed(const uint32_t *w) { return _mm256_cvtepi32_ps(signed256(w)); }
static inline vf32 vf32_edge(const uint32_t *w) { return _mm256_cvtepi32_ps(edge256(signed256(w))); }
static inline void vf32_split(vf32 *a, vf32 *n)
{
    const __m256i bits = _mm256_castps_si256(*a);
    __m256i k = _mm256_srli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(ROOT_F32), bits), 23);
    *a = _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_slli_epi32(k, 23)));
    *n = _mm256_cvtepi32_ps(k);
}

typedef __m256d vf64;
static inline vf64 vf64_set(double a) { return _mm256_set1_pd(a); }
static inline vf64 vf64_add(vf64 a, vf64 b) { return _mm256_add_pd(a, b); }
static inline vf64 vf64_mul(vf64 a, vf64 b) { return _mm256_mul_pd(a, b); }
static inline vf64 vf64_fused(vf64 a, vf64 b, vf64 c) { return _mm256_fmadd_pd(a, b, c); }
static inline vf64 vf64_relu(vf64 a) { return _mm256_max_pd(_mm256_setzero_pd(), a); }
static inline vf64 vf64_keep(vf64 a, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi64(_mm256_setr_epi64x(1, 2, 4, 8), j);
    __m256i kept = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(word), bits), bits);
    return _mm256_and_pd(a, _mm256_castsi256_pd(kept));
}
static inline vf64 vf64_pick(vf64 a, vf64 b, uint32_t word, int j)
{
    const __m256i bits = _mm256_slli_epi64(_mm256_setr_epi64x(1, 2, 4, 8), j);
    __m256i kept = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(word), bits), bits);
    return _mm256_blendv_pd(b, a, _mm256_castsi256_pd(kept));
}
static inline vf64 vf64_keep_positive(vf64 a, vf64 z)
{
    return _mm256_and_pd(a, _mm256_cmp_pd(z, _mm256_setzero_pd(), _CMP_GT_OQ));
}
static inline vf64 vf64_sub(vf64 a, vf64 b) { return _mm256_sub_pd(a, b); }
static inline vf64 vf64_div(vf64 a, vf64 b) { return _mm256_div_pd(a, b); }
static inline vf64 vf64_min(vf64 a, vf64 b) { return _mm256_min_pd(a, b); }
static inline vf64 vf64_max(vf64 a, vf64 b) { return _mm256_max_pd(a, b); }
static inline vf64 vf64_sqrt(vf64 a) { return _mm256_sqrt_pd(a); }
static inline vf64 vf64_below(vf64 a, vf64 d, vf64 limit)
{
    return _mm256_andnot_pd(_mm256_cmp_pd(d, limit, _CMP_LT_OQ), a);
}
static inline vf64 vf64_less(vf64 d, vf64 limit, vf64 a, vf64 b)
{
    return _mm256_blendv_pd(b, a, _mm256_cmp_pd(d, limit, _CMP_LT_OQ));
}
static inline vf64 vf64_copysign(vf64 a, vf64 z)
{
    const vf64 sign = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(sign, a), _mm256_and_pd(sign, z));
}
static inline vf64 vf64_power(vf64 t)
{
    const __m256i n = _mm256_slli_epi64(_mm256_castpd_si256(t), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(n, _mm256_set1_epi64x(ONE_F64)));
}
static inline vf64 vf64_of_f32(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
static inline __m128i signed128(const uint32_t *w)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)w), _mm_set1_epi32((int)0x80000000));
}
static inline vf64 vf64_signed(const uint32_t *w) { return _mm256_cvtepi32_pd(signed128(w)); }
static inline vf64 vf64_edge(const uint32_t *w)
{
    const __m128i a = signed128(w), b = _mm_xor_si128(a, _mm_srai_epi32(a, 31));
    return _mm256_cvtepi32_pd(_mm_xor_si128(b, _mm_set1_epi32(0x7FFFFFFF)));
}
/* Integers in [0, 2^52), or-ed to the bits of 2^52, give 2^52 plus the integer. */
static inline void vf64_split(vf64 *a, vf64 *n)
{
    const __m256i bits = _mm256_castpd_si256(*a);
    const vf64 big = _mm256_set1_pd(0x1p52);
    __m256i k = _mm256_srli_epi64(_mm256_sub_epi64(_mm256_set1_epi64x(ROOT_F64), bits), 52);
    *a = _mm256_castsi256_pd(_mm256_add_epi64(bits, _mm256_slli_epi64(k, 52)));
    *n = _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(k), big), big);
}

static inline __m128i load128(const uint16_t *p) { return _mm_loadu_si128((const __m128i *)p); }

static inline vf32 f16_load(const uint16_t *p) { return _mm256_cvtph_ps(load128(p)); }
static inline __m128i f16_round(vf32 a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

static inline vf32 bf16_load(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16));
}
static inline __m128i bf16_round(vf32 a)
{
    const __m256i bits = _mm256_castps_si256(a), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i even = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    __m256i rounded = _mm256_blendv_epi8(_mm256_srli_epi32(even, 16), quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

static inline void f16_store(uint16_t *p, vf32 a) { _mm_storeu_si128((__m128i *)p, f16_round(a)); }
static inline void f16_stream(uint16_t *p, vf32 a) { _mm_stream_si128((__m128i *)p, f16_round(a)); }
static inline void bf16_store(uint16_t *p, vf32 a) { _mm_storeu_si128((__m128i *)p, bf16_round(a)); }
static inline void bf16_stream(uint16_t *p, vf32 a)
{
    _mm_stream_si128((__m128i *)p, bf16_round(a));
}

static inline vf32 f32_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void f32_store(float *p, vf32 a) { _mm256_storeu_ps(p, a); }
static inline void f32_stream(float *p, vf32 a) { _mm256_stream_ps(p, a); }
static inline vf64 f64_load(const double *p) { return _mm256_loadu_pd(p); }
static inline void f64_store(double *p, vf64 a) { _mm256_storeu_pd(p, a); }
static inline void f64_stream(double *p, vf64 a) { _mm256_stream_pd(p, a); }
static void stream_fence(void) { _mm_sfence(); }

#define FD_UNROLL_GROUP FD_UNROLL
#define FD_ISA avx2
#include "loops.h"

FD_TARGET_END
#endif
