/* How many threads OpenMP's users allow, because its variables and threadpoolctl apply to fastdrop,
   too. No thread is OpenMP's: its libraries end the process where the system refuses a thread. */
#ifndef FASTDROP_OPENMP_H
#define FASTDROP_OPENMP_H

#ifdef _OPENMP

#include <omp.h>

enum { FD_OPENMP = _OPENMP };    /* yyyymm of the standard, 0 = built without */

static inline int fd_max_threads(void) { return omp_get_max_threads(); }

#else

enum { FD_OPENMP = 0 };

static inline int fd_max_threads(void) { return 1; }

#endif
#endif
