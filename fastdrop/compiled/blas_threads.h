/* NumPy's BLAS on one thread while products of ours run. Products that run at once share the
   change, so that each is told the number of threads that the user wants. The whole process sees
   the change. */
#ifndef FASTDROP_BLAS_THREADS_H
#define FASTDROP_BLAS_THREADS_H

#include <pthread.h>
#include <stdint.h>

/* functions of CBLAS, with integers of 64 bits */
typedef void (*fd_sgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                         int64_t k, float alpha, const float *a, int64_t a_stride, const float *b,
                         int64_t b_stride, float beta, float *c, int64_t c_stride);
typedef void (*fd_dgemm)(int order, int a_transposed, int b_transposed, int64_t m, int64_t n,
                         int64_t k, double alpha, const double *a, int64_t a_stride, const double *b,
                         int64_t b_stride, double beta, double *c, int64_t c_stride);

typedef int (*fd_get_threads)(void);
typedef void (*fd_set_threads)(int n);

static pthread_mutex_t fd_blas_lock = PTHREAD_MUTEX_INITIALIZER;
static int fd_blas_products, fd_blas_wanted;

/* Returns how many threads a product may take; BLAS has one thread from here on. */
static inline int fd_blas_enter(fd_get_threads get, fd_set_threads set)
{
    pthread_mutex_lock(&fd_blas_lock);
    if (!fd_blas_products++) {
        fd_blas_wanted = get();
        if (fd_blas_wanted > 1)
            set(1);
    }
    const int wanted = fd_blas_wanted;
    pthread_mutex_unlock(&fd_blas_lock);
    return wanted;
}

static inline void fd_blas_leave(fd_get_threads get, fd_set_threads set)
{
    pthread_mutex_lock(&fd_blas_lock);
    if (!--fd_blas_products && fd_blas_wanted > 1 && get() == 1)    /* else other code has set it */
        set(fd_blas_wanted);
    pthread_mutex_unlock(&fd_blas_lock);
}

/* To be called in a forked child, where the products of the parent's other threads do not exist. */
static inline void fd_blas_after_fork(fd_set_threads set)
{
    fd_blas_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (fd_blas_products && fd_blas_wanted > 1)
        set(fd_blas_wanted);
    fd_blas_products = 0;
}

#endif
