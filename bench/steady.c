/* An agent for soak.py: answers each connection on its port with 200, and ends only by what is done to it.
 *
 *   steady PORT
 *
 * "GET /eat" makes it take memory until the kernel kills it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

int main(int count, char **words) {
    if (count != 2) return 64;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 69;
    for (;;) {
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) continue;
        struct timeval patience = {1, 0};
        setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        char request[1024];
        ssize_t got = recv(connection, request, sizeof request - 1, 0);
        if (got > 0) {
            request[got] = 0;
            while (strncmp(request, "GET /eat", 8) == 0) {
                char *piece = malloc(1 << 20);
                if (!piece) abort();
                memset(piece, 1, 1 << 20);
            }
            send(connection, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
        }
        close(connection);
    }
}
