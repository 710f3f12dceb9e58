/* Which instruction sets this build has and this machine runs. */
#include "kernels.h"
#include "products.h"
#include "target.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Not every compiler's test knows this name. F16C needs the same operating system as AVX2. */
static int cpu_has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
#endif

const fd_kernels *const *fd_available(void)
{
    static const fd_kernels *list[4];    /* those below, and NULL */
    int n = 0;
#if defined(__x86_64__)
    /* The test of gcc and clang reads CPUID and XCR0, so an instruction set whose registers the
       operating system does not save is not supported. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        list[n++] = &fd_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c())
        list[n++] = &fd_avx2;
#elif defined(__aarch64__)
    list[n++] = &fd_neon;    /* part of the architecture's base */
#endif
    static fd_kernels generic;
    generic = fd_generic;
    if (fd_has_fma())
        generic.products = &fd_fused_products;
    list[n++] = &generic;
    list[n] = NULL;
    return list;
}
