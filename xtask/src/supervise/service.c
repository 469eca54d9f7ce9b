/* The service that is raced. Says by a datagram that it runs, then waits, or writes lines.
 *
 *   service SOCKET ID           "run ID PID NANOSECONDS" at once, then nothing for ever
 *   service SOCKET ID LINES     the same; at SIGUSR1 so many lines of 100 bytes to standard
 *                               output, one write(2) each; "done ID PID BEGAN ENDED" after them
 *
 * Times are CLOCK_MONOTONIC, taken here, so that it does not count how late they are read.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100 };

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void say(const char *path, const char *text) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    if (sendto(socket_fd, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to) < 0)
        _exit(111);
    close(socket_fd);
}

static void write_lines(const char *id, long lines) {
    char line[LINE + 1];
    for (long number = 0; number < lines; number++) {
        int length = snprintf(line, sizeof line, "race-line %08ld of %s ", number, id);
        memset(line + length, 'x', LINE - 1 - length);
        line[LINE - 1] = '\n';
        if (write(STDOUT_FILENO, line, LINE) != LINE)
            _exit(112);
    }
}

int main(int count, char **words) {
    long long began = now();
    char text[128];
    sigset_t go;
    int signal_number;
    if (count < 3)
        return 100;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, NULL);
    snprintf(text, sizeof text, "run %s %d %lld", words[2], (int)getpid(), began);
    say(words[1], text);
    if (count > 3) {
        sigwait(&go, &signal_number);
        began = now();
        write_lines(words[2], atol(words[3]));
        snprintf(text, sizeof text, "done %s %d %lld %lld", words[2], (int)getpid(), began, now());
        say(words[1], text);
    }
    for (;;)
        pause();
}
