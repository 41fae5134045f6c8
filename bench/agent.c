/* The supervised program of the benchmark: says when its first instruction ran, then waits.
 *
 *   agent NAME FIFO            one process
 *   agent NAME FIFO hostile    leaves two children behind: NAME/group, in its own process group, and NAME/session,
 *                              twice forked and in a session of its own. Both ignore SIGTERM.
 *
 * Each process writes one line `NAME PID NANOSECONDS` (CLOCK_MONOTONIC) to the FIFO. A line is shorter than PIPE_BUF, so
 * lines of many processes never mix. Built static: the dynamic loader would be most of what is measured.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, const char *suffix, const char *fifo, const struct timespec *entered)
{
    char line[128];
    int length = snprintf(line, sizeof line, "%s%s %d %lld\n", name, suffix, (int)getpid(),
                          entered->tv_sec * 1000000000LL + entered->tv_nsec);
    int fd = open(fifo, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || length >= (int)sizeof line || write(fd, line, length) != length)
        _exit(71);
    close(fd);
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

static void leave_behind(const char *name, const char *suffix, const char *fifo)
{
    struct timespec now;
    signal(SIGTERM, SIG_IGN);
    clock_gettime(CLOCK_MONOTONIC, &now);
    say(name, suffix, fifo, &now);
    wait_for_ever();
}

static void make_descendants(const char *name, const char *fifo)
{
    if (fork() == 0)
        leave_behind(name, "/group", fifo);
    if (fork() == 0) {
        setsid();
        if (fork() == 0)
            leave_behind(name, "/session", fifo);
        _exit(0);
    }
}

int main(int argc, char **argv)
{
    struct timespec entered;
    clock_gettime(CLOCK_MONOTONIC, &entered);
    if (argc < 3)
        return 64;
    say(argv[1], "", argv[2], &entered);
    if (argc > 3 && strcmp(argv[3], "hostile") == 0)
        make_descendants(argv[1], argv[2]);
    wait_for_ever();
}
