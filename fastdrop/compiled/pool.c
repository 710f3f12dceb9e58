/* Helpers, started when first wanted. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "kernels/denormals.h"
#include "pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define PAUSE() _mm_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

/* How long a helper spins, which is longer than a step takes on one thread between two products.
   How long the caller waits for a helper's last share before it lets others have its core. How long
   it does not ask again for threads after a refusal, as asking takes as long as a small step. */
enum { SPIN_NS = 300000, PATIENCE_NS = 20000, REFUSED_NS = 100000000 };

static atomic_flag busy = ATOMIC_FLAG_INIT;    /* a caller has the helpers, and all below */
static int helpers;
static int64_t refused;                        /* when the system last refused a thread */

static fd_share work;
static int num_shares;
static void *argument;
static int spin;                               /* whether helpers spin afterwards */
static fd_float_mode mode;                     /* the caller's, in which helpers compute as well */
static _Atomic int finished;                   /* shares */
static _Atomic uint64_t posted;                /* number of the call << 32 | shares not yet taken */

static _Atomic int sleeping;                   /* helpers */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static _Atomic(fd_parallel) lent;              /* calls another library's threads; or NULL */

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The result of the search for a share */
typedef enum { NONE, DONE, DONE_SPIN } outcome;

/* Takes a share, or none. A thread with a share may read what has been posted until it has finished
   it. The number of the call keeps a late helper from taking a share of a call it has not seen. */
static outcome do_share(void)
{
    uint64_t seen = atomic_load(&posted);
    do {
        if (!(uint32_t)seen)
            return NONE;
    } while (!atomic_compare_exchange_weak(&posted, &seen, seen - 1));
    const fd_float_mode own = fd_get_float_mode();
    fd_restore_float_mode(mode);
    work((int)(uint32_t)seen - 1, num_shares, argument);
    fd_restore_float_mode(own);
    const outcome done = spin ? DONE_SPIN : DONE;
    atomic_fetch_add(&finished, 1);
    return done;
}

static void sleep_until_posted(void)
{
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&sleeping, 1);
    while (!(uint32_t)atomic_load(&posted))
        pthread_cond_wait(&wake, &lock);
    atomic_fetch_sub(&sleeping, 1);
    pthread_mutex_unlock(&lock);
}

static void *help(void *unused)
{
    (void)unused;
    for (int64_t awake_until = 0;;) {
        const outcome done = do_share();
        if (done == DONE_SPIN)
            awake_until = now() + SPIN_NS;
        else if (done == NONE && now() < awake_until)
            for (int i = 0; i < 8; i++)
                PAUSE();
        else if (done == NONE)
            sleep_until_posted();
    }
    return NULL;
}

static void start_helpers(int wanted)
{
    sigset_t all, before;
    if (helpers >= wanted || (refused && now() - refused < REFUSED_NS))
        return;
    refused = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are for the program's own threads */
    for (; helpers < wanted; helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, NULL)) {
            refused = now();
            break;
        }
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void forget_helpers(void)    /* in a forked child, which has none of the parent's threads */
{
    helpers = 0;
    refused = 0;
    atomic_store(&sleeping, 0);
    atomic_store(&posted, 0);
    atomic_flag_clear(&busy);
    lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_store(&lent, NULL);
}

static void watch_forks_once(void)
{
    pthread_atfork(NULL, NULL, forget_helpers);
}

static void watch_forks(void)
{
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks_once);
}

static void wake_helpers(int wanted)
{
    const int asleep = atomic_load(&sleeping);
    if (!asleep)
        return;
    pthread_mutex_lock(&lock);
    if (asleep <= wanted)
        pthread_cond_broadcast(&wake);
    else
        for (int i = 0; i < wanted; i++)
            pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

/* A call that lent threads carry out. Each caller has its own threads. */
typedef struct {
    fd_share f;
    int shares;
    void *argument;
    fd_float_mode mode;
    _Atomic int left;    /* shares not yet taken */
} lent_call;

static void do_lent_shares(void *argument)
{
    lent_call *c = argument;
    const fd_float_mode own = fd_get_float_mode();
    fd_restore_float_mode(c->mode);
    for (int share; (share = atomic_fetch_sub(&c->left, 1) - 1) >= 0;)
        c->f(share, c->shares, c->argument);
    fd_restore_float_mode(own);
}

void fd_pool_lend(fd_parallel parallel)
{
    watch_forks();
    atomic_store(&lent, parallel);
}

int fd_pool_lends(void)
{
    return atomic_load(&lent) != NULL;
}

void fd_pool_run(fd_share f, int shares, void *arg, fd_helpers who)
{
    const fd_parallel parallel = who == FD_LENT ? atomic_load(&lent) : NULL;
    if (parallel && shares > 1) {
        lent_call c = {f, shares, arg, fd_get_float_mode(), shares};
        parallel(do_lent_shares, &c, 0, 0);    /* 0: as many as there are, as in PyTorch itself */
        return;
    }
    if (shares == 1 || atomic_flag_test_and_set(&busy)) {
        for (int i = shares; i-- > 0;)
            f(i, shares, arg);
        return;
    }
    watch_forks();
    start_helpers(shares - 1);
    work = f, num_shares = shares, argument = arg, spin = who == FD_SPINNING;
    mode = fd_get_float_mode();
    atomic_store(&finished, 0);
    atomic_store(&posted, ((atomic_load(&posted) >> 32) + 1) << 32 | (uint64_t)shares);
    wake_helpers(shares - 1);
    while (do_share() != NONE)
        ;
    for (int64_t since = now(); atomic_load(&finished) != shares;)
        if (now() - since < PATIENCE_NS)
            PAUSE();
        else
            sched_yield();
    atomic_flag_clear(&busy);
}
