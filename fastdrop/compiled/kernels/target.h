/* FD_TARGET_BEGIN("avx2") ... FD_TARGET_END: functions between them may use that instruction set,
   in an ordinary C file, without compiler flags. Include all headers before the region. Also what
   such files ask of the compiler and the processor. */
#ifndef FASTDROP_TARGET_H
#define FASTDROP_TARGET_H

#include <math.h>

#define FD_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define FD_TARGET_BEGIN(isa) \
    FD_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define FD_TARGET_END FD_PRAGMA(clang attribute pop)
#else
#define FD_TARGET_BEGIN(isa) FD_PRAGMA(GCC push_options) FD_PRAGMA(GCC target(isa))
#define FD_TARGET_END FD_PRAGMA(GCC pop_options)
#endif

/* Whether this processor multiplies and adds in one step. Elsewhere C's fma takes many steps. */
static inline int fd_has_fma(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("fma") != 0;
#elif defined(__aarch64__)
    return 1;
#elif defined(FP_FAST_FMAF) && defined(FP_FAST_FMA)
    return 1;
#else
    return 0;
#endif
}

#define FD_UNROLL FD_PRAGMA(GCC unroll 64)
#define FD_ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define FD_NEVER_INLINE __attribute__((noinline))
#else
#define FD_NEVER_INLINE __attribute__((noinline, noclone))    /* nor copied for some arguments */
#endif
#define FD_HIDE(number) __asm__("" : "+r"(number))    /* what it is, from the compiler */

#endif
