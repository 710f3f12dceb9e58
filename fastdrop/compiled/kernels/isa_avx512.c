/* AVX-512: eight 64-bit lanes, so a tile's 16 blocks are two vectors; masks are mask registers. */
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

FD_TARGET_BEGIN("popcnt,avx512f,avx512bw,avx512dq,avx512vl")

typedef __m512i vu64;
enum { STREAMS = 1, VU64_LANES = 8, VF32_LANES = 16, VF64_LANES = 8 };
enum { TILE_ROWS = 8, TILE_VECTORS = 2 };

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

/* Keeps compilers from making a load part of a masked multiplication. That makes it a masked load,
   for which Zen 5 takes twice as long from memory. */
#define FD_IN_REGISTER(a) __asm__("" : "+v"(a))

typedef __m512 vf32;
static inline vf32 vf32_set(double a) { return _mm512_set1_ps((float)a); }
static inline vf32 vf32_add(vf32 a, vf32 b) { return _mm512_add_ps(a, b); }
static inline vf32 vf32_mul(vf32 a, vf32 b) { return _mm512_mul_ps(a, b); }
static inline vf32 vf32_fused(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf32 vf32_relu(vf32 a) { return _mm512_max_ps(_mm512_setzero_ps(), a); }
static inline vf32 vf32_keep(vf32 a, uint32_t word, int j)
{
    return _mm512_maskz_mov_ps((__mmask16)(word >> j), a);
}
static inline vf32 vf32_pick(vf32 a, vf32 b, uint32_t word, int j)
{
    return _mm512_mask_mov_ps(b, (__mmask16)(word >> j), a);
}
static inline vf32 vf32_keep_positive(vf32 a, vf32 z)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_GT_OQ), a);
}
static inline vf32 vf32_sub(vf32 a, vf32 b) { return _mm512_sub_ps(a, b); }
static inline vf32 vf32_div(vf32 a, vf32 b) { return _mm512_div_ps(a, b); }
static inline vf32 vf32_min(vf32 a, vf32 b) { return _mm512_min_ps(a, b); }
static inline vf32 vf32_max(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }
static inline vf32 vf32_sqrt(vf32 a) { return _mm512_sqrt_ps(a); }
static inline vf32 vf32_below(vf32 a, vf32 d, vf32 limit)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(d, limit, _CMP_NLT_UQ), a);
}
static inline vf32 vf32_less(vf32 d, vf32 limit, vf32 a, vf32 b)
{
    return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(d, limit, _CMP_LT_OQ), a);
}
static inline vf32 vf32_copysign(vf32 a, vf32 z)
{
    const vf32 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, z));
}
static inline vf32 vf32_power(vf32 t)
{
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(ONE_F32)));
}
static inline __m512i signed512(const uint32_t *w)
{
    return _mm512_xor_si512(_mm512_loadu_si512(w), _mm512_set1_epi32((int)0x80000000));
}
static inline vf32 vf32_signed(const uint32_t *w) { return _mm512_cvtepi32_ps(signed512(w)); }
static inline vf32 vf32_edge(const uint32_t *w)
{
    const __m512i a = signed512(w), b = _mm512_xor_si512(a, _mm512_srai_epi32(a, 31));
    return _mm512_cvtepi32_ps(_mm512_xor_si512(b, _mm512_set1_epi32(0x7FFFFFFF)));
}
static inline void vf32_split(vf32 *a, vf32 *n)
{
    const __m512i bits = _mm512_castps_si512(*a);
    __m512i k = _mm512_srli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(ROOT_F32), bits), 23);
    *a = _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_slli_epi32(k, 23)));
    *n = _mm512_cvtepi32_ps(k);
}

