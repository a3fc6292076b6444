/* The second load: one datagram in flight, its round trip timed; beside it a steady background of others.
 *
 * Usage: udp_latency [ADDRESS:]PORT NAME=VALUE...      to 127.0.0.1, if to no other; prints one JSON object
 *
 *   seconds=1    how long it sends
 *   size=64      bytes in a datagram, from 16
 *   rate=0       datagrams a second from 16 other sockets; 0: none
 *   sleeps=0     1: it sleeps until the reply is there, and until the next round trip; for none beside it
 *   pace=0       microseconds from one round trip to the next, at least; 0: as soon as the last is over
 *
 * Else it never sleeps: a client that had to be woken would add its own waking to the server's. The background is paced by
 * the clock and does not wait for replies, so a server that is slower than the rate falls behind, and shows it. Between
 * any two of its sends the timed reply is looked for: else, when it is late itself, its own sends would be in the time.
 */
#define _GNU_SOURCE
#include "load.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

enum {
    OTHERS = 16,
    SLOT = 65536,
    VECTOR = 16,
    PATIENCE = 200 * 1000000,    /* ns after which a datagram is lost */
    SAMPLES_MAX = 1 << 22,
};

static int fds[1 + OTHERS]; /* the first is the one that is timed */
static uint32_t *samples;
static uint64_t count, lost, corrupt, background_sent, background_received;
static char out[SLOT], in[VECTOR][SLOT];
static size_t size;

static void send_one(int client, uint64_t number)
{
    write_message(out, (uint64_t)client, number, size);
    if (send(fds[client], out, size, MSG_DONTWAIT) < 0)
        corrupt += client == 0;
}

/* Whether the reply to `number` is there; one to an earlier number, already lost, is passed over. */
static int take_one(uint64_t number)
{
    char head[HEAD];
    uint64_t answered;
    ssize_t length = recv(fds[0], in[0], SLOT, MSG_DONTWAIT);
    if (length < 0)
        return 0;
    memcpy(&answered, in[0], sizeof answered);
    write_head(head, 0, answered);
    if (length != (ssize_t)size || memcmp(in[0], head, HEAD) != 0 || answered > number ||
        memcmp(in[0] + HEAD, content(0, answered), size - HEAD) != 0) {
        corrupt++;
        return 0;
    }
    return answered == number;
}

static void take_background(int client)
{
    struct mmsghdr messages[VECTOR];
    struct iovec vectors[VECTOR];
    for (int i = 0; i < VECTOR; i++) {
        vectors[i] = (struct iovec){in[i], SLOT};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    int taken = recvmmsg(fds[client], messages, VECTOR, MSG_DONTWAIT, NULL);
    for (int i = 0; i < taken; i++) {
        uint64_t number;
        memcpy(&number, in[i], sizeof number);
        if (messages[i].msg_len != size || memcmp(in[i] + HEAD, content((uint64_t)client, number), size - HEAD) != 0)
            corrupt++;
        else
            background_received++;
    }
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double part)
{
    return count ? samples[(uint64_t)(part * (double)(count - 1))] / 1000.0 : 0;
}

static void run(double seconds, double rate, int64_t pace)
{
    int64_t now = now_ns(), until = now + (int64_t)(seconds * 1e9), gap = rate > 0 ? (int64_t)(1e9 / rate) : 0;
    int64_t due = now, asked = now;
    uint64_t number = 0;
    int other = 0, waiting = 1;

    send_one(0, number);
    for (; now < until; now = now_ns()) {
        int answered = waiting && take_one(number);
        if (answered && count < SAMPLES_MAX)
            samples[count++] = (uint32_t)(now_ns() - asked);
        if (waiting && (answered || now - asked > PATIENCE)) {
            lost += !answered;
            waiting = 0;
        }
        if (!waiting && (pace == 0 || now - asked >= pace)) {
            asked = now_ns();
            send_one(0, ++number);
            waiting = 1;
        }
        if (!gap || now < due)
            continue;
        send_one(1 + other % OTHERS, background_sent++);
        take_background(1 + (other + OTHERS / 2) % OTHERS);
        due += gap;
        other++;
    }
}

/* One that shares its CPU: a reply that the kernel gave during the send itself is there at the first look. */
static void run_asleep(double seconds, int64_t pace)
{
    int64_t now = now_ns(), until = now + (int64_t)(seconds * 1e9);
    for (uint64_t number = 1; now < until; number++, now = now_ns()) {
        struct pollfd there = {.fd = fds[0], .events = POLLIN};
        struct timespec rest = {0, 0};
        int64_t asked = now;
        int answered;
        send_one(0, number);
        while (!(answered = take_one(number)) && now_ns() - asked < PATIENCE)
            poll(&there, 1, (int)(PATIENCE / 1000000));
        if (answered && count < SAMPLES_MAX)
            samples[count++] = (uint32_t)(now_ns() - asked);
        lost += !answered;
        rest.tv_nsec = pace - (now_ns() - asked);
        if (rest.tv_nsec > 0)
            nanosleep(&rest, NULL);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in server;
    int receive_buffer = 8 << 20;

    if (argc < 2)
        return 2;
    server = parse_address(argv[1]);
    size = (size_t)setting(argc, argv, "size", 64);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    make_pattern();
    for (int i = 0; i <= OTHERS; i++) {
        fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (setsockopt(fds[i], SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
            setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        if (connect(fds[i], (struct sockaddr *)&server, sizeof server) != 0)
            die("connect");
    }
    if (setting(argc, argv, "sleeps", 0) > 0)
        run_asleep(setting(argc, argv, "seconds", 1), (int64_t)(setting(argc, argv, "pace", 0) * 1000));
    else
        run(setting(argc, argv, "seconds", 1), setting(argc, argv, "rate", 0),
            (int64_t)(setting(argc, argv, "pace", 0) * 1000));
    for (int64_t until = now_ns() + PATIENCE; now_ns() < until && background_received < background_sent;)
        for (int i = 1; i <= OTHERS; i++)
            take_background(i);
    qsort(samples, count, sizeof *samples, ascending);
    uint64_t sent = count + lost + background_sent, received = count + background_received;
    printf("{\"sent\": %llu, \"received\": %llu, \"lost\": %llu, \"corrupt\": %llu, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f}\n",
           (unsigned long long)sent, (unsigned long long)received, (unsigned long long)(sent - received),
           (unsigned long long)corrupt, percentile(0.5), percentile(0.99), percentile(0.999));
    return 0;
}
