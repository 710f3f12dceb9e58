/* For build-wheels: takes functions under their first version, which every glibc has. The newer ones
   would ask for glibc 2.27 and 2.29 (mathematics: they differ in errno only), 2.32 and 2.34 (threads and
   libraries: they have moved from libpthread, which libgomp loads where there is one, and from libdl,
   which Python does). */
#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST "GLIBC_2.17"
#endif
__asm__(".symver dlopen, dlopen@" FIRST);
__asm__(".symver dlsym, dlsym@" FIRST);
__asm__(".symver exp, exp@" FIRST);
__asm__(".symver expf, expf@" FIRST);
__asm__(".symver log, log@" FIRST);
__asm__(".symver logf, logf@" FIRST);
__asm__(".symver pow, pow@" FIRST);
__asm__(".symver powf, powf@" FIRST);
__asm__(".symver pthread_create, pthread_create@" FIRST);
__asm__(".symver pthread_detach, pthread_detach@" FIRST);
__asm__(".symver pthread_once, pthread_once@" FIRST);
__asm__(".symver pthread_sigmask, pthread_sigmask@" FIRST);
