/* Arithmetic in which numbers below the normal range count as 0, read or computed, for a while,
 * because processors take tens of cycles on them instead of one. The mode belongs to the thread.
 *
 *     const fd_float_mode before = fd_flush_denormals();
 *     ...                              in functions of other files: a compiler moves arithmetic
 *     fd_restore_float_mode(before);   across these two, but not across a call
 *
 * fd_ieee_float_mode(mode) is the mode without that.
 */
#ifndef FASTDROP_DENORMALS_H
#define FASTDROP_DENORMALS_H

#include <stdint.h>

typedef uint64_t fd_float_mode;

#if defined(__x86_64__)
#include <immintrin.h>

static inline fd_float_mode fd_get_float_mode(void)
{
    return _mm_getcsr();
}

static inline void fd_restore_float_mode(fd_float_mode mode)
{
    _mm_setcsr((unsigned int)mode);
}

static inline fd_float_mode fd_flush_denormals(void)
{
    const fd_float_mode before = fd_get_float_mode();
    fd_restore_float_mode(before | 1u << 15 | 1u << 6);    /* FTZ, DAZ */
    return before;
}

static inline fd_float_mode fd_ieee_float_mode(fd_float_mode mode)
{
    return mode & ~(fd_float_mode)(1u << 15 | 1u << 6);
}

#elif defined(__aarch64__)

static inline fd_float_mode fd_get_float_mode(void)
{
    fd_float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}

static inline void fd_restore_float_mode(fd_float_mode mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
}

static inline fd_float_mode fd_flush_denormals(void)
{
    const fd_float_mode before = fd_get_float_mode();
    fd_restore_float_mode(before | 1u << 24);    /* FZ */
    return before;
}

static inline fd_float_mode fd_ieee_float_mode(fd_float_mode mode)
{
    return mode & ~(fd_float_mode)(1u << 24);
}

#else    /* denormal numbers as usual */

static inline fd_float_mode fd_get_float_mode(void)
{
    return 0;
}

static inline void fd_restore_float_mode(fd_float_mode mode)
{
    (void)mode;
}

static inline fd_float_mode fd_flush_denormals(void)
{
    return 0;
}

static inline fd_float_mode fd_ieee_float_mode(fd_float_mode mode)
{
    return mode;
}

#endif
#endif
