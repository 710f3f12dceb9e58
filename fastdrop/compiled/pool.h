/* Helper threads, for large calls and for the steps of training.
 *
 *     fd_pool_run(f, 3, argument, FD_ASLEEP)    f(2, 3, argument)   by the caller
 *                                               f(1, 3, argument)   by a helper, or by the caller
 *                                               f(0, 3, argument)   should no helper have come so far
 *
 * Shares are independent of each other. Helpers only make it faster: where the system gives none,
 * where they are busy for another caller or are not let to a core in time, the caller does all
 * shares. (OpenMP's libraries end the process where they cannot start a thread.)
 *
 * Helpers sleep between calls. In a step of training NumPy's products, updates and what lies between
 * take turns every few microseconds: who has just helped in a call with FD_SPINNING waits for more,
 * spinning, before it sleeps.
 *
 * Between PyTorch's operations its own threads spin, for milliseconds: helpers that sleep come too
 * late there, and onto a core that is taken. So it is these that help in a call with FD_LENT.
 */
#ifndef FASTDROP_POOL_H
#define FASTDROP_POOL_H

typedef void (*fd_share)(int share, int shares, void *argument);

/* Who helps, and how helpers wait. */
typedef enum {
    FD_ASLEEP,
    FD_SPINNING,
    FD_LENT        /* somebody else's OpenMP threads; FD_ASLEEP where nobody has lent any */
} fd_helpers;

/* OpenMP's GOMP_parallel, which has a function called by each of its threads. */
typedef void (*fd_parallel)(void (*f)(void *), void *argument, unsigned threads, unsigned flags);

/* Lends threads, for ever but in a forked child: OpenMP's threads are lost there, and it waits for them. */
void fd_pool_lend(fd_parallel parallel);

/* Are any lent? */
int fd_pool_lends(void);

/* Returns when all shares are done. May be called by any thread; not by a share. */
void fd_pool_run(fd_share f, int shares, void *argument, fd_helpers who);

#endif
