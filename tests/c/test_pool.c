/* The pool: every share is done once, whoever calls, and results are there when the call returns.
   make test-sanitizers runs it under ThreadSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

enum { CALLS = 3000, CALLERS = 3, MOST = 5 };

typedef struct {
    int number, done[MOST];
} call;

static void share(int i, int shares, void *argument)
{
    call *c = argument;
    if (i < shares && shares == c->number % MOST + 1)
        c->done[i]++;
}

static void *caller(void *failures)
{
    for (int number = 0; number < CALLS; number++) {
        call c = {.number = number};
        fd_pool_run(share, number % MOST + 1, &c);
        for (int i = 0; i < MOST; i++)
            if (c.done[i] != (i <= number % MOST))
                ++*(int *)failures;
        if (number % 1000 == 999)    /* the helpers fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return NULL;
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

int main(void)
{
    int status = 0, failures = run();
    const pid_t child = fork();
    if (!child)
        _exit(run() != 0);
    waitpid(child, &status, 0);
    failures += status != 0;
    printf("pool: %d calls in each of %d threads, and in a child: %d failed\n", CALLS, CALLERS,
           failures);
    return failures != 0;
}
