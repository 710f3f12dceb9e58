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

typedef struct {
    fd_share f;
    int shares;
    void *argument;
    int spin;                       /* whether helpers spin afterwards */
    fd_float_mode mode;             /* the caller's, in which helpers compute as well */
    _Atomic int finished;           /* shares */
    _Atomic uint64_t posted;        /* number of the call << 32 | shares not yet taken */
} call;

static atomic_flag busy = ATOMIC_FLAG_INIT;    /* a caller has the helpers, and all below */
static int helpers;
static int64_t refused;                        /* when the system last refused a thread */
static call urgent;

static atomic_flag is_offered = ATOMIC_FLAG_INIT;    /* somebody has what follows */
static call offered;
static _Atomic(void *) unsettled;                    /* the offer's argument until somebody settles */
static uint64_t offered_after;                       /* so many forks */

static _Atomic uint64_t forks;                       /* between this process and the first one */

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

/* Takes a share of a call, or none. A thread with a share may read what has been posted until it has
   finished it. The number of the call keeps a late helper from taking a share of a call it has not
   seen. */
static outcome do_share(call *c)
{
    uint64_t seen = atomic_load(&c->posted);
    do {
        if (!(uint32_t)seen)
            return NONE;
    } while (!atomic_compare_exchange_weak(&c->posted, &seen, seen - 1));
    const fd_float_mode own = fd_get_float_mode();
    fd_restore_float_mode(c->mode);
    c->f((int)(uint32_t)seen - 1, c->shares, c->argument);
    fd_restore_float_mode(own);
    const outcome done = c->spin ? DONE_SPIN : DONE;
    atomic_fetch_add(&c->finished, 1);
    return done;
}

/* Nobody else posts this call until all of its shares are finished. */
static void post(call *c, fd_share f, int shares, void *argument, int spin)
{
    c->f = f, c->shares = shares, c->argument = argument, c->spin = spin;
    c->mode = fd_get_float_mode();
    atomic_store(&c->finished, 0);
    atomic_store(&c->posted, ((atomic_load(&c->posted) >> 32) + 1) << 32 | (uint64_t)shares);
}

/* Does what shares are left, and waits for helpers that have taken one. */
static void finish(call *c)
{
    while (do_share(c) != NONE)
        ;
    for (int64_t since = now(); atomic_load(&c->finished) != c->shares;)
        if (now() - since < PATIENCE_NS)
            PAUSE();
        else
            sched_yield();
}

static void sleep_until_posted(void)
{
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&sleeping, 1);
    while (!(uint32_t)atomic_load(&urgent.posted))
        pthread_cond_wait(&wake, &lock);
    atomic_fetch_sub(&sleeping, 1);
    pthread_mutex_unlock(&lock);
}

static void *help(void *unused)
{
    (void)unused;
    for (int64_t awake_until = 0;;) {
        const outcome done = do_share(&urgent);
        if (done == DONE_SPIN)
            awake_until = now() + SPIN_NS;
        else if (done == NONE && now() >= awake_until)
            sleep_until_posted();
        else if (done == NONE && do_share(&offered) == NONE)
            for (int i = 0; i < 8; i++)
                PAUSE();
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
    atomic_store(&urgent.posted, 0);
    atomic_flag_clear(&busy);
    atomic_store(&offered.posted, 0);
    atomic_fetch_add(&forks, 1);
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
    post(&urgent, f, shares, arg, who == FD_SPINNING);
    wake_helpers(shares - 1);
    finish(&urgent);
    atomic_flag_clear(&busy);
}

int fd_pool_offer(fd_share f, int shares, void *arg)
{
    if (atomic_flag_test_and_set(&is_offered))
        return 0;
    watch_forks();
    offered_after = atomic_load(&forks);
    post(&offered, f, shares, arg, 0);
    atomic_store(&unsettled, arg);
    return 1;
}

void fd_pool_settle(void *arg)
{
    if (!arg || !atomic_compare_exchange_strong(&unsettled, &arg, NULL))
        return;
    if (offered_after == atomic_load(&forks))
        finish(&offered);
    else    /* helpers that had taken shares do not exist in this child */
        for (int i = offered.shares; i-- > 0;)
            offered.f(i, offered.shares, arg);
    atomic_flag_clear(&is_offered);
}
