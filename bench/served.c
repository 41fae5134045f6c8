/* A server on an inherited socket (LISTEN_FDS) for updates.py: one request at a time, HTTP/1.1 with a closed connection.
 *
 *   served VERSION good | crash | never-ready | ends-soon
 *
 * Descriptor 3 is shared by all instances; PORT_ADMIN is its own, and is asked for readiness. SIGTERM: it ends between two
 * requests. What it has not accepted stays in the queue of the shared socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

enum { SHARED = 3, ENDS_AFTER_MS = 200 };

static volatile sig_atomic_t ending;

static void on_term(int signal) {
    (void)signal;
    ending = 1;
}

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void answer(int listener, const char *version, int status) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0) return; /* Another instance was quicker. */
    struct timeval patience = {5, 0};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    char request[4096];
    size_t length = 0;
    while (length < sizeof request - 1) {
        ssize_t got = recv(connection, request + length, sizeof request - 1 - length, 0);
        if (got < 0 && errno == EINTR) continue; /* It ends after this request. */
        if (got <= 0) goto out;
        length += (size_t)got;
        request[length] = 0;
        if (strstr(request, "\r\n\r\n")) break;
    }
    char text[256];
    int bytes = snprintf(text, sizeof text, "HTTP/1.1 %d -\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status,
                         strlen(version), version);
    send(connection, text, (size_t)bytes, MSG_NOSIGNAL);
out:
    close(connection);
}

int main(int count, char **words) {
    if (count != 3) return 64;
    const char *version = words[1], *manner = words[2];
    if (!strcmp(manner, "crash")) {
        printf("version %s cannot work\n", version);
        return 1;
    }
    const char *port = getenv("PORT_ADMIN"), *listening = getenv("LISTEN_FDS");
    if (!port || !listening || strcmp(listening, "1")) return 65;
    fcntl(SHARED, F_SETFL, fcntl(SHARED, F_GETFL) | O_NONBLOCK);
    int own = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    setsockopt(own, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(own, (struct sockaddr *)&address, sizeof address) || listen(own, 16)) return 66;
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &open); /* Only while it waits, so that none is missed. */
    long ends_at = strcmp(manner, "ends-soon") ? -1 : now_ms() + ENDS_AFTER_MS;
    struct pollfd watched[] = {{SHARED, POLLIN, 0}, {own, POLLIN, 0}};
    while (!ending) {
        struct timespec patience = {0, 50 * 1000 * 1000};
        ppoll(watched, 2, ends_at < 0 ? NULL : &patience, &open);
        if (ending) break;
        if (ends_at >= 0 && now_ms() >= ends_at) {
            printf("version %s falls over\n", version);
            return 3;
        }
        if (watched[0].revents & POLLIN) answer(SHARED, version, 200);
        if (watched[1].revents & POLLIN) answer(own, version, strcmp(manner, "never-ready") ? 200 : 503);
        watched[0].revents = watched[1].revents = 0;
    }
    return 0;
}
