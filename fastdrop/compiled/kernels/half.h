/* float16 and bfloat16 from and to float32, one element: rounded to nearest even, with subnormals
   kept and NaNs quiet, as in the processors' own conversions. */
#ifndef FASTDROP_HALF_H
#define FASTDROP_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t fd_bits_of(float a)
{
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

static inline float fd_float_of(uint32_t bits)
{
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline float fd_from_bf16(uint16_t h)
{
    return fd_float_of((uint32_t)h << 16);
}

static inline uint16_t fd_to_bf16(float a)
{
    const uint32_t bits = fd_bits_of(a);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);    /* rounding could turn a NaN into infinity */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float fd_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7FFF;
    if (magnitude < 0x0400)    /* subnormal: an integer multiple of 2^-24 */
        return fd_float_of(sign | fd_bits_of((float)magnitude * 0x1p-24f));
    if (magnitude < 0x7C00)
        return fd_float_of(sign | ((magnitude << 13) + 0x38000000u));
    const uint32_t quiet = magnitude > 0x7C00 ? 0x00400000u : 0;
    return fd_float_of(sign | 0x7F800000u | quiet | (magnitude & 0x3FF) << 13);
}

static inline uint16_t fd_to_f16(float a)
{
    const uint32_t bits = fd_bits_of(a), magnitude = bits & 0x7FFFFFFFu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7F800000u)
        return sign | 0x7E00 | (magnitude >> 13 & 0x3FF);
    if (magnitude >= 0x477FF000u)    /* 65520 and more round to infinity */
        return sign | 0x7C00;
    if (magnitude < 0x38800000u)     /* below 2^-14: adding 1/2 leaves multiples of 2^-24, rounded */
        return sign | (uint16_t)(fd_bits_of(fd_float_of(magnitude) + 0.5f) - 0x3F000000u);
    return sign | (uint16_t)((magnitude - 0x38000000u + 0xFFF + (magnitude >> 13 & 1)) >> 13);
}

#endif
