/* The load: keeps a window of numbered datagrams in flight and verifies every byte that comes back.
 *
 * Usage: udp_load ADDRESS PORT MODE SECONDS LIMIT      prints one JSON object
 *
 *   clients    64 sockets, one datagram in flight on each: every reply triggers the next request
 *   bursts     4 sockets, 128 in flight on each, refilled by one sendmmsg when half of them have come back
 *   trains     1 socket with UDP_SEGMENT and UDP_GRO: 16 trains of 64 datagrams in flight
 *   strangers  1 socket that sends each datagram from another address of 127.0.0.0/8, 256 in flight
 *
 * It is C because it must be at least as fast as the server, or the figures would be its own.
 * Every datagram sent ends in one of two numbers: received once and exact, or lost. `late` counts replies to what
 * was already written off or answered, `corrupt` what was never asked for in this form; they are neither.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    WORDS = 8,
    SIZE = WORDS * 8, /* bytes in a datagram */
    CLIENTS_MAX = 64,
    VECTOR = 64,       /* messages per system call, and datagrams per train (the limit of older kernels) */
    RING = 4096,       /* remembered numbers per client: a power of two, more than any window and its slack */
    SLOT = 65536,      /* a train that UDP_GRO delivers is up to 65,535 bytes */
    PATIENCE = 100,    /* ms of silence after which what is in flight is lost */
    TICK = 10,         /* ms between looks for silence */
    HOSTS = 16777214,  /* of 127.0.0.0/8, without the network's own and the broadcast address */
    STRIDE = 10368889, /* coprime to HOSTS, so each comes once in HOSTS; its golden section, so they are spread */
};

struct mode {
    const char *name;
    int clients, window, refill, train; /* in datagrams; a train of 1 is a plain datagram */
    int strangers;                      /* whether each datagram has a source address of its own */
};

static const struct mode MODES[] = {
    {"clients", 64, 1, 1, 1, 0},
    {"bursts", 4, 128, 64, 1, 0},
    {"trains", 1, 1024, 64, 64, 0},
    {"strangers", 1, 256, 64, 1, 1},
};

struct client {
    int fd;
    uint64_t base, next, highest; /* below base all is settled; next is the next number to send */
    int in_flight;
    int64_t progress; /* when something last came back, or the first of the window went out */
    unsigned char pending[RING];
};

static struct client clients[CLIENTS_MAX];
static const struct mode *mode;
static uint64_t sent, received, lost, late, corrupt, refused, limit;
static int64_t started, last_reply;

static char out[VECTOR][VECTOR * SIZE], *in;
static struct mmsghdr out_messages[VECTOR], in_messages[VECTOR];
static struct iovec out_vectors[VECTOR], in_vectors[VECTOR];
static struct sockaddr_in server = {.sin_family = AF_INET}, in_names[VECTOR];
static union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(struct in_pktinfo))]; /* UDP_GRO and UDP_SEGMENT are smaller */
} in_control[VECTOR], out_control[VECTOR];

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* The content follows from who sent it and its number, so a reply that went astray is seen as well. */
static void write_datagram(char *at, uint64_t client, uint64_t number)
{
    uint64_t words[WORDS] = {number, client << 32 | 0x6f686365};
    for (int i = 2; i < WORDS; i++)
        words[i] = (number ^ client << 56) * 0x9e3779b97f4a7c15u + (uint64_t)i * 0xd1b54a32d192ed03u;
    memcpy(at, words, SIZE);
}

static struct in_addr stranger(uint64_t number)
{
    return (struct in_addr){htonl(INADDR_LOOPBACK + (uint32_t)(number * STRIDE % HOSTS))};
}

static void settle_lost(struct client *c, uint64_t until)
{
    for (; c->base < until; c->base++) {
        unsigned char *pending = &c->pending[c->base % RING];
        lost += *pending;
        c->in_flight -= *pending;
        *pending = 0;
    }
}

static void take_datagram(struct client *c, const char *at, struct in_addr to)
{
    char expected[SIZE];
    uint64_t number;
    memcpy(&number, at, sizeof number);
    write_datagram(expected, (uint64_t)(c - clients), number);
    if (number >= c->next || memcmp(at, expected, SIZE) != 0 ||
        (mode->strangers && to.s_addr != stranger(number).s_addr)) {
        corrupt++;
        return;
    }
    if (number < c->base || !c->pending[number % RING]) {
        late++;
        return;
    }
    c->pending[number % RING] = 0;
    c->in_flight--;
    received++;
    if (number > c->highest)
        c->highest = number;
    /* A flow keeps its order on loopback: what a whole window has overtaken will not come. */
    if (c->highest > (uint64_t)mode->window)
        settle_lost(c, c->highest - (uint64_t)mode->window);
}

static void take_message(struct client *c, const struct mmsghdr *message, const char *bytes)
{
    struct msghdr header = message->msg_hdr;
    struct in_pktinfo local = {0};
    int length = (int)message->msg_len, size = length;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&header); m; m = CMSG_NXTHDR(&header, m))
        if (m->cmsg_level == SOL_UDP && m->cmsg_type == UDP_GRO)
            memcpy(&size, CMSG_DATA(m), sizeof size);
        else if (m->cmsg_level == IPPROTO_IP && m->cmsg_type == IP_PKTINFO)
            memcpy(&local, CMSG_DATA(m), sizeof local);
    if (size != SIZE || length % SIZE != 0 || header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
        memcmp(header.msg_name, &server, sizeof server) != 0) {
        corrupt++;
        return;
    }
    for (int at = 0; at < length; at += SIZE)
        take_datagram(c, bytes + at, local.ipi_addr);
}

