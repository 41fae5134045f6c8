/* A constant load for updates.py: RATE requests a second, each on a connection of its own, whatever the answers take.
 *
 *   load PORT RATE THREADS
 *
 * Ends on SIGTERM and prints one JSON object. A request has failed when it has no whole answer with status 200 within 10 s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 200000, PATIENCE_S = 10 };

static unsigned short port;
static double rate;
static int threads;
static atomic_int ending;
static atomic_ulong done, failed, late, took[BUCKETS]; /* By 0.1 ms, at most 20 s. */
static char first_error[128];
static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void fail(const char *what) {
    int cause = errno;
    atomic_fetch_add(&failed, 1);
    pthread_mutex_lock(&error_lock);
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "%s: %s", what, strerror(cause));
    pthread_mutex_unlock(&error_lock);
}

static void ask(void) {
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    errno = 0;
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {PATIENCE_S, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[512];
    size_t length = 0;
    if (connect(connection, (struct sockaddr *)&address, sizeof address)) {
        fail("connect");
    } else if (send(connection, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1) {
        fail("send");
    } else {
        ssize_t got;
        while ((got = recv(connection, answer + length, sizeof answer - 1 - length, 0)) > 0) length += (size_t)got;
        answer[length] = 0;
        const char *body = strstr(answer, "\r\n\r\n");
        if (got < 0 || strncmp(answer, "HTTP/1.1 200", 12) || !body || !body[4]) fail("answer");
    }
    /* The answer is whole: no connection is left waiting, or the ports would run out. */
    struct linger at_once = {1, 0};
    setsockopt(connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection);
}

static void *client(void *number) {
    double every = threads / rate, next = now_s() + every * (double)(long)number / threads;
    while (!atomic_load(&ending)) {
        double wait = next - now_s();
        if (wait > 0) {
            struct timespec until = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
            nanosleep(&until, NULL);
        } else if (wait < -1) {
            atomic_fetch_add(&late, 1);
        }
        double began = now_s();
        ask();
        long bucket = (long)((now_s() - began) * 1e4);
        atomic_fetch_add(&took[bucket < BUCKETS ? bucket : BUCKETS - 1], 1);
        atomic_fetch_add(&done, 1);
        next += every;
    }
    return NULL;
}

static double percentile(unsigned long count, double part) {
    unsigned long seen = 0;
    for (long bucket = 0; bucket < BUCKETS; bucket++) {
        seen += atomic_load(&took[bucket]);
        if ((double)seen >= part * (double)count) return (double)(bucket + 1) / 10;
    }
    return 0;
}

int main(int count, char **words) {
    if (count != 4) return 64;
    port = (unsigned short)atoi(words[1]);
    rate = atof(words[2]);
    threads = atoi(words[3]);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    double began = now_s();
    pthread_t ids[threads];
    for (long number = 0; number < threads; number++) pthread_create(&ids[number], NULL, client, (void *)number);
    int signal;
    sigwait(&term, &signal);
    atomic_store(&ending, 1);
    for (int number = 0; number < threads; number++) pthread_join(ids[number], NULL);
    unsigned long all = atomic_load(&done);
    printf("{\"requests\": %lu, \"failed\": %lu, \"late\": %lu, \"seconds\": %.1f, \"p50_ms\": %.1f, \"p99_ms\": %.1f, "
           "\"max_ms\": %.1f, \"first_error\": \"%s\"}\n",
           all, atomic_load(&failed), atomic_load(&late), now_s() - began, percentile(all, 0.5), percentile(all, 0.99),
           percentile(all, 1), first_error);
    return 0;
}
