/* Helper threads, for large calls and for the steps of training.
 *
 *     fd_pool_run(f, 3, argument, FD_ASLEEP)    f(2, 3, argument)   by the caller
 *                                               f(1, 3, argument)   by a helper, or by the caller
 *                                               f(0, 3, argument)   should no helper have come so far
 *
 * Shares are independent of each other. Helpers only make a call faster. If the system gives none,
 * or they are busy for another caller or do not get a core in time, the caller does all shares.
 * (OpenMP's libraries end the process if they cannot start a thread.)
 *
 * Helpers sleep between calls. In a step of training products, updates and what lies between
 * them alternate every few microseconds. So a helper in a call with FD_SPINNING waits for more work
 * by spinning before it sleeps.
 *
 * Between PyTorch's operations its own threads spin, for milliseconds. Helpers that sleep come too
 * late there, and onto a core that is taken. So PyTorch's threads help in a call with FD_LENT.
 */
#ifndef FASTDROP_POOL_H
#define FASTDROP_POOL_H

typedef void (*fd_share)(int share, int shares, void *argument);

/* Who helps, and how helpers wait. */
typedef enum {
    FD_ASLEEP,
    FD_SPINNING,
    FD_LENT        /* another library's OpenMP threads; FD_ASLEEP if none have been lent */
} fd_helpers;

/* OpenMP's GOMP_parallel, each of whose threads calls a function. */
typedef void (*fd_parallel)(void (*f)(void *), void *argument, unsigned threads, unsigned flags);

/* Lends threads for ever, except to a forked child: OpenMP's threads do not exist there, and it
   would wait for them. */
void fd_pool_lend(fd_parallel parallel);

/* Tells whether threads are lent. */
int fd_pool_lends(void);

/* Returns when all shares are done. Any thread may call it, but not a share. */
void fd_pool_run(fd_share f, int shares, void *argument, fd_helpers who);

/* Offers shares to helpers that spin, until `fd_pool_settle(argument)`. They take one whenever no
   call has work for them, so a call may have to wait for as long as a share takes. Returns 0, and
   does nothing, while there is another offer. */
int fd_pool_offer(fd_share f, int shares, void *argument);

/* Does what nobody has done of the offer with this argument, and returns when all of it is done; or
   at once if there is no such offer any more. Any thread may call it, but not a share. */
void fd_pool_settle(void *argument);

#endif
