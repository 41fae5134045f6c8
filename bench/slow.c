/* Preloaded into the host by soak.py: while the file $SLOW_DISK is there, what writes to the disk takes 100 ms more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

enum { SLOWER_US = 100000 };

static void wait_if_slow(void) {
    const char *path = getenv("SLOW_DISK");
    if (path && access(path, F_OK) == 0) usleep(SLOWER_US);
}

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_if_slow();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_if_slow();
    return real(file);
}
