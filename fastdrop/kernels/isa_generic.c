/* Portable C: one 64-bit lane. What every other instruction set must equal. */
#include <string.h>

#include "kernels.h"
#include "philox.h"
#include "target.h"

typedef uint64_t vu64;
enum { VU64_LANES = 1, VF32_LANES = 1, VF64_LANES = 1 };

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
typedef double vf64;
static inline vf32 vf32_set(float a) { return a; }
static inline vf64 vf64_set(double a) { return a; }

/* The bit becomes a mask of ones or zeros: a branch would be mispredicted half of the time. */
static inline void vf32_apply(float *y, const float *x, vf32 scale, uint32_t word, int j)
{
    float product = *x * scale;
    uint32_t bits;
    memcpy(&bits, &product, sizeof bits);
    bits &= 0u - (word >> j & 1);
    memcpy(y, &bits, sizeof bits);
}

static inline void vf64_apply(double *y, const double *x, vf64 scale, uint32_t word, int j)
{
    double product = *x * scale;
    uint64_t bits;
    memcpy(&bits, &product, sizeof bits);
    bits &= 0ull - (word >> j & 1);
    memcpy(y, &bits, sizeof bits);
}

#define FD_ISA generic
#include "loops.h"
