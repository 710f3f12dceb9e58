/* Portable C: one 64-bit lane. What every other instruction set must equal. */
#include <string.h>

#include "half.h"
#include "kernels.h"
#include "philox.h"
#include "target.h"

typedef uint64_t vu64;
enum { STREAMS = 0, VU64_LANES = 1, VF32_LANES = 1, VF64_LANES = 1 };

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
/* The bit becomes a mask of ones or zeros: a branch would be mispredicted half of the time. */
static inline vf32 vf32_keep(vf32 a, uint32_t word, int j)
{
    return fd_float_of(fd_bits_of(a) & (0u - (word >> j & 1)));
}
static inline vf32 vf32_keep_positive(vf32 a, vf32 z) { return vf32_keep(a, z > 0.0f, 0); }

typedef double vf64;
static inline vf64 vf64_set(double a) { return a; }
static inline vf64 vf64_add(vf64 a, vf64 b) { return a + b; }
static inline vf64 vf64_mul(vf64 a, vf64 b) { return a * b; }
static inline vf64 vf64_relu(vf64 a) { return 0.0 > a ? 0.0 : a; }
static inline vf64 vf64_keep(vf64 a, uint32_t word, int j)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    bits &= 0ull - (word >> j & 1);
    memcpy(&a, &bits, sizeof bits);
    return a;
}
static inline vf64 vf64_keep_positive(vf64 a, vf64 z) { return vf64_keep(a, z > 0.0, 0); }

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

#define FD_UNROLL_GROUP FD_PRAGMA(GCC unroll 8)    /* of 32 scalars: enough, and small */
#define FD_ISA generic
#include "loops.h"