static void receive(struct client *c, int64_t now)
{
    unsigned vector = mode->window == 1 ? 1 : VECTOR; /* the second look would always find nothing */
    for (;;) {
        for (unsigned i = 0; i < vector; i++)
            in_messages[i].msg_hdr.msg_controllen = sizeof in_control[i];
        int count = recvmmsg(c->fd, in_messages, vector, MSG_DONTWAIT, NULL);
        if (count < 0) {
            if (errno != EAGAIN)
                refused++; /* ECONNREFUSED: the server is gone */
            return;
        }
        for (int i = 0; i < count; i++)
            take_message(c, &in_messages[i], in + (size_t)i * SLOT);
        c->progress = last_reply = now;
        if (count < VECTOR)
            return;
    }
}

static void send_burst(struct client *c, int64_t now)
{
    int train = mode->train, room = mode->window - c->in_flight;
    if (room < mode->refill || sent >= limit)
        return;
    if (c->in_flight == 0)
        c->progress = now;
    while (room >= train) {
        int count = room / train < VECTOR ? room / train : VECTOR;
        uint64_t number = c->next;
        for (int i = 0; i < count; i++) {
            if (mode->strangers)
                *(struct in_pktinfo *)CMSG_DATA(&out_control[i].header) =
                    (struct in_pktinfo){.ipi_spec_dst = stranger(number)};
            for (int j = 0; j < train; j++)
                write_datagram(out[i] + j * SIZE, (uint64_t)(c - clients), number++);
        }
        int accepted = sendmmsg(c->fd, out_messages, (unsigned)count, MSG_DONTWAIT);
        if (accepted <= 0) {
            refused++;
            return;
        }
        for (int i = 0; i < accepted * train; i++)
            c->pending[c->next++ % RING] = 1;
        c->in_flight += accepted * train;
        sent += (uint64_t)(accepted * train);
        room -= accepted * train;
    }
}

/* A stranger's socket is bound to no address, and gets every reply to its port; the device keeps others out. */
static int open_socket(void)
{
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (!mode->strangers && connect(fd, (const struct sockaddr *)&server, sizeof server) != 0)
        die("connect");
    if (mode->strangers && (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2) != 0 ||
                            setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0))
        die("strangers");
    return fd;
}

static void prepare(int epoll)
{
    int on = 1, receive_buffer = 8 << 20;
    in = aligned_alloc(4096, (size_t)VECTOR * SLOT);
    for (int i = 0; i < VECTOR; i++) {
        out_vectors[i] = (struct iovec){out[i], (size_t)(mode->train * SIZE)};
        in_vectors[i] = (struct iovec){in + (size_t)i * SLOT, SLOT};
        out_messages[i].msg_hdr = (struct msghdr){.msg_iov = &out_vectors[i], .msg_iovlen = 1};
        in_messages[i].msg_hdr = (struct msghdr){
            &in_names[i], sizeof in_names[i], &in_vectors[i], 1, .msg_control = &in_control[i]};
        if (mode->train > 1) {
            out_control[i].header = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), SOL_UDP, UDP_SEGMENT};
            *(uint16_t *)CMSG_DATA(&out_control[i].header) = SIZE;
            out_messages[i].msg_hdr.msg_control = &out_control[i];
            out_messages[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof(uint16_t));
        }
        if (mode->strangers) {
            out_control[i].header = (struct cmsghdr){CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
            out_messages[i].msg_hdr = (struct msghdr){
                &server, sizeof server, &out_vectors[i], 1, &out_control[i], sizeof out_control[i], 0};
        }
    }
    for (int i = 0; i < mode->clients; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        int fd = clients[i].fd = open_socket();
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        if (mode->train > 1 && setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) != 0)
            die("UDP_GRO");
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            die("epoll_ctl");
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[CLIENTS_MAX];
    int in_flight = 0, epoll = epoll_create1(0);

    for (size_t i = 0; argc == 6 && i < sizeof MODES / sizeof *MODES; i++)
        if (strcmp(argv[3], MODES[i].name) == 0)
            mode = &MODES[i];
    if (!mode || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
        return 2;
    server.sin_port = htons((unsigned short)atoi(argv[2]));
    limit = strtoull(argv[5], NULL, 10);
    prepare(epoll);

    int64_t now = now_ns(), tick = now, until = now + (int64_t)(atof(argv[4]) * 1e9);
    started = last_reply = now;
    for (int i = 0; i < mode->clients; i++)
        send_burst(&clients[i], now);
    do {
        int count = epoll_wait(epoll, events, CLIENTS_MAX, TICK);
        now = now_ns();
        int refilling = now < until && sent < limit;
        for (int i = 0; i < count; i++) {
            struct client *c = &clients[events[i].data.u32];
            receive(c, now);
            if (refilling)
                send_burst(c, now);
        }
        if (refilling && now - tick < TICK * 1000000LL)
            continue;
        tick = now;
        in_flight = 0;
        for (int i = 0; i < mode->clients; i++) {
            struct client *c = &clients[i];
            if (c->in_flight > 0 && now - c->progress > PATIENCE * 1000000LL)
                settle_lost(c, c->next);
            if (refilling)
                send_burst(c, now);
            in_flight += c->in_flight;
        }
    } while ((now < until && sent < limit) || in_flight > 0);

    printf("{\"sent\": %llu, \"received\": %llu, \"lost\": %llu, \"late\": %llu, \"corrupt\": %llu, "
           "\"refused\": %llu, \"elapsed_ns\": %lld}\n",
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)lost,
           (unsigned long long)late, (unsigned long long)corrupt, (unsigned long long)refused,
           (long long)(last_reply - started));
    return 0;
}
