/* The yardstick for streams: one epoll loop; what a peer does not take at once waits in a buffer of its own, and
 * meanwhile nothing is read from it. Usage: tcp_epoll PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ = 1 << 16, EVENTS = 256 };

struct peer {
    int fd;
    size_t from, until; /* of what waits */
    char *waiting;      /* NULL: nothing */
};

static char buffer[READ];

static void leave(struct peer *p)
{
    close(p->fd);
    free(p->waiting);
    free(p);
}

static int watch(int epoll, struct peer *p, unsigned events)
{
    struct epoll_event event = {.events = events, .data.ptr = p};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
}

static void echo(int epoll, struct peer *p)
{
    ssize_t length = recv(p->fd, buffer, READ, 0), taken;
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        leave(p);
        return;
    }
    taken = send(p->fd, buffer, (size_t)length, MSG_NOSIGNAL);
    if (taken < 0 && errno != EAGAIN) {
        leave(p);
        return;
    }
    taken = taken < 0 ? 0 : taken;
    if (taken == length)
        return;
    p->waiting = malloc(READ);
    p->from = 0;
    p->until = (size_t)(length - taken);
    memcpy(p->waiting, buffer + taken, p->until);
    watch(epoll, p, EPOLLOUT);
}

static void flush(int epoll, struct peer *p)
{
    ssize_t taken = send(p->fd, p->waiting + p->from, p->until - p->from, MSG_NOSIGNAL);
    if (taken < 0 && errno == EAGAIN)
        return;
    if (taken < 0) {
        leave(p);
        return;
    }
    p->from += (size_t)taken;
    if (p->from < p->until)
        return;
    free(p->waiting);
    p->waiting = NULL;
    watch(epoll, p, EPOLLIN);
}

int main(int argc, char **argv)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    int one = 1, epoll = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (argc != 2)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nobody stops it when the benchmark is killed */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    here.sin_port = htons((unsigned short)atoi(argv[1]));
    if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0 || listen(fd, 4096) != 0) {
        perror("listen");
        return 1;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct peer *p = events[i].data.ptr;
            if (p && p->waiting)
                flush(epoll, p);
            else if (p)
                echo(epoll, p);
            for (int new; !p && (new = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                struct epoll_event its = {.events = EPOLLIN, .data.ptr = calloc(1, sizeof *p)};
                ((struct peer *)its.data.ptr)->fd = new;
                setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(epoll, EPOLL_CTL_ADD, new, &its);
            }
        }
    }
}
