/* Helper threads, for large calls and for the steps of training.
 *
 *     fd_pool_run(f, 3, argument, 0)       f(2, 3, argument)   by the caller
 *                                          f(1, 3, argument)   by a helper, or by the caller
 *                                          f(0, 3, argument)   should no helper have come so far
 *
 * Shares are independent of each other. Helpers only make it faster: where the system gives none,
 * where they are busy for another caller or are not let to a core in time, the caller does all
 * shares. (OpenMP's libraries end the process where they cannot start a thread.)
 *
 * Helpers sleep between calls. In a step of training NumPy's products, updates and what lies between
 * take turns every few microseconds: who has just helped in a call with `spin` waits for more,
 * spinning, before it sleeps.
 */
#ifndef FASTDROP_POOL_H
#define FASTDROP_POOL_H

typedef void (*fd_share)(int share, int shares, void *argument);

/* Returns when all shares are done. May be called by any thread; not by a share. */
void fd_pool_run(fd_share f, int shares, void *argument, int spin);

#endif
