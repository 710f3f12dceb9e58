/* The pool: every share is done once, in the caller's floating-point mode, whoever calls, and results
   are there when the call returns. So is every share of an offer, when it has been settled.
   make test-sanitizers runs it under ThreadSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kernels/denormals.h"
#include "pool.h"

enum { CALLS = 3000, CALLERS = 3, MOST = 5 };

static _Atomic int lent_calls;

typedef struct {
    int number, done[MOST];
    fd_float_mode mode;
} call;

/* How many shares were done too often or not at all: those up to number % MOST have to be done once,
   the others never */
static int wrong(const call *c)
{
    int n = 0;
    for (int i = 0; i < MOST; i++)
        n += c->done[i] != (i <= c->number % MOST);
    return n;
}

static void share(int i, int shares, void *argument)
{
    call *c = argument;
    const int as_caller = !((fd_get_float_mode() ^ c->mode) & ~(fd_float_mode)0x3f);    /* flags */
    if (i < shares && shares == c->number % MOST + 1 && as_caller)
        c->done[i]++;
}

static void *caller(void *failures)
{
    for (int number = 0; number < CALLS; number++) {
        const fd_float_mode before = fd_get_float_mode();
        if (number % 2)
            fd_flush_denormals();
        call c = {.number = number, .mode = fd_get_float_mode()}, later = c;
        const int offers = number % 7 && fd_pool_offer(share, number % MOST + 1, &later);
        fd_pool_run(share, number % MOST + 1, &c, (fd_helpers)(number % 3));
        fd_restore_float_mode(before);
        fd_pool_settle(&later);
        fd_pool_settle(&later);    /* does nothing */
        *(int *)failures += wrong(&c) + (offers && wrong(&later));
        if (number % 1000 == 999)    /* the helpers fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
}

typedef struct {
    void (*f)(void *);
    void *argument;
} lent_work;

static void *lent_thread(void *argument)
{
    const lent_work *w = argument;
    w->f(w->argument);
    return NULL;
}

/* As GOMP_parallel, with two more threads than some calls have shares, and fewer than others. */
static void lend(void (*f)(void *), void *argument, unsigned threads, unsigned flags)
{
    lent_work w = {f, argument};
    pthread_t others[2];
    (void)threads, (void)flags;
    lent_calls++;
    for (int i = 0; i < 2; i++)
        pthread_create(&others[i], NULL, lent_thread, &w);
    f(argument);
    for (int i = 0; i < 2; i++)
        pthread_join(others[i], NULL);
}

static int run(void)
{
    pthread_t threads[CALLERS];
    int failures[CALLERS] = {0}, sum = 0;
    for (int i = 0; i < CALLERS; i++)
        pthread_create(&threads[i], NULL, caller, &failures[i]);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        sum += failures[i];
    }
    return sum;
}

/* A child settles what its parent had offered, without the parent's helpers. */
static int fork_after_offer(void)
{
    int status = 0, n = 0;
    call c = {.number = MOST - 1, .mode = fd_get_float_mode()}, later = c;
    n += !fd_pool_offer(share, MOST, &later) + fd_pool_offer(share, MOST, &c);
    fd_pool_run(share, MOST, &c, FD_SPINNING);
    const pid_t child = fork();
    if (!child) {
        memset(later.done, 0, sizeof later.done);
        fd_pool_settle(&later);
        _exit(wrong(&later) || run() != 0);
    }
    fd_pool_settle(&later);
    waitpid(child, &status, 0);
    return n + wrong(&c) + wrong(&later) + (status != 0);
}

int main(void)
{
    int status = 0, failures = run() + (lent_calls != 0);    /* nobody lends so far */
    failures += fork_after_offer();
    fd_pool_lend(lend);
    failures += run() + (lent_calls == 0);
    lent_calls = 0;
    const pid_t child = fork();
    if (!child)    /* without what was lent to its parent */
        _exit(run() != 0 || lent_calls != 0);
    waitpid(child, &status, 0);
    failures += status != 0;
    printf("pool: %d calls in each of %d threads, and in a child: %d failed\n", CALLS, CALLERS,
           failures);
    return failures != 0;
}
