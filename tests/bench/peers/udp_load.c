/* The load: keeps a window of numbered datagrams in flight and verifies every byte that comes back.
 *
 * Usage: udp_load [ADDRESS:]PORT NAME=VALUE...      to 127.0.0.1, if to no other; prints one JSON object
 *
 *   seconds=1     how long it sends
 *   size=64       bytes in a datagram, from 16
 *   clients=64    sockets, each with a port of its own
 *   window=1      datagrams in flight on each
 *   refill=1      sent together by one sendmmsg when so many of the window have come back
 *   train=1       datagrams in a train: UDP_SEGMENT out, UDP_GRO in
 *   gro=0         1: UDP_GRO in also where the train is one datagram
 *   active=0      clients that have theirs in flight, each in its turn; 0: all of them. For a window of 1
 *   sources=0   each datagram comes from the next of so many addresses of 127.0.0.0/8. For a single client
 *   ports=1       client i asks PORT + i % ports
 *   sleeps=0      1: it waits in an epoll in any case, as where it shares its CPU with the server
 *   rewritten=0   from 16: bytes of which a measuring server rewrites all but the first four
 *
 * It is C because it must be at least as fast as the server, or the figures would be its own. With one in flight on each
 * socket it never sleeps and waits in no epoll, for waking it would be the server's work.
 * Every datagram sent ends in one of two numbers: received once and exact, or lost. `late` counts replies to what
 * was already written off or answered, `corrupt` what was never asked for in this form; they are neither.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <linux/udp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    EVENTS = 256,
    VECTOR = 64,       /* messages per system call */
    SLOT = 65536,      /* a train that UDP_GRO delivers is up to 65,535 bytes */
    PATIENCE = 100,    /* ms of silence after which what is in flight is lost */
    TICK = 20,         /* ms between looks for silence */
    LOOKS = 32,        /* in vain for the reply that should be next, before the one behind it is looked for */
    LARGE = 8192,      /* bytes from which the content is sent from where it lies, not from a copy */
    CROWD = 20000,     /* clients on one address of 127.0.0.0/8: a host has some 28,000 ports for them */
    HOSTS = 16777214,  /* of 127.0.0.0/8, without the network's own and the broadcast address */
    STRIDE = 10368889, /* coprime to HOSTS, so each comes once in HOSTS; its golden section, so they are spread */
};

struct mode {
    int clients, window, refill, train; /* in datagrams; a train of 1 is a plain datagram */
    int size, active, sources, ports, sleeps, gro, rewritten;
};

struct client {
    int fd;
    uint64_t base, next, highest; /* below base all is settled; next is the next number to send */
    int in_flight;
    int64_t progress; /* when something last came back, or the first of the window went out */
    unsigned char *pending;
};

static struct client *clients;
static struct mode settings;
static const struct mode *mode = &settings;
static uint64_t sent, received, lost, late, corrupt, refused;
static uint64_t ring; /* remembered numbers per client: a power of two, more than any window and its slack */
static int64_t started, last_reply;
static volatile int64_t until; /* when it sends no more; SIGTERM: now */
static int flying; /* datagrams in flight, of all clients */

static char *out, *in;
static struct mmsghdr out_messages[VECTOR], in_messages[VECTOR];
static struct iovec out_vectors[VECTOR], in_vectors[VECTOR];
static struct sockaddr_in server, in_names[VECTOR];
static union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(struct in_pktinfo))]; /* UDP_GRO and UDP_SEGMENT are smaller */
} in_control[VECTOR], out_control[VECTOR];

static struct in_addr source_address(uint64_t number)
{
    return (struct in_addr){htonl(INADDR_LOOPBACK + (uint32_t)(number % (uint64_t)mode->sources * STRIDE % HOSTS))};
}

static void settle_lost(struct client *c, uint64_t until)
{
    for (; c->base < until; c->base++) {
        unsigned char *pending = &c->pending[c->base & (ring - 1)];
        lost += *pending;
        c->in_flight -= *pending;
        flying -= *pending;
        *pending = 0;
    }
}

/* What a measuring server leaves of the head is the low half of the number, of which no client sends all. */
static uint64_t number_at(const char *at)
{
    uint64_t number = 0;
    memcpy(&number, at, mode->rewritten ? 4 : sizeof number);
    return number;
}