typedef __m512d vf64;
static inline vf64 vf64_set(double a) { return _mm512_set1_pd(a); }
static inline vf64 vf64_add(vf64 a, vf64 b) { return _mm512_add_pd(a, b); }
static inline vf64 vf64_mul(vf64 a, vf64 b) { return _mm512_mul_pd(a, b); }
static inline vf64 vf64_fused(vf64 a, vf64 b, vf64 c) { return _mm512_fmadd_pd(a, b, c); }
static inline vf64 vf64_relu(vf64 a) { return _mm512_max_pd(_mm512_setzero_pd(), a); }
static inline vf64 vf64_keep(vf64 a, uint32_t word, int j)
{
    return _mm512_maskz_mov_pd((__mmask8)(word >> j), a);
}
static inline vf64 vf64_pick(vf64 a, vf64 b, uint32_t word, int j)
{
    return _mm512_mask_mov_pd(b, (__mmask8)(word >> j), a);
}
static inline vf64 vf64_keep_positive(vf64 a, vf64 z)
{
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(z, _mm512_setzero_pd(), _CMP_GT_OQ), a);
}
static inline vf64 vf64_sub(vf64 a, vf64 b) { return _mm512_sub_pd(a, b); }
static inline vf64 vf64_div(vf64 a, vf64 b) { return _mm512_div_pd(a, b); }
static inline vf64 vf64_min(vf64 a, vf64 b) { return _mm512_min_pd(a, b); }
static inline vf64 vf64_max(vf64 a, vf64 b) { return _mm512_max_pd(a, b); }
static inline vf64 vf64_sqrt(vf64 a) { return _mm512_sqrt_pd(a); }
static inline vf64 vf64_below(vf64 a, vf64 d, vf64 limit)
{
    return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(d, limit, _CMP_NLT_UQ), a);
}
static inline vf64 vf64_less(vf64 d, vf64 limit, vf64 a, vf64 b)
{
    return _mm512_mask_mov_pd(b, _mm512_cmp_pd_mask(d, limit, _CMP_LT_OQ), a);
}
static inline vf64 vf64_copysign(vf64 a, vf64 z)
{
    const vf64 sign = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(sign, a), _mm512_and_pd(sign, z));
}
static inline vf64 vf64_power(vf64 t)
{
    const __m512i n = _mm512_slli_epi64(_mm512_castpd_si512(t), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(n, _mm512_set1_epi64(ONE_F64)));
}
static inline vf64 vf64_of_f32(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
static inline __m256i signed256(const uint32_t *w)
{
    return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)w),
                            _mm256_set1_epi32((int)0x80000000));
}
static inline vf64 vf64_signed(const uint32_t *w) { return _mm512_cvtepi32_pd(signed256(w)); }
static inline vf64 vf64_edge(const uint32_t *w)
{
    const __m256i a = signed256(w), b = _mm256_xor_si256(a, _mm256_srai_epi32(a, 31));
    return _mm512_cvtepi32_pd(_mm256_xor_si256(b, _mm256_set1_epi32(0x7FFFFFFF)));
}
static inline void vf64_split(vf64 *a, vf64 *n)
{
    const __m512i bits = _mm512_castpd_si512(*a);
    __m512i k = _mm512_srli_epi64(_mm512_sub_epi64(_mm512_set1_epi64(ROOT_F64), bits), 52);
    *a = _mm512_castsi512_pd(_mm512_add_epi64(bits, _mm512_slli_epi64(k, 52)));
    *n = _mm512_cvtepi64_pd(k);
}

static inline __m256i load256(const uint16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

static inline vf32 f16_load(const uint16_t *p) { return _mm512_cvtph_ps(load256(p)); }
static inline __m256i f16_round(vf32 a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }

static inline vf32 bf16_load(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16));
}
/* AVX512_BF16 has an instruction for this, but it flushes subnormals to zero. */
static inline __m256i bf16_round(vf32 a)
{
    const __m512i bits = _mm512_castps_si512(a), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i even = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(even, 16), nan, quiet));
}

static inline void f16_store(uint16_t *p, vf32 a) { _mm256_storeu_si256((__m256i *)p, f16_round(a)); }
static inline void f16_stream(uint16_t *p, vf32 a)
{
    _mm256_stream_si256((__m256i *)p, f16_round(a));
}
static inline void bf16_store(uint16_t *p, vf32 a)
{
    _mm256_storeu_si256((__m256i *)p, bf16_round(a));
}
static inline void bf16_stream(uint16_t *p, vf32 a)
{
    _mm256_stream_si256((__m256i *)p, bf16_round(a));
}

static inline vf32 f32_load(const float *p)
{
    vf32 a = _mm512_loadu_ps(p);
    FD_IN_REGISTER(a);
    return a;
}
static inline void f32_store(float *p, vf32 a) { _mm512_storeu_ps(p, a); }
static inline void f32_stream(float *p, vf32 a) { _mm512_stream_ps(p, a); }
static inline vf64 f64_load(const double *p)
{
    vf64 a = _mm512_loadu_pd(p);
    FD_IN_REGISTER(a);
    return a;
}
#define FD_HAS_EXPAND 1
static inline vf32 f32_expand(const float *p, uint64_t bits)
{
    return _mm512_maskz_expandloadu_ps((__mmask16)bits, p);
}
static inline vf64 f64_expand(const double *p, uint64_t bits)
{
    return _mm512_maskz_expandloadu_pd((__mmask8)bits, p);
}
/* Compresses in a register, because compressing into memory is microcode on Zen 4. */
static inline void f32_compress(float *p, vf32 v, uint64_t bits)
{
    const __mmask16 first = (__mmask16)((1u << __builtin_popcountll(bits)) - 1);
    _mm512_mask_storeu_ps(p, first, _mm512_maskz_compress_ps((__mmask16)bits, v));
}
static inline void f64_compress(double *p, vf64 v, uint64_t bits)
{
    const __mmask8 first = (__mmask8)((1u << __builtin_popcountll(bits)) - 1);
    _mm512_mask_storeu_pd(p, first, _mm512_maskz_compress_pd((__mmask8)bits, v));
}
static inline void f64_store(double *p, vf64 a) { _mm512_storeu_pd(p, a); }
static inline void f64_stream(double *p, vf64 a) { _mm512_stream_pd(p, a); }
static void stream_fence(void) { _mm_sfence(); }

#define FD_UNROLL_GROUP FD_UNROLL
#define FD_ISA avx512
#include "loops.h"

FD_TARGET_END
#endif
