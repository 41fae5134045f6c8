# Read by the other scripts with `.`: makes a directory for a program and runs the program with the fewest rights.
#
# Started by root, a program runs as the user of its Debian package; started by anybody else, as that user.

PATH=$PATH:/usr/sbin:/sbin
umask 077

# own DIRECTORY USER: makes the directory, which is then the user's.
own() {
    # The way to it may be walked by everybody, but only the program reads what is in it.
    (umask 022 && mkdir -p state)
    mkdir -p "$1"
    if [ "$(id -u)" = 0 ]; then
        chown "$2:" "$1"
        as "$2" test -w "$1" || stop "$PWD/$1: the user $2 cannot get there; put the example where everybody may enter, such as /srv"
    fi
}

# as USER PROGRAM ARGUMENT...: runs it and waits.
as() {
    (run_as "$@")
}

# run_as USER PROGRAM ARGUMENT...: becomes it, so that signals reach the program itself.
run_as() {
    user=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups --no-new-privs "$@"
    fi
    exec "$@"
}

# need PROGRAM PACKAGE: says what to install.
need() {
    command -v "$1" > /dev/null || stop "$1 is not installed: apt-get install $2"
}

stop() {
    echo "$0: $*" >&2
    exit 78
}
