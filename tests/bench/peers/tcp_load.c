/* The load on streams: one message in flight on each connection, every byte that comes back verified.
 *
 * Usage: tcp_load [ADDRESS:]PORT NAME=VALUE...      to 127.0.0.1, if to no other; prints one JSON object
 *
 *   seconds=1         how long it sends
 *   size=64           bytes in a message, up to 1 MiB
 *   connections=50    50 from each address of 127.0.0.0/8, as many as most servers let one source have
 *
 * A message is sent as fast as the server takes it, and read meanwhile. One on which nothing moves for a while is lost,
 * and its connection with it; so is each connection that the server did not take. `corrupt` are those that did not
 * come back as they went.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CROWD = 50,
    EVENTS = 256,
    READ = 1 << 18,
    CONNECT_MS = 5000, /* for all connections together */
    PATIENCE = 1000,   /* ms */
    TICK = 20,
};

struct connection {
    int fd; /* -1: lost */
    uint64_t number;
    size_t written, read;
    int64_t progress;
    int waits_to_write;
};

static struct connection *connections;
static int count, open_count, epoll;
static size_t size;
static uint64_t sent, received, lost, corrupt;
static char in[READ];

static const char *message(const struct connection *c)
{
    return content((uint64_t)(c - connections), c->number);
}

static void give_up(struct connection *c)
{
    close(c->fd);
    c->fd = -1;
    open_count--;
    if (c->number > 0 && c->read < size) /* asked, be it that not a byte of it went out */
        lost++;
}

static void write_more(struct connection *c)
{
    while (c->written < size) {
        ssize_t n = send(c->fd, message(c) + c->written, size - c->written, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            give_up(c);
            return;
        }
        if (n < 0)
            break;
        c->written += (size_t)n;
    }
    int waits = c->written < size;
    if (waits != c->waits_to_write) {
        struct epoll_event event = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.u32 = (uint32_t)(c - connections)};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->waits_to_write = waits;
    }
}

static void ask(struct connection *c)
{
    c->number++;
    c->written = c->read = 0;
    sent++;
    write_more(c);
}

/* Read what is there; the next message follows the last byte of this one. */
static void read_more(struct connection *c, int64_t now, int asking)
{
    ssize_t n = recv(c->fd, in, size < READ ? size : READ, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    c->progress = now;
    if (n <= 0) {
        give_up(c);
        return;
    }
    if (c->read + (size_t)n > c->written || memcmp(in, message(c) + c->read, (size_t)n) != 0) {
        corrupt++;
        give_up(c);
        return;
    }
    c->read += (size_t)n;
    if (c->read < size)
        return;
    received++;
    if (asking)
        ask(c);
}

static void open_all(struct sockaddr_in to)
{
    int one = 1;
    for (int i = 0; i < count; i++) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(i / CROWD));
        int fd = connections[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
            die("bind");
        if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
            die("connect");
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = (uint32_t)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        connections[i].waits_to_write = 1;
    }
}

/* Wait until all are connected; who is not in time is lost. */
static void wait_for_all(void)
{
    struct epoll_event events[EVENTS];
    for (int64_t until = now_ns() + CONNECT_MS * 1000000LL; open_count < count && now_ns() < until;) {
        int ready = epoll_wait(epoll, events, EVENTS, TICK);
        for (int i = 0; i < ready; i++) {
            struct connection *c = &connections[events[i].data.u32];
            int error = 0;
            socklen_t length = sizeof error;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
            if (error || events[i].events & (EPOLLERR | EPOLLHUP))
                continue;
            struct epoll_event event = {.events = EPOLLIN, .data.u32 = events[i].data.u32};
            epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
            open_count += c->waits_to_write;
            c->waits_to_write = 0;
        }
    }
    for (int i = 0; i < count; i++)
        if (connections[i].waits_to_write) {
            close(connections[i].fd);
            connections[i].fd = -1;
        }
}

static int in_flight(int64_t now)
{
    int flying = 0;
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        if (c->fd >= 0 && c->read < size && now - c->progress > PATIENCE * 1000000LL)
            give_up(c);
        flying += c->fd >= 0 && c->read < size;
    }
    return flying;
}

static int64_t run(double seconds)
{
    struct epoll_event events[EVENTS];
    int64_t start = now_ns(), now = start, tick = start, until = start + (int64_t)(seconds * 1e9);
    int flying = 1;
    for (int i = 0; i < count; i++) {
        connections[i].progress = now;
        if (connections[i].fd >= 0)
            ask(&connections[i]);
    }
    while (now < until || flying > 0) {
        int ready = epoll_wait(epoll, events, EVENTS, TICK);
        now = now_ns();
        for (int i = 0; i < ready; i++) {
            struct connection *c = &connections[events[i].data.u32];
            if (c->fd >= 0 && events[i].events & EPOLLOUT)
                write_more(c);
            if (c->fd >= 0 && events[i].events & ~(unsigned)EPOLLOUT)
                read_more(c, now, now < until);
        }
        if (now >= until || now - tick > TICK * 1000000LL) {
            tick = now;
            flying = in_flight(now);
        }
        if (open_count == 0)
            break;
    }
    return now - start;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    count = (int)setting(argc, argv, "connections", 50);
    size = (size_t)setting(argc, argv, "size", 64);
    connections = calloc((size_t)count, sizeof *connections);
    epoll = epoll_create1(0);
    raise_file_limit();
    make_pattern();
    open_all(parse_address(argv[1]));
    wait_for_all();
    int connected = open_count;
    int64_t elapsed = run(setting(argc, argv, "seconds", 1));
    printf("{\"sent\": %llu, \"received\": %llu, \"lost\": %llu, \"late\": 0, \"corrupt\": %llu, "
           "\"refused\": %d, \"elapsed_ns\": %lld}\n",
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)lost,
           (unsigned long long)corrupt, count - connected, (long long)elapsed);
    return 0;
}
