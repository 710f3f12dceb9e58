/* For build-wheels: takes mathematical functions from libm under their first version, which every
   glibc has. The newer ones, which differ in errno only, would ask for glibc 2.27 and 2.29. */
#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST "GLIBC_2.17"
#endif
__asm__(".symver exp, exp@" FIRST);
__asm__(".symver expf, expf@" FIRST);
__asm__(".symver log, log@" FIRST);
__asm__(".symver logf, logf@" FIRST);
__asm__(".symver pow, pow@" FIRST);
__asm__(".symver powf, powf@" FIRST);
