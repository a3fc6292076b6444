/* The second peer: the same echo, up to 64 datagrams per system call. Usage: udp_vector PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { SLOTS = 64 };

int main(int argc, char **argv)
{
    static char buffers[SLOTS][65536];
    static struct sockaddr_in peers[SLOTS];
    static struct iovec vectors[SLOTS];
    static struct mmsghdr messages[SLOTS];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int receive_buffer = 8 << 20; /* the default holds 256 small datagrams: less than the bursts */

    if (argc != 2)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nobody stops it when the benchmark is killed */
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    here.sin_port = htons((unsigned short)atoi(argv[1]));
    if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0) {
        perror("bind");
        return 1;
    }
    for (int i = 0; i < SLOTS; i++) {
        vectors[i].iov_base = buffers[i];
        messages[i].msg_hdr.msg_name = &peers[i];
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int used = SLOTS;;) {
        for (int i = 0; i < used; i++) {
            vectors[i].iov_len = sizeof buffers[i];
            messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        }
        used = recvmmsg(fd, messages, SLOTS, MSG_WAITFORONE, NULL);
        for (int i = 0; i < used; i++)
            vectors[i].iov_len = messages[i].msg_len;
        for (int sent = 0; sent < used;) {
            int accepted = sendmmsg(fd, messages + sent, (unsigned)(used - sent), 0);
            sent += accepted > 0 ? accepted : 1; /* the one that the kernel refuses is skipped, alone */
        }
        if (used < 0)
            used = 0;
    }
}
