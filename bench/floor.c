/* The floor of the benchmark: the least that can be called a supervisor, to which the others are compared.
 *
 *   floor COUNT AGENT FIFO
 *
 * Starts COUNT processes `AGENT aN FIFO`, starts each again as soon as it ends, and on SIGTERM asks all to end and waits for
 * them. No file, no log, no policy, no containment, no interface: what the kernel costs and nothing else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT_MAX 4096

static pid_t pids[COUNT_MAX];
static int count;
static volatile sig_atomic_t ending;

static void end_all(int signal)
{
    ending = 1;
    for (int i = 0; i < count; i++)
        if (pids[i] > 0)
            kill(pids[i], signal);
}

static void start(int index, char *agent, char *fifo)
{
    char name[16];
    char *arguments[] = {agent, name, fifo, NULL};
    snprintf(name, sizeof name, "a%d", index);
    if (posix_spawn(&pids[index], agent, NULL, NULL, arguments, environ) != 0)
        exit(71);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = end_all};
    if (argc != 4 || (count = atoi(argv[1])) < 1 || count > COUNT_MAX)
        return 64;
    for (int i = 0; i < count; i++)
        start(i, argv[2], argv[3]);
    sigaction(SIGTERM, &action, NULL);
    for (int running = count; running > 0;) {
        pid_t pid = waitpid(-1, NULL, 0);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            return 71;
        for (int i = 0; i < count; i++) {
            if (pids[i] != pid)
                continue;
            pids[i] = 0;
            if (ending)
                running--;
            else
                start(i, argv[2], argv[3]);
        }
    }
    return 0;
}
