/* The yardstick: one blocking socket, one datagram per turn, nothing checked. Usage: udp_loop [ADDRESS:]PORT [awake]
 *
 * `awake`: it never sleeps, so that what a client measures is not how long a server takes to wake. */
#define _GNU_SOURCE
#include "load.h"
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    static char buffer[65536];
    struct sockaddr_in here;
    int receive_buffer = 8 << 20; /* the default holds 256 small datagrams: less than the bursts */

    if (argc < 2)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nobody stops it when the benchmark is killed */
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    here = parse_address(argv[1]);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0) {
        perror("bind");
        return 1;
    }
    int flags = argc > 2 && strcmp(argv[2], "awake") == 0 ? MSG_DONTWAIT : 0;
    for (;;) {
        struct sockaddr_in peer;
        socklen_t peer_length = sizeof peer;
        ssize_t length = recvfrom(fd, buffer, sizeof buffer, flags, (struct sockaddr *)&peer, &peer_length);
        if (length >= 0)
            sendto(fd, buffer, (size_t)length, 0, (struct sockaddr *)&peer, peer_length);
        else if (flags)
            sched_yield(); /* whoever started it may want this CPU */
    }
}
