/* Parts of a task shared out among threads that stay. Whoever is free takes the next part, the caller too, so a thread that the
   system has put aside holds up nothing but the part it is at; those of OpenMP wait for each other at every task, busily, and
   take three times as long as one thread where other programs use the processors. */

typedef void task_fn(void *given, int64_t part, int me); /* `me`: which of the threads, from 0 */

static void alone(task_fn *task, void *given, int64_t parts) {
    for (int64_t part = 0; part < parts; part++) task(given, part, 0);
}

#ifdef _WIN32
static void share_out(task_fn *task, void *given, int64_t parts, int threads) {
    (void)threads;
    alone(task, given, parts);
}
#else
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define PAUSES 1000 /* looks for a task before others are let run, and more of them before a thread sleeps */
#define LOOKS 1200

static struct {
    pthread_mutex_t users, sleep; /* who shares out a task holds the one; threads that sleep, the other */
    pthread_cond_t called;
    atomic_uint round; /* goes up with each task */
    atomic_int open, inside, asleep;
    atomic_llong next;
    task_fn *task;
    void *given;
    int64_t parts;
    int wanted, helpers; /* threads that may take part in this task; those that have been started, beside callers */
} pool = {.users = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};

/* What somebody does who has looked so many times for something to change. */
static void look_again(int looks) {
    if (looks >= PAUSES) sched_yield();
#if defined(__x86_64__) || defined(__i386__)
    else
        __builtin_ia32_pause();
#endif
}

static void take_parts(int me) {
    for (int64_t part; (part = atomic_fetch_add(&pool.next, 1)) < pool.parts;) pool.task(pool.given, part, me);
}

static void *help(void *given) {
    const int me = (int)(intptr_t)given;
    unsigned seen = 0;
    for (;;) {
        for (int looks = 0; atomic_load(&pool.round) == seen; looks++) {
            look_again(looks);
            if (looks < LOOKS) continue;
            pthread_mutex_lock(&pool.sleep);
            atomic_fetch_add(&pool.asleep, 1); /* and only then a last look, so that nobody sleeps through a call */
            while (atomic_load(&pool.round) == seen) pthread_cond_wait(&pool.called, &pool.sleep);
            atomic_fetch_sub(&pool.asleep, 1);
            pthread_mutex_unlock(&pool.sleep);
        }
        seen = atomic_load(&pool.round);
        atomic_fetch_add(&pool.inside, 1); /* while anybody is inside, nobody writes the next task */
        if (atomic_load(&pool.open) && me < pool.wanted) take_parts(me);
        atomic_fetch_sub(&pool.inside, 1);
    }
    return 0;
}

/* The child of a fork has none of its parent's threads. */
static void after_fork(void) {
    pthread_mutex_init(&pool.users, 0);
    pthread_mutex_init(&pool.sleep, 0);
    pthread_cond_init(&pool.called, 0);
    atomic_store(&pool.open, 0), atomic_store(&pool.inside, 0), atomic_store(&pool.asleep, 0);
    pool.helpers = 0;
}

/* Runs task(given, part, me) for each part, on `threads` at most; on the caller alone while somebody else shares out. */
static void share_out(task_fn *task, void *given, int64_t parts, int threads) {
    static int begun;
    if (parts < threads) threads = (int)parts;
    if (threads < 2 || pthread_mutex_trylock(&pool.users)) {
        alone(task, given, parts);
        return;
    }
    if (!begun) begun = !pthread_atfork(0, 0, after_fork);
    while (pool.helpers < threads - 1) {
        pthread_t thread;
        if (pthread_create(&thread, 0, help, (void *)(intptr_t)(pool.helpers + 1))) break;
        pthread_detach(thread);
        pool.helpers++;
    }
    pool.task = task, pool.given = given, pool.parts = parts, pool.wanted = threads;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.open, 1);
    atomic_fetch_add(&pool.round, 1);
    if (atomic_load(&pool.asleep)) {
        pthread_mutex_lock(&pool.sleep);
        pthread_cond_broadcast(&pool.called);
        pthread_mutex_unlock(&pool.sleep);
    }
    take_parts(0);
    atomic_store(&pool.open, 0);
    for (int looks = 0; atomic_load(&pool.inside); looks++) look_again(looks);
    pthread_mutex_unlock(&pool.users);
}
#endif
