/* Helper threads for the steps of training: NumPy's products, updates and what lies between take
 * turns every few microseconds, so who has just helped waits for more, spinning, before it sleeps.
 *
 *     fd_pool_run(f, 3, argument)          f(2, 3, argument)   by the caller
 *                                          f(1, 3, argument)   by a helper, or by the caller
 *                                          f(0, 3, argument)   should no helper have come so far
 *
 * Shares are independent of each other. Helpers only make it faster: where there are none, where
 * they are busy for another caller or are not let to a core in time, the caller does all shares.
 */
#ifndef FASTDROP_POOL_H
#define FASTDROP_POOL_H

typedef void (*fd_share)(int share, int shares, void *argument);

/* Returns when all shares are done. May be called by any thread; not by a share. */
void fd_pool_run(fd_share f, int shares, void *argument);

#endif