static void take_datagram(struct client *c, const char *at, struct in_addr to)
{
    char head[HEAD];
    uint64_t number = number_at(at), client = (uint64_t)(c - clients);
    size_t from = mode->rewritten ? (size_t)mode->rewritten : HEAD;
    write_head(head, client, number);
    if (number >= c->next || memcmp(at, head, mode->rewritten ? 4 : HEAD) != 0 ||
        memcmp(at + from, content(client, number) + from - HEAD, (size_t)mode->size - from) != 0 ||
        (mode->sources && to.s_addr != source_address(number).s_addr)) {
        corrupt++;
        return;
    }
    if (number < c->base || !c->pending[number & (ring - 1)]) {
        late++;
        return;
    }
    c->pending[number & (ring - 1)] = 0;
    c->in_flight--;
    flying--;
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
        if (m->cmsg_level == IPPROTO_UDP && m->cmsg_type == UDP_GRO)
            memcpy(&size, CMSG_DATA(m), sizeof size);
        else if (m->cmsg_level == IPPROTO_IP && m->cmsg_type == IP_PKTINFO)
            memcpy(&local, CMSG_DATA(m), sizeof local);
    if (size != mode->size || length % size != 0 || header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ||
        (mode->sources && memcmp(header.msg_name, &server, sizeof server) != 0)) {
        corrupt++;
        return;
    }
    for (int at = 0; at < length; at += size)
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
    if (room < mode->refill)
        return;
    if (c->in_flight == 0)
        c->progress = now;
    while (room >= train) {
        int count = room / train < VECTOR ? room / train : VECTOR;
        uint64_t number = c->next;
        for (int i = 0; i < count; i++) {
            if (mode->sources)
                *(struct in_pktinfo *)CMSG_DATA(&out_control[i].header) =
                    (struct in_pktinfo){.ipi_spec_dst = source_address(number)};
            for (int j = 0; j < train; j++, number++)
                write_message(out + i * SLOT + j * mode->size, (uint64_t)(c - clients), number, (size_t)mode->size);
        }
        int accepted = sendmmsg(c->fd, out_messages, (unsigned)count, MSG_DONTWAIT);
        if (accepted <= 0) {
            refused++;
            return;
        }
        for (int i = 0; i < accepted * train; i++)
            c->pending[c->next++ & (ring - 1)] = 1;
        c->in_flight += accepted * train;
        flying += accepted * train;
        sent += (uint64_t)(accepted * train);
        room -= accepted * train;
    }
}

/* The socket for many sources is bound to no address, and gets every reply to its port; the device keeps others out. */
static int open_socket(int client)
{
    int on = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in to = server, from = {.sin_family = AF_INET};
    if (ntohl(server.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET)
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(client / CROWD));
    to.sin_port = htons((uint16_t)(ntohs(server.sin_port) + client % mode->ports));
    if (fd < 0)
        die("socket");
    if (!mode->sources && (bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
                             connect(fd, (struct sockaddr *)&to, sizeof to) != 0))
        die("connect");
    if (mode->sources && (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2) != 0 ||
                            setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0))
        die("sources");
    return fd;
}

static void prepare_vectors(void)
{
    in = aligned_alloc(4096, (size_t)VECTOR * SLOT);
    out = aligned_alloc(4096, (size_t)VECTOR * SLOT);
    for (int i = 0; i < VECTOR; i++) {
        out_vectors[i] = (struct iovec){out + (size_t)i * SLOT, (size_t)(mode->train * mode->size)};
        in_vectors[i] = (struct iovec){in + (size_t)i * SLOT, SLOT};
        out_messages[i].msg_hdr = (struct msghdr){.msg_iov = &out_vectors[i], .msg_iovlen = 1};
        in_messages[i].msg_hdr = (struct msghdr){
            mode->sources ? &in_names[i] : NULL, mode->sources ? sizeof in_names[i] : 0,
            &in_vectors[i], 1, .msg_control = &in_control[i]};
        if (mode->train > 1) {
            out_control[i].header = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), IPPROTO_UDP, UDP_SEGMENT};
            *(uint16_t *)CMSG_DATA(&out_control[i].header) = (uint16_t)mode->size;
            out_messages[i].msg_hdr.msg_control = &out_control[i];
            out_messages[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof(uint16_t));
        }
        if (mode->sources) {
            out_control[i].header = (struct cmsghdr){CMSG_LEN(sizeof(struct in_pktinfo)), IPPROTO_IP, IP_PKTINFO};
            out_messages[i].msg_hdr = (struct msghdr){
                &server, sizeof server, &out_vectors[i], 1, &out_control[i], sizeof out_control[i], 0};
        }
    }
}

static int is_single(void)
{
    return mode->window == 1 && mode->train == 1 && !mode->sources && !mode->sleeps;
}

static void prepare_clients(int epoll)
{
    int on = 1, receive_buffer = 8 << 20;
    raise_file_limit();
    for (ring = 4; ring < 4 * (uint64_t)mode->window; ring *= 2)
        ;
    clients = calloc((size_t)mode->clients, sizeof *clients);
    for (int i = 0; i < mode->clients; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        int fd = clients[i].fd = open_socket(i);
        clients[i].pending = calloc(ring, 1);
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        if ((mode->train > 1 || mode->gro) && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) != 0)
            die("UDP_GRO");
        if (!is_single() && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            die("epoll_ctl");
    }
}

