/* UDPEchoPlus (TR-143, A.1) that sleeps before each reply. Usage: plus_sleeper PORT MICROSECONDS
 *
 * It writes a line for each request: its number; for how many ns it was here as the kernel saw it, from the arrival of
 * the request until the reply was handed to the device; and until this program stamped the reply. */
#define _GNU_SOURCE
#include "load.h"
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

static int64_t nanoseconds(const struct timespec *time)
{
    return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

/* Return the software stamp among the control messages of a message, or 0. */
static int64_t stamp_of(struct msghdr *message)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_TIMESTAMPING)
            return nanoseconds(&((struct scm_timestamping *)CMSG_DATA(each))->ts[0]);
    return 0;
}

int main(int argc, char **argv)
{
    static unsigned char buffer[65536];
    static char control[512];
    int flags = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE |
                SOF_TIMESTAMPING_OPT_TSONLY;
    uint32_t count = 0;

    if (argc < 3)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1UL);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = parse_address(argv[1]), peer;
    struct timespec pause = {0, atol(argv[2]) * 1000}, now;
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags) != 0 ||
        bind(fd, (struct sockaddr *)&here, sizeof here) != 0) {
        perror("plus_sleeper");
        return 1;
    }
    for (;;) {
        struct iovec data = {buffer, sizeof buffer};
        struct msghdr message = {&peer, sizeof peer, &data, 1, control, sizeof control, 0};
        ssize_t length = recvmsg(fd, &message, 0);
        int64_t received = length >= 24 ? stamp_of(&message) : 0;
        if (!received)
            continue;
        nanosleep(&pause, NULL);
        uint32_t fields[3] = {htonl(++count), htonl((uint32_t)(received / 1000)), 0};
        memcpy(buffer + 4, fields, 8);
        clock_gettime(CLOCK_REALTIME, &now);
        fields[2] = htonl((uint32_t)(nanoseconds(&now) / 1000));
        memcpy(buffer + 12, fields + 2, 4);
        sendto(fd, buffer, (size_t)length, 0, (struct sockaddr *)&peer, sizeof peer);
        struct pollfd queue = {fd, 0, 0};
        struct msghdr stamped = {NULL, 0, NULL, 0, control, sizeof control, 0};
        poll(&queue, 1, 100);
        if (recvmsg(fd, &stamped, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            continue;
        uint32_t number;
        memcpy(&number, buffer, 4);
        printf("%u %lld %lld\n", ntohl(number), (long long)(stamp_of(&stamped) - received),
               (long long)(nanoseconds(&now) - received));
        fflush(stdout);
    }
}
