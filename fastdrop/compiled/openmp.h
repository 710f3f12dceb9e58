/* OpenMP where there is one, and what keeps it safe: a build without it runs on one thread, and a
   forked child never waits for its parent's threads. */
#ifndef FASTDROP_OPENMP_H
#define FASTDROP_OPENMP_H

#ifdef _OPENMP

#include <omp.h>
#include <pthread.h>
#include <stddef.h>

enum { FD_OPENMP = _OPENMP };    /* yyyymm of the standard, 0 = built without */

/* libgomp's idle threads do not survive a fork, and the child's next parallel region would wait for
   them for ever. Giving them back before each fork leaves parent and child free to start new ones.
   Should that fail, the child stays on one thread. */
static int fd_pause_failed = 0, fd_serial = 0;

static void fd_before_fork(void)
{
#if _OPENMP >= 201811 || __GNUC__ >= 9    /* libgomp has it since gcc 9 */
    fd_pause_failed = omp_pause_resource_all(omp_pause_hard) != 0;
#else
    fd_pause_failed = 1;
#endif
}

static void fd_after_fork_in_child(void)
{
    fd_serial |= fd_pause_failed;
}

/* LLVM's OpenMP survives forks by itself. A handler of its own holds its locks by the time that ours
   runs, which would wait for them for ever. gcc's code may find it, too, under libgomp's name. */
static inline int fd_is_llvm(void)
{
#ifdef __clang__
    return 1;
#else
    extern int kmp_get_blocktime(void) __attribute__((weak));
    return kmp_get_blocktime != NULL;
#endif
}

static inline void fd_guard_forks(void)
{
    if (!fd_is_llvm())
        pthread_atfork(fd_before_fork, NULL, fd_after_fork_in_child);
}

/* How many of n threads a region may start. */
static inline int fd_usable_threads(int n)
{
    return fd_serial ? 1 : n;
}

static inline int fd_max_threads(void)
{
    return fd_usable_threads(omp_get_max_threads());
}

#else

enum { FD_OPENMP = 0 };

static inline void fd_guard_forks(void) {}
static inline int fd_usable_threads(int n) { (void)n; return 1; }
static inline int fd_max_threads(void) { return 1; }

#endif
#endif
