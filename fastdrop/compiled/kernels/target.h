/* FD_TARGET_BEGIN("avx2") ... FD_TARGET_END: functions between them may use that instruction set,
   in an ordinary C file, without compiler flags. Include all headers before the region. */
#ifndef FASTDROP_TARGET_H
#define FASTDROP_TARGET_H

#define FD_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define FD_TARGET_BEGIN(isa) \
    FD_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define FD_TARGET_END FD_PRAGMA(clang attribute pop)
#else
#define FD_TARGET_BEGIN(isa) FD_PRAGMA(GCC push_options) FD_PRAGMA(GCC target(isa))
#define FD_TARGET_END FD_PRAGMA(GCC pop_options)
#endif

#define FD_UNROLL FD_PRAGMA(GCC unroll 64)
#define FD_ALWAYS_INLINE inline __attribute__((always_inline))

#endif