/* Write off what has been silent for too long, and refill; return how many datagrams are in flight. */
static int look_for_silence(int64_t now, int refilling)
{
    int in_flight = 0;
    for (int i = 0; i < mode->clients; i++) {
        struct client *c = &clients[i];
        if (c->in_flight > 0 && now - c->progress > PATIENCE * 1000000LL)
            settle_lost(c, c->next);
        if (refilling)
            send_burst(c, now);
        in_flight += c->in_flight;
    }
    return in_flight;
}

static ssize_t send_large(struct client *c)
{
    uint64_t client = (uint64_t)(c - clients);
    struct iovec parts[] = {{out, HEAD}, {(char *)content(client, c->next), (size_t)mode->size - HEAD}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    write_head(out, client, c->next);
    return sendmsg(c->fd, &message, MSG_DONTWAIT);
}

static ssize_t send_small(struct client *c)
{
    write_message(out, (uint64_t)(c - clients), c->next, (size_t)mode->size);
    return send(c->fd, out, (size_t)mode->size, MSG_DONTWAIT);
}

static void send_single(struct client *c, int64_t now)
{
    if (c->in_flight)
        return;
    if ((mode->size < LARGE ? send_small(c) : send_large(c)) < 0) {
        refused++;
        return;
    }
    c->pending[c->next++ & (ring - 1)] = 1;
    c->in_flight++;
    flying++;
    sent++;
    c->progress = now;
}

static void receive_single(struct client *c, int64_t now)
{
    ssize_t length = recv(c->fd, in, SLOT, MSG_DONTWAIT);
    if (length < 0) {
        refused += errno != EAGAIN;
        return;
    }
    if (length == mode->size)
        take_datagram(c, in, (struct in_addr){0});
    else
        corrupt++;
    c->progress = last_reply = now;
}

/* One in flight on each of some clients: look for the replies in the order in which they were asked for. */
static void run_singly(void)
{
    int count = mode->active ? mode->active : mode->clients, turn = count % mode->clients, at = 0, looks = 0;
    int64_t now = now_ns(), tick = now;
    int *asked = calloc((size_t)count, sizeof *asked);

    started = last_reply = now;
    for (int i = 0; i < count; i++)
        send_single(&clients[asked[i] = i], now);
    for (; now < until || flying > 0; now = now_ns()) {
        struct client *c = &clients[asked[at]];
        receive_single(c, now);
        if (!c->in_flight && now < until) {
            if (mode->active) {
                asked[at] = turn;
                turn = (turn + 1) % mode->clients;
            }
            send_single(&clients[asked[at]], now);
        } else if (c->in_flight && ++looks < LOOKS) {
            continue;
        }
        looks = 0;
        at = (at + 1) % count;
        if (now - tick >= TICK * 1000000LL) {
            tick = now;
            look_for_silence(now, 0);
        }
    }
}

static void run(int epoll)
{
    struct epoll_event events[EVENTS];
    int64_t now = now_ns(), tick = now;
    int in_flight = 1;

    started = last_reply = now;
    look_for_silence(now, 1);
    do {
        int refilling = now < until;
        int count = epoll_wait(epoll, events, EVENTS, TICK);
        now = now_ns();
        for (int i = 0; i < count; i++) {
            struct client *c = &clients[events[i].data.u32];
            receive(c, now);
            if (refilling)
                send_burst(c, now);
        }
        if (!refilling || now - tick >= TICK * 1000000LL) {
            tick = now;
            in_flight = look_for_silence(now, refilling);
        }
    } while (now < until || in_flight > 0);
}

static void stop(int number)
{
    (void)number;
    until = 0;
}

int main(int argc, char **argv)
{
    int epoll = epoll_create1(0);
    double seconds = setting(argc, argv, "seconds", 1);

    if (argc < 2)
        return 2;
    settings = (struct mode){
        .clients = (int)setting(argc, argv, "clients", 64), .window = (int)setting(argc, argv, "window", 1),
        .refill = (int)setting(argc, argv, "refill", 1), .train = (int)setting(argc, argv, "train", 1),
        .size = (int)setting(argc, argv, "size", 64), .active = (int)setting(argc, argv, "active", 0),
        .sources = (int)setting(argc, argv, "sources", 0), .ports = (int)setting(argc, argv, "ports", 1),
        .sleeps = (int)setting(argc, argv, "sleeps", 0), .gro = (int)setting(argc, argv, "gro", 0),
        .rewritten = (int)setting(argc, argv, "rewritten", 0)};
    server = parse_address(argv[1]);
    make_pattern();
    prepare_vectors();
    prepare_clients(epoll);
    until = now_ns() + (int64_t)(seconds * 1e9);
    signal(SIGTERM, stop);
    if (is_single())
        run_singly();
    else
        run(epoll);
    printf("{\"sent\": %llu, \"received\": %llu, \"lost\": %llu, \"late\": %llu, \"corrupt\": %llu, "
           "\"refused\": %llu, \"elapsed_ns\": %lld}\n",
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)lost,
           (unsigned long long)late, (unsigned long long)corrupt, (unsigned long long)refused,
           (long long)(last_reply - started));
    return 0;
}
